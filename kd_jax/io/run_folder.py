"""The run folder: its files, written atomically and read strictly (host side).

This docstring is the one place where the columns are documented; `run_config.FORMAT`, which config.json and
summary.json repeat, is their version: a column that changes its meaning raises it, one more metric does not.
Runs of an older format are refused.
Each csv is tidy, one measurement a row, and one line of pandas:

    pd.read_csv(folder / "results.csv", dtype={"class": str})

config.json     {"format": 2, "experiment", "command", "flags": {}, "versions": {}, "device",
                "data": {"name", "fingerprint", "num_classes", "class_names": [], and how many examples:
                "train", "validation", "test"; where it is so, "skipped", files that could not be read, and
                "notes": [], how the data were read},
                "teacher": null or {"path", "sha256", "model", "num_teachers", ..., and, where it is so,
                "saw_validation": true, that it trained on images of this validation split; of students who
                teach, "setting", "generation" (1: taught by teachers of labels) and "teacher", their own; of
                several folders, "members", a list with the like for each},
                "settings": [{"name", "omitted": [class indices], and the values that make the setting; null
                is a value that has no meaning there, as the temperature of a student without a teacher}],
                "runs": [{"run", "setting": its name, "seed", "teacher_seed": null or int}]}; and, if wanted,
                "question": the line that heads the report, "transfer": {"name", "fingerprint",
                "examples", "origin" of images made from a teacher} of other images that students were taught
                on, "continued": a list with an object (device, versions and the like) for each continuation,
                and "time": {"run_seconds", "training_seconds", "examples"}: wall-clock time of the whole run
                and, within it, of its training, compilation included, and how many examples all its students
                (or teachers) saw in it, epochs trained again counted again; over all processes that continued
                it, without what one that was killed did after its last checkpoint. "imported": of pretrained
                teachers, {split: {"accuracy", "support"}} of their weights before training.
history.csv     run, setting, seed, epoch (from 1), split (train | validation),
                metric (loss, in nats | accuracy, agreement, accuracy_omitted, fractions; with --track also
                accuracy and accuracy_omitted followed by _corrected, under the bias that the known share of
                the omitted classes sets, or by _probe, of a linear probe of the last hidden layer, fitted on
                the validation images of even index and judged on the others), value.
                Split train is what training met during the epoch: loss (there the training objective),
                accuracy and agreement (with the target, after its ablation by --teacher_ablations) on
                augmented batches with dropout on; where the images have no labels, the teacher's predictions
                stand for them, and accuracy is agreement. Split validation is measured at the end of the
                epoch, without either; its loss is the cross-entropy: the two losses are not comparable. A
                run that diverged has no row from the epoch on in which it did.
results.csv     setting (a setting's name, or "teacher", then seed is the teacher's, or, where there are
                several folders of them, its number counted through all "members"), seed, split (validation
                | test), correction (CORRECTIONS), class (all | omitted | seen | 0..K-1), metric, value.
                Metrics: accuracy (fraction; of one class, its recall), errors, support (counts),
                bias (class omitted: what is added to the omitted classes' logits, in nats). Of each class,
                fractions: precision (0 where nothing is called so), f1 (0 where nothing is right). Of class
                all, macro_recall, macro_precision, macro_f1: means over the classes that have examples.
                Of class all, correction none, softmax at T = 1: top5_accuracy (fraction; of more than 5
                classes), nll (nats, the mean of -log p(label)), ece (fraction: expected calibration error, 15
                bins of equal width, Guo et al. 2017, section 2; it is larger where examples are few: a bin of
                n examples and accuracy a adds about sqrt(2 a (1 - a) / (pi n)), weighed by its share, even if
                it is calibrated), and of students, against the teacher that they were given (the mean, where
                that is an ensemble; also where alpha = 0): agreement (share called the same), kl_to_teacher
                (nats, the mean of KL(teacher || student)). Older runs lack these, precision and f1.
                ensemble_accuracy and ensemble_errors, of the mean of several models' probabilities at T = 1
                (correction none): of a setting, its students of all seeds together, under the first seed; of
                "teacher", the teachers of a student, where they are several, under that student's
                teacher_seed, or 0 where it is null; in a run of train_teacher, those of all seeds, under 0;
                none where one of them diverged.
                A run that diverged, one that an epoch left with a number that is not finite, has one row
                alone: diverged (split test, correction none, class all), the epoch. It stays as it was before
                that epoch, in students/ or teachers/ too, and is left out of every mean.
representation.csv  setting (a setting's name, or "random": the students' networks before training), seed,
                layer, measure (probe, neighbours: recall, a fraction; cka, silhouette, from -1 to 1;
                centroid_distance, in root mean square distances from the centre), class (omitted | seen),
                value; of a transfer set with synthesised images of the omitted classes, also of these:
                probe_synthesised, cka_synthesised, centroid_distance_synthesised (from the real ones).
                Written by `representation`. In older runs cka and centroid_distance are biased upwards, the
                more the fewer the examples: run `representation` on them again.
confusions.npz  counts, whole numbers [rows,K,K]: how many test examples of class i are called j; and of each
                row its setting, seed and correction, as in results.csv: one row for each of them there that
                has an accuracy on the test split.
bias_curve.csv  setting, seed, bias (nats), class (all | omitted | seen, and, where there are at most 100,
                0..K-1), accuracy (fraction, test split); only where some setting has omitted classes.
examples.npz    images u8[n,h,w,c], labels, before, after, number i32[n], setting, seed, correction: test
                images of the classes that this setting misses, which its student of this seed gets wrong as
                trained; their true class, what they are called as trained and under this correction, their
                place in the test split. At most 24 that the correction makes right and 24 that stay wrong,
                the first of each; of the setting and the correction that the report answers with, and
                its first seed that did not diverge. Only of `distill`, where that setting misses classes;
                older runs do not have it.
SHA256SUMS      the sha256 of config.json, history.csv, results.csv, confusions.npz, bias_curve.csv,
                examples.npz and representation.csv, once the run is complete, as `sha256sum --check` reads
                it. What is not as it says is refused; the line of a file that was changed on purpose is to be
                removed.
summary.json    {"format": 2, "results": [{"setting", "split", "correction", "class", "metric", "mean", "low",
                "high", "n"}], "paired": [{"a", "b", "split", "correction", "class", "metric", "difference",
                "low", "high", "p", "n"}], "diverged": [{"setting", "seed", "epoch"}]}. 95 % intervals; n
                counts independent units (intervals.py). A pair is a minus b over the same seeds, both under
                that correction; where a and b are the same setting, it is that correction minus none. What is
                undefined is null, and so are the ends of the interval over teachers of several folders, which
                differ by more than their seed, and are one unit. Where the units show no spread, shares of
                the test examples and numbers of these have the exact binomial interval; else the ends are
                null, and so is p.

A value that is undefined (the accuracy of a class without examples) is an empty cell, and nan in Python; only
the loss of a run may be inf, every other number is finite.
Numbers are written with repr, so they read back as the same float64.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from kd_jax.errors import InputError
from kd_jax.io import confusions, run_config, run_files, sums, tidy_csv
from kd_jax.io.tidy_csv import finite, number, one_of, or_empty, whole
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import (
    DIVERGED,
    HISTORY_METRICS,
    MEASURES,
    METRICS,
    RANDOM,
    TEACHER,
    TRACKED_METRICS,
    BiasRow,
    Confusion,
    HistoryRow,
    RepresentationRow,
    ResultRow,
)

MEASURED = ("config.json", "history.csv", "results.csv", confusions.NAME, "bias_curve.csv", "examples.npz")
"""What a report is made from."""


class Run(NamedTuple):
    """A whole run folder, read and checked.  history: of the runs that did not diverge."""

    description: RunDescription
    history: list[HistoryRow]
    results: list[ResultRow]
    confusions: list[Confusion]
    bias_curve: list[BiasRow]


# Writing


def write_history(folder: Path, rows: Iterable[HistoryRow]) -> None:
    """history.csv, whole or not at all, as all that is written here."""
    run_files.write(Path(folder) / "history.csv", tidy_csv.render(HistoryRow, rows))


def write_results(folder: Path, rows: Iterable[ResultRow]) -> None:
    run_files.write(Path(folder) / "results.csv", tidy_csv.render(ResultRow, rows))


def write_bias_curve(folder: Path, rows: Iterable[BiasRow]) -> None:
    run_files.write(Path(folder) / "bias_curve.csv", tidy_csv.render(BiasRow, rows))


def write_representation(folder: Path, rows: Iterable[RepresentationRow]) -> None:
    """representation.csv; where the run has sums, with its own."""
    folder, name = Path(folder), "representation.csv"
    unseal(folder, [name])  # first: killed in between, the file has no sum rather than another's
    run_files.write(folder / name, tidy_csv.render(RepresentationRow, rows))
    if (folder / sums.NAME).exists():
        seal(folder, [name])


def seal(folder: Path, names: Iterable[str] = MEASURED) -> None:
    """SHA256SUMS says from now on what these files of a run are; those that are not there it leaves out."""
    run_files.write(folder / sums.NAME, sums.render(sums.read(folder) | sums.of(folder, names)))


def unseal(folder: Path, names: Iterable[str] = (*MEASURED, "representation.csv")) -> None:
    """SHA256SUMS says nothing of these files any more: they are about to change."""
    before = sums.read(folder)
    left = {name: digest for name, digest in before.items() if name not in names}
    if left:
        run_files.write(folder / sums.NAME, sums.render(left))
    elif before:
        (folder / sums.NAME).unlink()


# Reading


def read_run(folder: Path) -> Run:
    """Reads config.json, history.csv, results.csv, confusions.npz and bias_curve.csv, and checks that they
    belong together.

    Errors: InputError that names the file, and the line where there is one, of whatever is missing, an epoch
    of a run included, malformed, unknown to config.json or given twice.
    """
    description = run_config.read(folder)
    results = read_results(folder, description)
    matrices = read_confusions(folder, description, results)
    corrected = any(row.correction != "none" for row in results)
    curve = read_bias_curve(folder, description) if corrected else []
    lost = {(row.setting, row.seed) for row in results if row.metric == DIVERGED}
    history = [row for row in read_history(folder, description) if (row.setting, row.seed) not in lost]
    _require_epochs(Path(folder) / "history.csv", history, description, lost)
    return Run(description, history, results, matrices, curve)


def read_history(folder: Path, description: RunDescription) -> list[HistoryRow]:
    """Errors: InputError that names the line."""
    parsers = _parsers(description) | {
        "split": one_of(("train", "validation")),
        "metric": one_of(HISTORY_METRICS),
        "value": or_empty(number),
    }
    return tidy_csv.read(Path(folder) / "history.csv", HistoryRow, parsers)


def _require_epochs(path: Path, rows: list[HistoryRow], description: RunDescription, lost: set) -> None:
    """Refuses a history that lacks epochs, of those that config.json's flags say; of a setting that was
    trained at all, and of runs that are not lost: (setting, seed)."""
    epochs = description.flags.get("epochs")
    runs = {(run.setting, run.seed) for run in description.runs} - lost
    if not isinstance(epochs, int) or not runs or (epochs == 0 and not rows):
        return
    epochs_of: dict[tuple[str, int], Counter[int]] = {}
    for row in rows:
        if row.metric not in TRACKED_METRICS:  # of which there are fewer where no class is omitted
            epochs_of.setdefault((row.setting, row.seed), Counter())[row.epoch] += 1
    trained = {setting for setting, _ in epochs_of}
    judged = sorted(run for run in runs if run[0] in trained)
    lacking = [run for run in judged if not _counts_to(epochs, epochs_of.get(run, Counter({0: 1})))]
    if lacking or not judged:
        given = f"others of {lacking[0][0]!r}, seed {lacking[0][1]}" if lacking else "none"
        raise InputError(f"{path} is incomplete", f"epochs 1 to {epochs} of each run", given)


def _counts_to(last: int, counts: Counter[int]) -> bool:
    """Whether 1 to last, which may be any number, are there equally often."""
    return len(counts) == last == max(counts) and min(counts) == 1 and len(set(counts.values())) == 1


def read_results(folder: Path, description: RunDescription) -> list[ResultRow]:
    """Errors: InputError that names the line; also when a run of config.json has no result at all."""
    path = Path(folder) / "results.csv"
    parsers = _parsers(description) | {
        "setting": one_of([*description.setting_names(), TEACHER]),
        "class": one_of(_classes(description)),
        "metric": one_of(METRICS),
    }
    rows: list[ResultRow] = tidy_csv.read(path, ResultRow, parsers)
    present = {(row.setting, row.seed) for row in rows}
    for run in description.runs:
        if (run.setting, run.seed) not in present:
            expected = f"rows of each run of config.json, also of {run.setting!r}, seed {run.seed}"
            raise InputError(f"{path} is incomplete", expected, "none")
    return rows


def read_confusions(folder: Path, run: RunDescription, results: Iterable[ResultRow]) -> list[Confusion]:
    """Errors: InputError that names the file, also where its rows are not those that results.csv has."""
    rows = confusions.read(folder, run, CORRECTIONS)
    measured = {
        (row.setting, row.seed, row.correction)
        for row in results
        if (row.split, row.class_, row.metric) == ("test", "all", "accuracy")
    }
    if differing := sorted(measured ^ {row[:3] for row in rows}):
        setting, seed, correction = differing[0]
        given = f"another number of {setting!r}, seed {seed}, correction {correction}"
        expected = "one matrix for each accuracy of all classes that results.csv has on the test split"
        raise InputError(f"{Path(folder) / confusions.NAME} does not fit", expected, given)
    return rows


def read_representation(folder: Path, description: RunDescription) -> list[RepresentationRow]:
    """Errors: InputError that names the line."""
    parsers = _parsers(description) | {
        "setting": one_of([RANDOM, *description.setting_names()]),
        "layer": str,
        "measure": one_of(MEASURES),
        "class": one_of(("omitted", "seen")),
    }
    return tidy_csv.read(Path(folder) / "representation.csv", RepresentationRow, parsers)


def read_bias_curve(folder: Path, description: RunDescription) -> list[BiasRow]:
    """Errors: InputError that names the line."""
    parsers = _parsers(description) | {"class": one_of(_classes(description))}
    return tidy_csv.read(Path(folder) / "bias_curve.csv", BiasRow, parsers)


def _classes(description: RunDescription) -> list[str]:
    return ["all", "omitted", "seen", *map(str, range(description.data.num_classes))]


def _parsers(description: RunDescription) -> dict[str, tidy_csv.Parser]:
    """What most columns hold; a file's reader adds or replaces the others."""
    return {
        **dict.fromkeys(("run", "seed", "epoch"), whole),
        "setting": one_of(description.setting_names()),
        "split": one_of(("validation", "test")),
        "correction": one_of(CORRECTIONS),
        "bias": finite,
        "accuracy": or_empty(finite),
        "value": or_empty(finite),
    }
