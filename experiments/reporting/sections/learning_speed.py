"""The report's section on how quickly the settings learn."""

import math
from collections.abc import Sequence

from experiments.reporting.markdown import Grid, Section, show
from kd_jax.stats import learning_speed
from kd_jax.stats.description import RunDescription
from kd_jax.stats.rows import HistoryRow

MEASURED = {
    "validation": "Accuracy on the validation split, measured after every epoch.",
    "train": "There is no validation split: accuracy on the training batches of each epoch, "
    "with augmentation and dropout where there are such.",
}
EXPLAINED = (
    "Epochs and updates are those after which the target accuracy is first reached, in whole epochs, the "
    "unit in which accuracy is measured. The epoch mean is the mean accuracy over all epochs: the area under "
    "the learning curve divided by the number of epochs."
)
SOME = (
    "* Not all seeds reached the target accuracy: the mean is of those that did, so too small, and without "
    "an interval. Compare the means over the epochs instead."
)


def target_of(history: Sequence[HistoryRow], description: RunDescription, percent: float | None) -> float:
    """The target accuracy as a fraction: `percent`, or where that is None the default. nan: nothing was
    measured."""
    if percent is not None:
        return percent / 100
    return learning_speed.default_target(learning_speed.accuracy_curves(history), description)


def section(
    history: Sequence[HistoryRow], description: RunDescription, percent: float | None
) -> list[Section]:
    """None where nothing was measured.  percent: as in `target_of`."""
    curves, target = learning_speed.accuracy_curves(history), target_of(history, description, percent)
    if not curves or math.isnan(target):
        return []
    split, updates = learning_speed.judged_split(history), learning_speed.updates_per_epoch(description)
    given = f"The target accuracy is {100 * target:g} %"
    if percent is None:
        words = "validation" if split == "validation" else "training"
        given += f", 90 % of the best setting's mean {words} accuracy after the last epoch"
    rows = []
    for setting, speed in learning_speed.speeds(curves, description, target).items():
        star, half = ("*", None) if speed.reached < speed.seeds else ("", " ± ")
        scales = [(1, 1), *([(updates, 0)] if updates else [])]
        times = [show(speed.epochs, *scale, half=half) + star * (speed.reached > 0) for scale in scales]
        means = [show(interval, half=" ± ") for interval in (speed.area, speed.final)]
        rows.append([setting, f"{speed.reached} of {speed.seeds}", *times, *means, str(speed.area.n)])
    heads = ["setting", "reached by", "epochs", *(["updates"] if updates else [])]
    heads += ["epoch mean, %", "last epoch, %", "n"]
    note = [SOME] if any("*" in row[2] for row in rows) else []
    return [Section("Learning speed", [f"{MEASURED[split]} {given}. {EXPLAINED}", Grid(heads, rows), *note])]
