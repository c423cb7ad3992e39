"""The settings of a distillation: the grid that the flags of `distill` span, each point with its name."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from experiments.cli import common
from kd_jax.errors import InputError
from kd_jax.losses.teacher_ablations import TEACHER_ABLATIONS

FLAGS = flags.FLAGS

_ALWAYS = ("name", "omitted", "temperature", "alpha", "learning_rate", "weight_decay")


class Setting(NamedTuple):
    """One point of the grid.

    omitted: indices of the classes that training leaves out, but for `shots` examples of each.
    temperature: None where the loss has no teacher, 1 where the teacher's part of it has no temperature.
    teacher_ablation: a name of TEACHER_ABLATIONS; None: the full output of the teacher, or no teacher.
    student_init: "teacher" where students start from the initial weights of their teacher; None: random.
    """

    name: str
    omitted: tuple[int, ...]
    temperature: float | None
    alpha: float
    learning_rate: float
    weight_decay: float
    shots: int = 0
    teacher_ablation: str | None = None
    student_init: str | None = None

    def described(self) -> dict:
        """Its entry in config.json; shots, teacher_ablation and student_init where they are set."""
        words = {name: value for name, value in self._asdict().items() if name in _ALWAYS or value}
        return words | {"omitted": list(self.omitted)}


def parse_settings(class_names: Sequence[str]) -> list[Setting]:
    """The product of the comma lists; what is the same setting (alpha = 0 at two temperatures) comes once."""
    num_classes = len(class_names)
    temperatures = common.parse_numbers("temperatures", FLAGS.temperatures, positive=True)
    alphas = common.parse_numbers("alphas", FLAGS.alphas, high=1.0)
    rates = common.parse_numbers("learning_rates", FLAGS.learning_rates, positive=True)
    decays = common.parse_numbers("weight_decays", FLAGS.weight_decays)
    masks = []
    if FLAGS.omit is not None or FLAGS.seen is None:
        for omitted in common.parse_class_flag("omit", class_names):
            masks.append((f"omit={'+'.join(map(str, omitted))}" if omitted else "", omitted))
    if FLAGS.seen is not None:
        for seen in common.parse_classes("seen", FLAGS.seen, class_names):
            omitted = tuple(sorted(set(range(num_classes)) - set(seen)))
            masks.append((f"seen={'+'.join(map(str, seen)) or 'none'}", omitted))
    settings: dict[str, Setting] = {}
    how = parse_shots(), parse_teacher_ablations(), parse_student_init()
    grid = itertools.product(masks, *how, temperatures, alphas, rates, decays)
    for (label, omitted), shots, ablation, init, temperature, alpha, rate, decay in grid:
        if len(omitted) == num_classes:
            expected = f"at least one of the {num_classes} classes seen"
            raise InputError("nothing left after masking", expected, label)
        words = [*_loss_words(temperature, alpha), *([f"lr={_short(rate)}"] * (len(rates) > 1))]
        words += [*([f"wd={_short(decay)}"] * (len(decays) > 1)), label]
        numbers = _loss_numbers(temperature, alpha)
        shots = shots if omitted else 0
        has_effect = numbers[1] and ablation != "full" and (omitted or ablation != "omitted_removed")
        effect = ablation if has_effect else None
        words += [f"shots={shots}" if shots else "", effect or "", f"student_init={init}" if init else ""]
        name = " ".join(word for word in words if word)
        settings.setdefault(name, Setting(name, omitted, *numbers, rate, decay, shots, effect, init))
    return list(settings.values())


def parse_shots() -> list[int]:
    """The numbers of --shots."""
    values = common.parse_numbers("shots", FLAGS.shots)
    if not all(value == int(value) < 2**24 for value in values):
        raise InputError("malformed --shots", "whole numbers, separated by commas", repr(FLAGS.shots))
    if any(values) and FLAGS.omit is None and FLAGS.seen is None:
        raise InputError("--shots means nothing here", "--omit or --seen with it", f"--shots={FLAGS.shots}")
    return [int(value) for value in values]


def parse_teacher_ablations() -> list[str]:
    """The names of --teacher_ablations."""
    names = common.parse_words("teacher_ablations", FLAGS.teacher_ablations, list(TEACHER_ABLATIONS))
    if names != ["full"] and FLAGS.loss != "soft":
        raise InputError("--teacher_ablations are of soft targets", "--loss=soft", f"--loss={FLAGS.loss}")
    return names


def parse_student_init() -> list[str | None]:
    """The words of --student_init, None for random."""
    names = common.parse_words("student_init", FLAGS.student_init, ("random", "teacher"))
    if "teacher" in names and FLAGS.loss == "labels":
        raise InputError("--student_init=teacher without a teacher", "another loss", "--loss=labels")
    return [None if name == "random" else name for name in names]


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
