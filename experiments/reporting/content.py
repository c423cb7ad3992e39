"""What a finished run came to, before it is a terminal's text, Markdown or HTML: its numbers, its tables."""

import math
from collections.abc import Iterator, Sequence
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
from kd_jax.stats import intervals, summary
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import TEACHER

MOST_PAIRS, MOST_CLASSES = 30, 20


class Content(NamedTuple):
    """What the renderings share. sums: the content of summary.json; values: its intervals; settings: those
    with results, the teacher too; head: the setting that the answer speaks of, chosen on the seen classes
    of the validation split, and its correction that needs the fewest labels."""

    run: run_folder.Run
    values: summary.Values
    sums: dict[str, Any]
    settings: list[dict[str, Any]]
    head: tuple[str, str]


def read(folder: Path) -> Content:
    """Errors: InputError for a folder that is no whole run folder, or a damaged file."""
    run = run_folder.read_run(folder)
    return content_of(run, summary.summarise(run.results, run.config))


def content_of(run: run_folder.Run, sums: dict[str, Any]) -> Content:
    """sums: the content of summary.json."""
    settings, values = run.config["settings"], summary.lookup(sums)
    best = summary.best_setting(settings, values)
    named = {setting["name"] for setting in settings}
    if TEACHER not in named and summary.corrections_of(TEACHER, values):
        settings = [{"name": TEACHER, "omitted": []}, *settings]
    return Content(run, values, sums, settings, (best, summary.preferred_correction(best, values)))


def grid(content: Content, parts: Sequence[str], half: str | None) -> Iterator[list[str]]:
    """[setting, correction, errors, the test accuracy of each part in %, n]; a part is all, omitted, seen or
    a class index: with one decimal, a star where it is omitted, an interval only where `half` joins it.
    """
    for setting in content.settings:
        name, omitted = setting["name"], setting["omitted"]
        for correction in summary.corrections_of(name, content.values):
            cells = [show(content.values.get((name, "test", correction, "all", "errors")), 1, 1, half=None)]
            for part in parts:
                interval = content.values.get((name, "test", correction, part, "accuracy"))
                star = " *"[int(part) in omitted] if part.isdigit() else ""
                cells.append(show_part(interval, part, half) + star)
            n = content.values[name, "test", correction, "all", "accuracy"].n
            yield [name, correction, *cells, str(n)]


def show_part(interval: Interval | None, part: str, half: str | None) -> str:
    """The accuracy of a part as `grid` has it, but for the star."""
    return show(interval, digits=1, half=half) if part.isdigit() else show(interval, half=half or " ±")


def class_parts(config: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(parts, as `grid` takes them, their heads) of a table of the classes: of many, seen and omitted."""
    data = config["data"]
    if data["num_classes"] > MOST_CLASSES:
        return ["seen", "omitted"], ["seen", "omitted"]
    return [str(index) for index in range(data["num_classes"])], data["class_names"]


def report_sections(folder: Path, content: Content, reach: float | None) -> list[Section]:
    """The sections after the accuracies.  folder: of the run; reach: as in `learning_speed.section`."""
    names = [setting["name"] for setting in content.settings]
    return [
        *calibration.section(names, content.values),
        *_biases(content),
        *ensembles.section(names, content.run, content.values),
        *ensembles.teachers_section(content.run, content.values),
        *_differences(content),
        *learning_speed.section(content.run.history, content.run.config, reach),
        *hidden_signals.section(folder, content.run, content.values),
        *contact_sheet.section(folder, content.run.config),
    ]


def _biases(content: Content) -> list[Section]:
    rows = []
    for setting in content.settings:
        for correction in summary.corrections_of(setting["name"], content.values):
            bias = content.values.get((setting["name"], "test", correction, "omitted", "bias"))
            if bias is not None and correction != "none":
                rows.append([setting["name"], correction, show(bias, 1, half=" ± "), str(bias.n)])
    heads = ["setting", "correction", "added to the omitted classes' logits (nats)", "n"]
    return [Section("Biases", [Grid(heads, rows)])] if rows else []


def _differences(content: Content) -> list[Section]:
    """Of the pairs of summary.json: accuracies as trained and under the answer's corrections; where there are
    many settings, only against the answer's setting."""
    setting, chosen = content.head
    shown = {"none", chosen, *summary.label_free(setting, content.values)}
    paired = content.sums["paired"]
    few, rows = len(content.settings) <= 5, []
    for pair in paired:
        a, b, correction = pair["a"], pair["b"], pair["correction"]
        corrected = a == b and correction in shown and pair["class"] == "omitted"
        is_published = corrected or ((a == b or correction in shown) and (few or setting in (a, b)))
        if pair["metric"] == "accuracy" and is_published:
            within = [f"{correction} - none", a]
            between = [f"{a} - {b}", f"correction {correction}"]
            known: dict[str, Any] = {
                key: math.nan if pair[key] is None else pair[key] for key in intervals.Difference._fields
            }
            cells = [pair["class"], *difference_cells(intervals.Difference(**known))]
            rows.append((within if a == b else between) + cells)
    if not rows:
        return []
    rows = rows[:MOST_PAIRS]
    heads = ["difference", "within", "classes", "points", "95 % interval", "p", "n"]
    note = f"Paired over seeds, test accuracy in percentage points; {len(rows)} of the"
    note += f" {len(paired)} pairs in summary.json; p is not corrected for their number."
    note += NO_SPREAD_NOTE if any(row[4] == NO_SPREAD for row in rows) else ""
    return [Section("Paired differences", [note, Grid(heads, rows)])]


def run_facts(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, its value) of how the run was made, beside its command."""
    data, teacher = config["data"], config["teacher"]
    examples = f"{data['train']} train, {data['validation']} validation, {data['test']} test"
    if data.get("skipped"):
        examples += f"; files left out, for they cannot be read: {data['skipped']}"
    found = [("data", f"{data['name']}, fingerprint {data['fingerprint']}"), ("device", config["device"])]
    found.append(("examples", examples))
    if teacher is not None:
        found.append(
            ("teacher", ", ".join(f"{k} {v}" for k, v in teacher.items() if isinstance(v, str | int)))
        )
    if origin := (config.get("transfer") or {}).get("origin"):
        found.append(("synthesised images", contact_sheet.described(origin)))
    found.append(("versions", ", ".join(f"{k} {v}" for k, v in config["versions"].items())))
    if (spent := config.get("time")) and spent["training_seconds"]:
        rate = spent["examples"] / spent["training_seconds"]
        whole, training = (duration(spent[name]) for name in ("run_seconds", "training_seconds"))
        found.append(("time", f"{whole}, of which training {training}: {rate:,.0f} examples a second"))
    return found + [("continued", _in_short(entry)) for entry in config.get("continued", [])]


def _in_short(value: Any) -> str:
    """An entry of config.json in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_short(item)}" for key, item in value.items())
    return ", ".join(map(_in_short, value)) if isinstance(value, list) else str(value)
