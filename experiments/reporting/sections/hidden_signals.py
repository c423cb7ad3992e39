"""The report's chapter on hidden signals: through which channel an omitted class comes, when, and what the
students' features hold, where `representation` has looked."""

from pathlib import Path

from experiments.reporting.markdown import Grid, Section, show, tabulate
from kd_jax.io import run_config, run_files, run_folder
from kd_jax.stats import corrections, curves
from kd_jax.stats.corrections import CORRECTIONS
from kd_jax.stats.description import RunDescription
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import MEASURES_OF_SYNTHESISED, RANDOM, RepresentationRow
from kd_jax.stats.summary import Summary, depends_on_teacher, interval_of

FIGURE = "figures/features.png"
SHOWN = (
    ("probe", "omitted", "linear probe", 100, 1),
    ("probe", "seen", "the others", 100, 1),
    ("neighbours", "omitted", "10 neighbours", 100, 1),
    ("cka", "omitted", "CKA to the teacher", 1, 3),
    ("cka", "seen", "the others", 1, 3),
    ("silhouette", "omitted", "silhouette", 1, 3),
    ("centroid_distance", "omitted", "distance of the centre", 1, 2),
)
SHOWN_OF_SYNTHESISED = (
    ("probe_synthesised", "omitted", "linear probe, synthesised", 100, 1),
    ("cka_synthesised", "omitted", "CKA to the teacher, synthesised", 1, 3),
    ("centroid_distance_synthesised", "omitted", "distance of synthesised from real", 1, 2),
)
EXPLAINED = (
    "Of each network's features, as the next layer sees them (large maps averaged), test split. Linear "
    "probe and neighbours: recall in %, fitted on validation images of all classes, the one that was left "
    "out too: what could be read off, not what is. A class with few validation images has a lower recall "
    "for that alone. CKA: similarity to the same layer of the student's teacher, on images of the class and "
    "on as many of the others, drawn at random; 1 is the same up to rotation and scale, about 0 (also below) "
    "is unrelated. It is the unbiased estimate, which does not depend on how many images or features there "
    "are. The images of the others differ by class too, those of one class do not: compare the rows of a "
    "column, not the two columns. Silhouette (-1 to 1) and distance of the centre (in root mean square "
    "distances from it, corrected for the number of images): how apart the class lies. "
    f"{RANDOM!r}: the same networks before training."
)
EXPLAINED_SYNTHESISED = (
    "Synthesised: the transfer set's images of the omitted classes that were made from a teacher; of several "
    "teachers, those that the student was given. Students whose share of them is above 0 were trained on "
    "them. Linear probe: how many of them, in %, the same probe, fitted on real validation images, assigns "
    "to their class. CKA: on these images. Distance: of their centre from that of the real test images of "
    "the same classes, in root mean square distances from it; 0 where it is within chance."
)

READ_OFF = (
    "Recall in % of the omitted classes and of the others, test split, by a linear probe; and of the omitted "
    "ones by 10 neighbours. The table of the report has every layer and measure."
)
CHANNEL = (
    "What comes back of the omitted classes, test accuracy in % of their examples: as trained, and under the "
    "corrections that need no label of theirs."
)
WHEN = (
    "When: accuracy in % of the omitted classes' validation examples after an epoch, as classified, with the "
    "bias that their known share sets, and as a linear probe reads them off the last hidden layer (fitted on "
    "half of the validation images with their labels, judged on the other half)."
)
VARIED = ("shots", "teacher_ablation", "student_init")  # what a setting says of the channel
TRACKED = (
    ("accuracy_omitted", "classified"),
    ("accuracy_omitted_corrected", "corrected"),
    ("accuracy_omitted_probe", "by a probe"),
)


def last_layer(folder: Path) -> str:
    """The table of a run's last hidden layer, which stands first in the file."""
    description = run_config.read(folder)
    rows = run_folder.read_representation(folder, description)
    return "\n".join(tabulate(*_table(rows, rows[0].layer, description))).strip()


def read_off(folder: Path) -> Section:
    """What a terminal shows of the last hidden layer: which of an omitted class can be read off."""
    description = run_config.read(folder)
    rows = run_folder.read_representation(folder, description)
    head, lines = _table(rows, rows[0].layer, description)
    table = Grid(["", "", *head[1:4], head[-1]], [[line[0], "", *line[1:4], line[-1]] for line in lines])
    return Section(f"What can be read off layer {rows[0].layer}", [READ_OFF, table])


def probed(folder: Path) -> dict[str, Interval]:
    """The recall of the omitted classes by a linear probe of the last hidden layer, by setting; {} where
    `representation` has not looked at the run."""
    if run_files.read(folder / "representation.csv") is None:
        return {}
    description = run_config.read(folder)
    rows = run_folder.read_representation(folder, description)
    of_probe = [
        row for row in rows if (row.layer, row.measure, row.class_) == (rows[0].layer, "probe", "omitted")
    ]
    return {
        setting: interval_of(
            setting,
            {row.seed: row.value for row in of_probe if row.setting == setting},
            description.teachers_of_runs(),
        )
        for setting in dict.fromkeys(row.setting for row in of_probe)
    }


def _table(rows: list[RepresentationRow], layer: str, description: RunDescription) -> Grid:
    learnt, compared = description.teachers_of_runs(), description.teachers_of_runs(of_teacher=True)
    shown, table = SHOWN + (SHOWN_OF_SYNTHESISED if has_synthesised(rows) else ()), []
    # An untrained network depends on no teacher, but is compared with that of its seed's students.
    compared |= {(RANDOM, seed): teacher for (_, seed), teacher in compared.items()}
    for setting in dict.fromkeys(row.setting for row in rows):
        measured = [row for row in rows if (row.setting, row.layer) == (setting, layer)]
        cells, units = [], 0
        for measure, classes, _, scale, digits in shown:
            which = measure, classes
            by_seed = {row.seed: row.value for row in measured if (row.measure, row.class_) == which}
            taught = compared if depends_on_teacher("none", measure) else learnt
            interval = interval_of(setting, by_seed, taught)
            units = max(units, interval.n)
            cells.append(show(interval, scale, digits, " ± "))
        table.append([setting, *cells, str(units)])
    return Grid(["", *(head for *_, head, _, _ in shown), "n"], table)


def has_synthesised(rows: list[RepresentationRow]) -> bool:
    """Whether synthesised images were looked at."""
    return any(row.measure in MEASURES_OF_SYNTHESISED for row in rows)


def section(folder: Path, run: run_folder.Run, summary: Summary) -> list[Section]:
    """The report's chapter; none where no setting varies the channel and nobody looked at the features."""
    blocks = _channel(run.description, summary) + _tracked(run, summary)
    figure = ""
    if run_files.read(folder / "representation.csv") is not None:
        rows = run_folder.read_representation(folder, run.description)
        blocks += [EXPLAINED, EXPLAINED_SYNTHESISED] if has_synthesised(rows) else [EXPLAINED]
        for layer in dict.fromkeys(row.layer for row in rows):
            blocks += [f"Layer {layer}:", _table(rows, layer, run.description)]
        figure = FIGURE if (folder / FIGURE).is_file() else ""
    return [Section("Hidden signals", blocks, figure)] if blocks else []


def _channel(description: RunDescription, summary: Summary) -> list[str | Grid]:
    """What comes back of the omitted classes through each channel, where settings differ in one."""
    settings = [setting for setting in description.settings if setting.omitted]
    varied = any(setting.get(name) for setting in settings for name in VARIED)
    if not varied and len({setting.omitted for setting in settings}) < 3:
        return []
    rows, free = [], corrections.label_free(CORRECTIONS)
    for setting in settings:
        name = setting.name
        trained, *corrected = (summary.accuracy(name, "omitted", c) for c in ("none", *free))
        cost = summary.accuracy(name, correction=free[-1])
        cells = [show(interval, half=" ± ") for interval in (trained, *corrected, cost)]
        rows.append([name, *cells, str(trained.n if trained else 0)])
    heads = ["setting", "as trained", *free, f"all classes, {free[-1]}", "n"]
    return [CHANNEL, Grid(heads, rows)]


def _tracked(run: run_folder.Run, summary: Summary) -> list[str | Grid]:
    """When the omitted classes come back, where --track measured it."""
    by_epoch = curves.by_epoch(run.history, run.description, "validation")
    rows: list[list[str]] = []
    heads: list[str] = []
    for setting in dict.fromkeys(name for name, _ in by_epoch):
        judged = summary.accuracy(setting, "omitted")
        if judged is None or not all((setting, metric) in by_epoch for metric, _ in TRACKED):
            continue
        n, cells, heads = judged.n, [], []
        for metric, words in TRACKED:
            points = by_epoch[setting, metric]
            for place in sorted({0, len(points) // 2, len(points) - 1}):
                epoch, mean, low, high = points[place]
                heads.append(f"{words}, epoch {epoch:.0f}")
                cells.append(show(Interval(mean, low, high, n), 1, half=" ± "))
        rows.append([setting, *cells, str(n)])
    return [WHEN, Grid(["setting", *heads, "n"], rows)] if rows else []
