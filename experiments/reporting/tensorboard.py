"""tensorboard/ in a run folder: history and outcome of each setting, as a stock TensorBoard reads them.

Each setting has a folder. A scalar METRIC/SPLIT is the mean over seeds at each epoch, METRIC_low/SPLIT and
METRIC_high/SPLIT are the ends of its 95 % interval (stats.py). The test split comes after the last epoch,
also under each correction: test/accuracy, test_low/accuracy, test/accuracy_omitted_prior_matched. The
HPARAMS tab has what makes the settings beside these. Left out is what is not finite, as the ends of an
interval where the seeds show no spread.
"""

import hashlib
import json
import math
import shutil
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kd_jax.io import run_folder
from kd_jax.stats import summary
from kd_jax.stats.description import RunDescription
from kd_jax.stats.intervals import Interval
from kd_jax.stats.rows import HistoryRow

FOLDER = "tensorboard"
TESTED = ("accuracy", "nll", "ece")
COMMON = ("dataset", "model")  # flags in which two run folders may differ that are looked at together

Scalars = dict[str, dict[int, dict[str, float]]]
"""setting -> epoch -> tag -> value"""


def write(run_dir: Path) -> None:
    """Makes the folder anew from the files of a finished run and its summary.json."""
    description, history, *_ = run_folder.read_run(run_dir)
    scalars = of_history(history, description)
    values = summary.Summary.from_json(json.loads((run_dir / "summary.json").read_text()))
    tested = of_test(values, description)
    tags = sorted({tag for by_tag in tested.values() for tag in by_tag if tag.startswith("test/")})
    hparams = hparams_of(description)
    shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
    for setting, by_epoch in scalars.items():
        by_epoch.setdefault(description.flags["epochs"], {}).update(tested.get(setting, {}))
        _write(run_dir, setting, by_epoch, 1, hparams=hparams[setting], metrics=tags)


def add(
    run_dir: Path, rows: Iterable[HistoryRow], description: RunDescription, first: int, last: int
) -> None:
    """Adds the epochs first to last, the rows'. Where first is 1, nothing else is in the folder."""
    if first == 1:
        shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
    for setting, by_epoch in of_history(rows, description).items():
        _write(run_dir, setting, by_epoch, first, f".{last:06d}")


def of_history(rows: Iterable[HistoryRow], description: RunDescription) -> Scalars:
    """The means over seeds, and their intervals."""
    values: dict[tuple[str, int, tuple[str, str]], dict[int, float]] = {}
    for row in rows:
        values.setdefault((row.setting, row.epoch, (row.metric, row.split)), {})[row.seed] = row.value
    teachers = {made_with: description.teachers_of_runs(made_with) for made_with in (False, True)}
    scalars: Scalars = {}
    for (setting, epoch, tag), by_seed in values.items():
        tags = scalars.setdefault(setting, {}).setdefault(epoch, {})
        clusters = teachers[summary.depends_on_teacher("none", tag[0])]
        tags |= _tagged(*tag, summary.interval_of(setting, by_seed, clusters))
    return scalars


def of_test(values: summary.Summary, description: RunDescription) -> dict[str, dict[str, float]]:
    """setting -> tag -> value, of the test split."""
    tested: dict[str, dict[str, float]] = {setting.name: {} for setting in description.settings}
    for (setting, split, correction, class_, metric), interval in values.intervals.items():
        if split == "test" and metric in TESTED and class_ in ("all", "omitted") and setting in tested:
            words = [metric, *[class_] * (class_ != "all"), *[correction] * (correction != "none")]
            tested[setting] |= _tagged("test", "_".join(words), interval)
    return tested


def _tagged(group: str, name: str, interval: Interval) -> dict[str, float]:
    """TensorBoard shows what stands before the slash together."""
    values = {"": interval.mean, "_low": interval.low, "_high": interval.high}
    return {f"{group}{end}/{name}": value for end, value in values.items() if math.isfinite(value)}


def hparams_of(description: RunDescription) -> dict[str, dict[str, float | str]]:
    """setting -> name -> value: COMMON, and what the settings differ in (of a single one, all it has). All
    have the same names, and of one name all are numbers or all are words."""
    every = description.settings
    names = dict.fromkeys(name for setting in every for name in setting.values)
    table = {name: [setting.get(name) for setting in every] for name in names}
    table = {
        name: column for name, column in table.items() if len(every) == 1 or column != column[:1] * len(every)
    }
    table |= {name: [description.flags.get(name)] * len(every) for name in COMMON}
    for name, column in table.items():
        if not all(isinstance(value, int | float) for value in column):
            table[name] = [_word(value) for value in column]
    return {s.name: {name: column[row] for name, column in table.items()} for row, s in enumerate(every)}


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _write(
    run_dir: Path,
    setting: str,
    by_epoch: dict[int, dict[str, float]],
    first: int,
    suffix: str = "",
    hparams: dict[str, float | str] | None = None,
    metrics: Sequence[str] = (),
) -> None:
    """One file of events; what other files hold of epochs from `first` on counts no more.

    suffix: of its name, which begins with the second.  metrics: tags that the HPARAMS tab shows.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import hparams as hparams_summaries

    folder = (run_dir / FOLDER / _folder_name(setting)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventsWriter(str(folder / "events"), suffix)
    try:
        now = time.time()
        writer.write_event(Event(wall_time=now, step=first, session_log=SessionLog(status=SessionLog.START)))
        if hparams:
            for about in hparams_summaries(hparams, dict.fromkeys(metrics)):
                writer.write_event(Event(wall_time=now, summary=about))
        for epoch, tags in by_epoch.items():
            scalars = Summary(value=[Summary.Value(tag=tag, simple_value=x) for tag, x in tags.items()])
            writer.write_event(Event(wall_time=now, step=epoch, summary=scalars))
    finally:
        writer.close()


def _folder_name(setting: str) -> str:
    """Another for each setting; a slash, as of a dataset's path, is no folder."""
    quoted = urllib.parse.quote(setting, safe=" =+,")
    if len(quoted) <= 150:
        return quoted
    return f"{quoted[:120]} {hashlib.sha256(setting.encode()).hexdigest()[:16]}"
