"""The report's section on how quickly the settings learn."""

import math
from collections.abc import Sequence
from typing import Any

from experiments.reporting.markdown import Grid, Section, show
from kd_jax.stats import learning_speed
from kd_jax.stats.rows import HistoryRow

MEASURED = {
    "validation": "Accuracy on the validation split, measured after every epoch.",
    "train": "There is no validation split: accuracy on the training batches of each epoch, "
    "with augmentation and dropout where there are such.",
}
EXPLAINED = (
    "Epochs and updates are those after which the level is first reached, in whole epochs, the unit in which "
    "accuracy is measured. The epoch mean is the mean accuracy over all epochs: the area under the learning "
    "curve divided by the number of epochs."
)
SOME = (
    "* Not all seeds reached the level: the mean is of those that did, so too small, and without an "
    "interval. Compare the means over the epochs instead."
)


def level_of(history: Sequence[HistoryRow], config: dict[str, Any], reach: float | None) -> float:
    """The level as a fraction: `reach`, in %, or where it is None the default. nan: nothing was measured."""
    if reach is not None:
        return reach / 100
    return learning_speed.default_level(learning_speed.accuracy_curves(history), config)


def section(history: Sequence[HistoryRow], config: dict[str, Any], reach: float | None) -> list[Section]:
    """None where nothing was measured.  reach: as in `level_of`."""
    curves, level = learning_speed.accuracy_curves(history), level_of(history, config, reach)
    if not curves or math.isnan(level):
        return []
    split, updates = learning_speed.judged_split(history), learning_speed.updates_per_epoch(config)
    given = f"The level is {100 * level:g} %"
    if reach is None:
        words = "validation" if split == "validation" else "training"
        given += f", 90 % of the best setting's mean {words} accuracy after the last epoch"
    rows = []
    for setting, speed in learning_speed.speeds(curves, config, level).items():
        star, half = ("*", None) if speed.reached < speed.seeds else ("", " ± ")
        scales = [(1, 1), *([(updates, 0)] if updates else [])]
        times = [show(speed.epochs, *scale, half=half) + star * (speed.reached > 0) for scale in scales]
        means = [show(interval, half=" ± ") for interval in (speed.area, speed.final)]
        rows.append([setting, f"{speed.reached} of {speed.seeds}", *times, *means, str(speed.area.n)])
    heads = ["setting", "reached by", "epochs", *(["updates"] if updates else [])]
    heads += ["epoch mean, %", "last epoch, %", "n"]
    note = [SOME] if any("*" in row[2] for row in rows) else []
    return [Section("Learning speed", [f"{MEASURED[split]} {given}. {EXPLAINED}", Grid(heads, rows), *note])]
