"""What a finished run came to, before it is a terminal's text, Markdown or HTML: its numbers, its tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.cli.progress import duration
from experiments.reporting.markdown import NO_SPREAD, NO_SPREAD_NOTE, Grid, Section, difference_cells, show
from experiments.reporting.sections import (
    calibration,
    contact_sheet,
    ensembles,
    hidden_signals,
    learning_speed,
)
from kd_jax.io import run_folder
from kd_jax.stats.description import RunDescription, SettingInfo
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import TEACHER
from kd_jax.stats.summary import Summary, summarise

MOST_PAIRS, MOST_CLASSES = 30, 20


class Content(NamedTuple):
    """What the renderings share. settings: those with results, the teacher too; head: the setting that the
    answer is about, chosen on the seen classes of the validation split, and its correction that needs the
    fewest labels."""

    run: run_folder.Run
    summary: Summary
    settings: list[SettingInfo]
    head: tuple[str, str]

    @property
    def head_setting(self) -> SettingInfo:
        """The setting that the answer is about."""
        return next(setting for setting in self.settings if setting.name == self.head[0])


def read(folder: Path) -> Content:
    """Errors: InputError for a folder that is no whole run folder, or a damaged file."""
    run = run_folder.read_run(folder)
    return content_of(run, summarise(run.results, run.description))


def content_of(run: run_folder.Run, summary: Summary) -> Content:
    """The content of a run, chosen by its summary."""
    settings = list(run.description.settings)
    best = summary.best_setting(settings)
    if TEACHER not in run.description.setting_names() and summary.corrections_of(TEACHER):
        settings = [SettingInfo(TEACHER, {"omitted": ()}), *settings]
    return Content(run, summary, settings, (best, summary.preferred_correction(best)))


def grid(content: Content, parts: Sequence[str], half: str | None) -> Iterator[list[str]]:
    """[setting, correction, errors, the test accuracy of each part in %, n]; a part is all, omitted, seen or
    a class index: with one decimal, a star where it is omitted, an interval only where `half` joins it.
    """
    for setting in content.settings:
        name, summary = setting.name, content.summary
        for correction in summary.corrections_of(name):
            cells = [show(summary.errors(name, correction=correction), 1, 1, half=None)]
            for part in parts:
                star = " *"[int(part) in setting.omitted] if part.isdigit() else ""
                cells.append(show_part(summary.accuracy(name, part, correction), part, half) + star)
            yield [name, correction, *cells, count(summary.accuracy(name, correction=correction))]


def show_part(interval: Interval | None, part: str, half: str | None) -> str:
    """The accuracy of a part as `grid` has it, but for the star."""
    return show(interval, digits=1, half=half) if part.isdigit() else show(interval, half=half or " ±")


def count(interval: Interval | None) -> str:
    """The number of independent units; 0 where nothing was measured."""
    return str(interval.n if interval else 0)


def class_parts(description: RunDescription) -> tuple[list[str], list[str]]:
    """(parts, as `grid` takes them, their heads) of a table of the classes: of many, seen and omitted."""
    if description.data.num_classes > MOST_CLASSES:
        return ["seen", "omitted"], ["seen", "omitted"]
    return [str(index) for index in range(description.data.num_classes)], [*description.data.class_names]


def report_sections(folder: Path, content: Content, percent: float | None) -> list[Section]:
    """The sections after the accuracies.  folder: of the run; percent: as in `learning_speed.section`."""
    names = [setting.name for setting in content.settings]
    return [
        *calibration.section(names, content.summary),
        *_biases(content),
        *ensembles.section(names, content.run, content.summary),
        *ensembles.teachers_section(content.run, content.summary),
        *_differences(content),
        *learning_speed.section(content.run.history, content.run.description, percent),
        *hidden_signals.section(folder, content.run, content.summary),
        *contact_sheet.section(folder, content.run.description),
    ]


def _biases(content: Content) -> list[Section]:
    rows = []
    for setting in content.settings:
        for correction in content.summary.corrections_of(setting.name):
            bias = content.summary.bias(setting.name, correction)
            if bias is not None and correction != "none":
                rows.append([setting.name, correction, show(bias, 1, half=" ± "), str(bias.n)])
    heads = ["setting", "correction", "added to the omitted classes' logits (nats)", "n"]
    return [Section("Biases", [Grid(heads, rows)])] if rows else []


def _differences(content: Content) -> list[Section]:
    """Of the pairs of summary.json: accuracies as trained and under the answer's corrections; where there are
    many settings, only against the answer's setting."""
    setting, chosen = content.head
    shown = {"none", chosen, *content.summary.label_free(setting)}
    paired = content.summary.paired
    few, rows = len(content.settings) <= 5, []
    for pair in paired:
        a, b, correction = pair.a, pair.b, pair.correction
        corrected = a == b and correction in shown and pair.class_ == "omitted"
        is_published = corrected or ((a == b or correction in shown) and (few or setting in (a, b)))
        if pair.metric == "accuracy" and is_published:
            within = [f"{correction} - none", a]
            between = [f"{a} - {b}", f"correction {correction}"]
            cells = [pair.class_, *difference_cells(pair.difference)]
            rows.append((within if a == b else between) + cells)
    if not rows:
        return []
    rows = rows[:MOST_PAIRS]
    heads = ["difference", "within", "classes", "points", "95 % interval", "p", "n"]
    note = f"Paired over seeds, test accuracy in percentage points; {len(rows)} of the"
    note += f" {len(paired)} pairs in summary.json; p is not corrected for their number."
    note += NO_SPREAD_NOTE if any(row[4] == NO_SPREAD for row in rows) else ""
    return [Section("Paired differences", [note, Grid(heads, rows)])]


def run_facts(description: RunDescription) -> list[tuple[str, str]]:
    """(what, its value) of how the run was made, beside its command."""
    data, teacher, time = description.data, description.teacher, description.time
    examples = f"{data.train} train, {data.validation} validation, {data.test} test"
    if data.skipped:
        examples += f"; files left out, for they cannot be read: {data.skipped}"
    facts = [("data", f"{data.name}, fingerprint {data.fingerprint}"), ("device", description.device)]
    facts.append(("examples", examples))
    if teacher is not None:
        words = ", ".join(f"{k} {v}" for k, v in teacher.items() if isinstance(v, str | int))
        facts.append(("teacher", words))
    if description.imported:
        facts.append(("weights as imported", imported_accuracy(description.imported)))
    if origin := (description.transfer or {}).get("origin"):
        facts.append(("synthesised images", contact_sheet.described(origin)))
    facts.append(("versions", ", ".join(f"{k} {v}" for k, v in description.versions.items())))
    if time and time.training_seconds:
        rate = time.examples / time.training_seconds
        whole, training = duration(time.run_seconds), duration(time.training_seconds)
        facts.append(("time", f"{whole}, of which training {training}: {rate:,.0f} examples a second"))
    return facts + [("continued", _in_short(entry)) for entry in description.continued]


def imported_accuracy(imported: Mapping[str, Mapping[str, float]]) -> str:
    """The accuracy of pretrained weights before training, of each split that was measured."""
    return ", ".join(
        f"{split} accuracy {100 * one['accuracy']:.2f} % of {one['support']:,} images"
        for split, one in imported.items()
    )


def _in_short(value: Any) -> str:
    """An entry of config.json in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_short(item)}" for key, item in value.items())
    return ", ".join(map(_in_short, value)) if isinstance(value, list) else str(value)
