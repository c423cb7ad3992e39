"""The axis of a sweep: the value in which its settings differ, and where on it each one stands (host)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from kd_jax.stats.description import SettingInfo

LABELS = {
    "auxiliary": "auxiliary outputs",
    "classes": "classes",
    "depth": "hidden layers",
    "loss": "loss of the students",
    "omitted": "omitted classes",
    "model": "network",
    "logit_mask": "logits that the loss sees",
    "perturb": "noise added to the initial weights (their deviations)",
    "share": "initial weights shared with the teacher",
    "temperature": "temperature T",
    "transfer": "images that students are taught on",
    "width": "width of the hidden layers (units)",
}
"""What a value is called, with its unit."""

_TAUGHT = ("model", "auxiliary", "classes")  # what makes a teacher of its own


class Axis(NamedTuple):
    """What the settings differ in most.

    name: of that value, a key of LABELS; places: setting -> its value; numeric: whether all of these are
    numbers; series: setting -> the other values that differ, in words ("" where there are none).
    """

    name: str
    places: dict[str, Any]
    numeric: bool
    series: dict[str, str]


def axis_of(settings: Sequence[SettingInfo]) -> Axis:
    """The value that takes the most values in these settings of config.json; of several such the last."""
    names, rows = [setting.name for setting in settings], _rows(settings)
    counts = {key: len({row[key] for row in rows}) for key in rows[0]}
    chosen = max(reversed(counts), key=counts.__getitem__)
    others = [key for key, count in counts.items() if count > 1 and key != chosen]
    places = {name: row[chosen] for name, row in zip(names, rows, strict=True)}
    series = {
        name: ", ".join(f"{key}: {row[key]}" for key in others) for name, row in zip(names, rows, strict=True)
    }
    numeric = all(isinstance(place, int | float) for place in places.values())
    return Axis(chosen, places, numeric, series)


def controls_of(settings: Sequence[SettingInfo]) -> dict[str, dict[str, str]]:
    """Of subliminal learning's settings, the students' controls: "teacher" and "reference" (its untrained
    network) -> student's setting -> the control's setting."""
    controls: dict[str, dict[str, str]] = {}
    for control in (setting for setting in settings if setting.get("logit_mask") is None):
        for student in settings:
            taught = all(student.get(key) == control.get(key) for key in _TAUGHT)
            if student.get("logit_mask") is not None and taught:
                controls.setdefault(control.name.split()[0], {})[student.name] = control.name
    return controls


def _rows(settings: Sequence[SettingInfo]) -> list[dict[str, Any]]:
    """The settings' values, each a number or a word: a loss with its temperature where several losses are
    compared, networks by depth and width where they differ in one of these alone."""
    rows = [dict(setting.values) for setting in settings]
    several = len({row["loss"] for row in rows}) > 1
    shapes = {row["model"]: _shape(row["model"]) for row in rows}
    alike = all(shapes.values()) and 1 in (len(set(sizes)) for sizes in zip(*shapes.values(), strict=True))
    for row in rows:
        row["omitted"] = "+".join(map(str, row["omitted"])) or "none"
        if several:
            temperature = row.pop("temperature")
            row["loss"] += "" if temperature is None else f", T = {temperature:g}"
        if alike:
            row["depth"], row["width"] = shapes[row.pop("model")]
    return rows


def _shape(spec: str) -> tuple[int, ...]:
    """(depth, width) of mlp-64-64; empty where the widths differ."""
    widths = [int(word) for word in spec.split("-")[1:]]
    return (len(widths), widths[0]) if len(set(widths)) == 1 else ()
