"""The settings of a distillation: the grid that the flags of `distill` span, each point with its name."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from experiments.cli import common
from kd_jax.losses.teacher_ablations import SIGNALS
from kd_jax.types import InputError

FLAGS = flags.FLAGS

_ALWAYS = ("name", "missing", "temperature", "alpha", "learning_rate", "weight_decay")


class Setting(NamedTuple):
    """One point of the grid; `missing`: class numbers the students of this setting never see, but for `left`
    examples of each; temperature: None where the teacher has no part in the loss, 1 where its part has none;
    signal: a name of SIGNALS, None where all is heard, or nothing; initial: whose initial weights are its own
    ones, None where they are drawn."""

    name: str
    missing: tuple[int, ...]
    temperature: float | None
    alpha: float
    learning_rate: float
    weight_decay: float
    left: int = 0
    signal: str | None = None
    initial: str | None = None

    def described(self) -> dict:
        """Its entry in config.json, which names left, signal and initial where they have a part."""
        words = {name: value for name, value in self._asdict().items() if name in _ALWAYS or value}
        return words | {"missing": list(self.missing)}


def parse_settings(class_names: Sequence[str]) -> list[Setting]:
    """The product of the comma lists; what is the same setting (alpha = 0 at two temperatures) comes once."""
    num_classes = len(class_names)
    temperatures = common.parse_numbers("temperatures", FLAGS.temperatures, positive=True)
    alphas = common.parse_numbers("alphas", FLAGS.alphas, high=1.0)
    rates = common.parse_numbers("learning_rates", FLAGS.learning_rates, positive=True)
    decays = common.parse_numbers("weight_decays", FLAGS.weight_decays)
    masks = []
    if FLAGS.omit is not None or FLAGS.keep is None:
        for missing in common.parse_class_flag("omit", class_names):
            masks.append((f"omit={'+'.join(map(str, missing))}" if missing else "", missing))
    if FLAGS.keep is not None:
        for kept in common.parse_classes("keep", FLAGS.keep, class_names):
            missing = tuple(sorted(set(range(num_classes)) - set(kept)))
            masks.append((f"keep={'+'.join(map(str, kept)) or 'none'}", missing))
    lefts, signals, initials = parse_left(), parse_signals(), parse_initial()
    settings: dict[str, Setting] = {}
    grid = itertools.product(masks, lefts, signals, initials, temperatures, alphas, rates, decays)
    for (label, missing), left, signal, initial, temperature, alpha, rate, decay in grid:
        if len(missing) == num_classes:
            expected = f"at least one of the {num_classes} classes kept"
            raise InputError("nothing left after masking", expected, label)
        words = [*_loss_words(temperature, alpha), *([f"lr={_short(rate)}"] * (len(rates) > 1))]
        words += [*([f"wd={_short(decay)}"] * (len(decays) > 1)), label]
        numbers = _loss_numbers(temperature, alpha)
        seen, heard = left if missing else 0, signal if numbers[1] and signal != "full" else None
        if heard == "missing_removed" and not missing:
            heard = None
        words += [f"left={seen}" if seen else "", heard or "", f"initial={initial}" if initial else ""]
        name = " ".join(word for word in words if word)
        settings.setdefault(name, Setting(name, missing, *numbers, rate, decay, seen, heard, initial))
    return list(settings.values())


def parse_left() -> list[int]:
    """The numbers of --left."""
    values = common.parse_numbers("left", FLAGS.left)
    if not all(value == int(value) < 2**24 for value in values):
        raise InputError("malformed --left", "whole numbers, separated by commas", repr(FLAGS.left))
    if any(values) and FLAGS.omit is None and FLAGS.keep is None:
        raise InputError("--left means nothing here", "--omit or --keep with it", f"--left={FLAGS.left}")
    return [int(value) for value in values]


def parse_signals() -> list[str]:
    """The names of --signals."""
    names = common.parse_words("signals", FLAGS.signals, list(SIGNALS))
    if names != ["full"] and FLAGS.loss != "soft":
        raise InputError("--signals are of soft targets", "--loss=soft", f"--loss={FLAGS.loss}")
    return names


def parse_initial() -> list[str | None]:
    """The words of --initial, None for own."""
    names = common.parse_words("initial", FLAGS.initial, ("own", "teacher"))
    if "teacher" in names and FLAGS.loss == "labels":
        raise InputError("--initial=teacher without a teacher", "another loss", "--loss=labels")
    return [None if name == "own" else name for name in names]


def _loss_words(temperature: float, alpha: float) -> list[str]:
    if FLAGS.loss == "labels" or alpha == 0:
        return ["labels"]
    words = [f"T={_short(temperature)}"] if FLAGS.loss == "soft" else [FLAGS.loss]
    return words + ([f"alpha={_short(alpha)}"] if alpha < 1 else [])


def _loss_numbers(temperature: float, alpha: float) -> tuple[float | None, float]:
    """(temperature, alpha) as the loss uses them; 1 for hard_label and logits, which have no temperature."""
    if FLAGS.loss == "labels" or alpha == 0:
        return None, 0.0
    return (temperature if FLAGS.loss == "soft" else 1.0), alpha


def _short(value: float) -> str:
    """Few digits, yet never the same for two values."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
