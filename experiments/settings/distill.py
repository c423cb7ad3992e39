"""The settings of a distillation: the grid that the flags of `distill` span, each point with its name."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.cli.parse import parse_classes, parse_numbers, parse_words
from experiments.settings import methods
from experiments.settings.methods import Lists, Structure, short
from kd_jax.errors import InputError
from kd_jax.losses.teacher_ablations import TEACHER_ABLATIONS
from kd_jax.stats.description import SettingInfo
from kd_jax.train import sweep
from kd_jax.types import HParams

_ALWAYS = ("name", "omitted", "temperature", "alpha", "learning_rate", "weight_decay")


class Setting(NamedTuple):
    """One point of the grid.

    omitted: indices of the classes that training leaves out, but for `shots` examples of each.
    temperature: None where the loss has no teacher, 1 where the teacher's part of it has no temperature.
    teacher_ablation: a name of TEACHER_ABLATIONS; None: the full output of the teacher, or no teacher.
    student_init: "teacher" where students start from the initial weights of their teacher; None: random.
    transfer_share: share of synthesised images in each epoch; None: the transfer set is no mixture.
    method: the structure in words, where it is not soft targets alone; None there.
    beta, feature_weight: as in HParams; None where the loss has none. feature_loss: of the structure.
    structure: its program; not written to config.json.
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
    transfer_share: float | None = None
    method: str | None = None
    beta: float | None = None
    feature_loss: str | None = None
    feature_weight: float | None = None
    structure: Structure = Structure()

    def info(self) -> SettingInfo:
        """Its entry in config.json; what is not in every such entry where it is set."""
        values = {name: value for name, value in self._asdict().items() if name in _ALWAYS or value}
        values |= {} if self.transfer_share is None else {"transfer_share": self.transfer_share}
        del values["structure"]
        return SettingInfo(values.pop("name"), values)


def parse_settings(lists: Lists, class_names: Sequence[str], mixture: bool = False) -> list[Setting]:
    """The product of the comma lists; what is the same setting (alpha = 0 at two temperatures) comes once.

    mixture: whether the transfer set has two parts, and so each setting a share of the second.
    """
    num_classes = len(class_names)
    temperatures = parse_numbers("temperatures", lists.temperatures, positive=True)
    alphas = parse_numbers("alphas", lists.alphas, high=1.0)
    rates = parse_numbers("learning_rates", lists.learning_rates, positive=True)
    decays = parse_numbers("weight_decays", lists.weight_decays)
    masks = []
    if lists.omit is not None or lists.seen is None:
        for omitted in parse_classes("omit", lists.omit, class_names):
            masks.append((f"omit={'+'.join(map(str, omitted))}" if omitted else "", omitted))
    if lists.seen is not None:
        for seen in parse_classes("seen", lists.seen, class_names):
            omitted = tuple(sorted(set(range(num_classes)) - set(seen)))
            masks.append((f"seen={'+'.join(map(str, seen)) or 'none'}", omitted))
    settings: dict[str, Setting] = {}
    structures, betas, weights = methods.parse(lists)
    how = parse_shots(lists), parse_teacher_ablations(lists), parse_student_init(lists)
    shares = parse_transfer_shares(lists, mixture)
    numbers = list(itertools.product(temperatures, alphas, betas, weights))
    grid = itertools.product(structures, masks, itertools.product(*how, shares), numbers, rates, decays)
    for structure, (label, omitted), (shots, ablation, init, share), at, rate, decay in grid:
        if len(omitted) == num_classes:
            expected = f"at least one of the {num_classes} classes seen"
            raise InputError("nothing left after masking", expected, label)
        words, of_loss = methods.describe(structure, *at, len(betas) > 1, len(weights) > 1)
        words += [f"lr={short(rate)}"] * (len(rates) > 1) + [f"wd={short(decay)}"] * (len(decays) > 1)
        words.append(label)
        shots = shots if omitted else 0
        has_effect = of_loss["alpha"] and ablation != "full" and (omitted or ablation != "omitted_removed")
        effect = ablation if has_effect else None
        words += [f"shots={shots}" if shots else "", effect or "", f"student_init={init}" if init else ""]
        words += [] if share is None else [f"transfer_share={short(share)}"]
        name = " ".join(word for word in words if word)
        settings.setdefault(
            name,
            Setting(
                name, omitted, learning_rate=rate, weight_decay=decay, shots=shots, teacher_ablation=effect,
                student_init=init, transfer_share=share, **of_loss,
            ),
        )  # fmt: skip
    order = list(dict.fromkeys(one.structure for one in settings.values()))
    return sorted(settings.values(), key=lambda one: order.index(one.structure))


def programs(settings: Sequence[Setting]) -> dict[Structure, list[Setting]]:
    """The settings of each structure, in their order."""
    found: dict[Structure, list[Setting]] = {}
    for setting in settings:
        found.setdefault(setting.structure, []).append(setting)
    return found


def parse_shots(lists: Lists) -> list[int]:
    values = parse_numbers("shots", lists.shots)
    if not all(value == int(value) < 2**24 for value in values):
        raise InputError("malformed --shots", "whole numbers, separated by commas", repr(lists.shots))
    if any(values) and lists.omit is None and lists.seen is None:
        raise InputError("--shots means nothing here", "--omit or --seen with it", f"--shots={lists.shots}")
    return [int(value) for value in values]


def parse_teacher_ablations(lists: Lists) -> list[str]:
    names = parse_words("teacher_ablations", lists.teacher_ablations, list(TEACHER_ABLATIONS))
    plain = (lists.loss, lists.divergence, lists.standardize_logits) == ("soft", "kl", "no")
    if names != ["full"] and not plain:
        expected, given = "--loss=soft alone, by kl, not standardised", f"--loss={lists.loss}"
        raise InputError("--teacher_ablations are of soft targets", expected, given)
    return names


def parse_student_init(lists: Lists) -> list[str | None]:
    """The words of --student_init, None for random."""
    names = parse_words("student_init", lists.student_init, ("random", "teacher"))
    if "teacher" in names and not methods.needs_teacher(lists):
        given = f"--loss={lists.loss}"
        raise InputError("--student_init=teacher without a teacher", "another loss", given)
    return [None if name == "random" else name for name in names]


def parse_transfer_shares(lists: Lists, mixture: bool) -> list[float] | list[None]:
    """The numbers of --transfer_shares; [None] where the transfer set is no mixture."""
    if mixture:
        return parse_numbers("transfer_shares", lists.transfer_shares or "0.1", high=1.0)
    if lists.transfer_shares is not None:
        given = f"--transfer_shares={lists.transfer_shares}"
        raise InputError("--transfer_shares mean nothing here", "--transfer=own+FILE.npz with them", given)
    return [None]


def all_hparams(settings: Sequence[Setting], num_classes: int) -> list[HParams]:
    """What the runs of each setting of one structure compute with; what no setting has is not in the
    program."""
    single = lambda value: None if value is None else np.float32(value)  # noqa: E731
    some_beta = any(setting.beta is not None for setting in settings)
    some_shots = any(setting.shots for setting in settings)
    names, some_ablated = list(TEACHER_ABLATIONS), any(setting.teacher_ablation for setting in settings)
    return [
        sweep.make_hparams(
            num_classes, s.omitted, s.learning_rate, s.weight_decay, s.temperature or 1.0, s.alpha
        ).replace(
            num_shots=np.int32(s.shots) if some_shots else None,
            teacher_ablation=np.int32(names.index(s.teacher_ablation or "full")) if some_ablated else None,
            synthetic_share=None if s.transfer_share is None else np.float32(s.transfer_share),
            beta=np.float32(s.beta or 0) if some_beta else None,
            feature_weight=single(s.feature_weight),
        )
        for s in settings
    ]
