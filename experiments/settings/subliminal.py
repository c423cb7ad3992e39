"""The settings of subliminal learning: what makes a program of its own, and the points of its grid."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.cli.parse import parse_classes, parse_numbers, parse_words
from experiments.settings import transfer
from kd_jax.errors import InputError
from kd_jax.stats.description import SettingInfo
from kd_jax.train import subliminal, sweep
from kd_jax.types import HParams

OUTPUTS = ("auxiliary", "classes", "all")
TEACHER, REFERENCE = "teacher", "reference"


@dataclass(frozen=True)
class Lists:
    """The values of the comma lists that span the grid, by the names of the flags."""

    model: str
    auxiliary: str
    classes: str | None
    transfers: str
    losses: str
    logit_mask: str
    share: str
    perturb: str
    temperatures: str
    omit: str | None


class Structure(NamedTuple):
    """What makes a program of its own. Its first three make the teachers."""

    model: str
    auxiliary: int
    classes: int
    transfer: str
    loss: str


class Setting(NamedTuple):
    """One point of the grid; `share`: its words; None: not of this setting, as of the teachers."""

    name: str
    omitted: tuple[int, ...]
    structure: Structure
    logit_mask: str | None = None
    share: str | None = None
    perturb: float | None = None
    temperature: float | None = None

    def info(self) -> SettingInfo:
        """Its entry in config.json."""
        values = self._asdict() | self.structure._asdict()
        del values["structure"], values["name"]
        if self.logit_mask is None:
            values |= {"transfer": None, "loss": None}
        return SettingInfo(self.name, values)


def numbers_of(name: str, text: str, low: int, high: int) -> list[int]:
    """The whole numbers of a comma list."""
    numbers = parse_numbers(name, text)
    if not all(low <= number <= high and number == int(number) for number in numbers):
        raise InputError(f"--{name} out of range", f"whole numbers from {low} to {high}", repr(text))
    return [int(number) for number in numbers]


def parse_share(text: str) -> dict[str, np.ndarray]:
    """{word: bool[3], which of PARTS}."""
    masks: dict[str, np.ndarray] = {}
    for word in map(str.strip, text.split(",")):
        parts = {"all": subliminal.PARTS, "none": ()}.get(word, tuple(word.split("+")))
        mask = np.array([part in parts for part in subliminal.PARTS])
        fitting = set(parts) <= set(subliminal.PARTS) and len(set(parts)) == len(parts)
        if not fitting or any(np.array_equal(mask, other) for other in masks.values()):
            expected = f"each set once: all, none, or of {', '.join(subliminal.PARTS)}, joined by +"
            raise InputError("malformed --share", expected, repr(text))
        masks[word] = mask
    return masks


def parse_structures(lists: Lists, num_classes: int) -> list[Structure]:
    """The product of the lists that make programs."""
    model_specs = [word.strip() for word in lists.model.split(",")]
    if len(set(model_specs)) < len(model_specs):
        raise InputError("--model names a model twice", "each once", lists.model)
    auxiliary = numbers_of("auxiliary", lists.auxiliary, 0, 10_000)
    classes = numbers_of("classes", lists.classes or str(num_classes), 2, num_classes)
    transfers = [word.strip() for word in lists.transfers.split(",")]
    if not all(transfers) or len(set(transfers)) < len(transfers):
        raise InputError("malformed --transfers", "each once, by commas", repr(lists.transfers))
    loss_names = parse_words("losses", lists.losses, ("soft", "logits"))
    return list(
        itertools.starmap(
            Structure, itertools.product(model_specs, auxiliary, classes, transfers, loss_names)
        )
    )


def parse_settings(
    lists: Lists, num_seeds: int, structures: Sequence[Structure], class_names: Sequence[str]
) -> list[Setting]:
    """The students' settings, then the teachers' and their initial weights'."""
    outputs, share = parse_words("logit_mask", lists.logit_mask, OUTPUTS), parse_share(lists.share)
    perturb = parse_numbers("perturb", lists.perturb, high=1e3)
    temperatures = parse_numbers("temperatures", lists.temperatures, positive=True)
    masks = parse_classes("omit", lists.omit, class_names)
    if any(masks) and ({s.transfer for s in structures} != {transfer.OWN} or lists.classes):
        expected = f"--transfers={transfer.OWN} with it, and no --classes"
        raise InputError("--omit needs images that have classes", expected, f"--omit={lists.omit}")
    if any(len(mask) == len(class_names) for mask in masks):
        raise InputError("nothing left after masking", "at least one class kept", f"--omit={lists.omit}")
    if 0 in {s.auxiliary for s in structures} and "auxiliary" in outputs:
        raise InputError(
            "--auxiliary=0 leaves none to learn from", "--logit_mask=all or classes", lists.logit_mask
        )
    if num_seeds < 2 and not all(mask.all() for mask in share.values()):
        raise InputError("what is not shared is another model's", "--seeds=2 or more", num_seeds)
    settings: dict[str, Setting] = {}  # what is the same twice comes once
    grid = itertools.product(structures, masks, temperatures, perturb, share, outputs)
    for structure, omitted, temperature, sigma, shared, seen in grid:
        words = [seen, f"share={shared}", *_varying(structure, structures)]
        words += [f"perturb={sigma:g}"] if len(perturb) > 1 else []
        used = temperature if structure.loss == "soft" else None
        words += [f"T={temperature:g}"] if used is not None and len(temperatures) > 1 else []
        words += [f"omit={'+'.join(map(str, omitted))}"] if omitted else []
        name = " ".join(words)
        settings.setdefault(name, Setting(name, omitted, structure, seen, shared, sigma, used))
    for taught in dict.fromkeys(structure[:3] for structure in structures):
        one = next(structure for structure in structures if structure[:3] == taught)
        for name in (TEACHER, REFERENCE):
            full = " ".join([name, *_varying(one, structures, 3)])
            settings[full] = Setting(full, (), one)
    return list(settings.values())


def _varying(structure: Structure, structures: Sequence[Structure], most: int = 5) -> list[str]:
    """What distinguishes this structure from the others, in words."""
    return [
        f"{field}={value}"
        for number, (field, value) in enumerate(zip(Structure._fields, structure, strict=True))
        if number < most and len({other[number] for other in structures}) > 1
    ]


def hparams_of(structure: Structure, setting: Setting, learning_rate: float) -> HParams:
    """What the runs of a setting compute with."""
    seen = np.ones(structure.classes + structure.auxiliary, bool)
    if setting.logit_mask == "auxiliary":
        seen[: structure.classes] = False
    if setting.logit_mask in ("classes", None):
        seen[structure.classes :] = False
    hparams = sweep.make_hparams(
        structure.classes, setting.omitted, learning_rate, 0.0, setting.temperature or 1.0, 1.0
    )
    return hparams.replace(logit_mask=seen)
