"""What the flags say of the loss: the structures that make programs of their own, and the words of a
setting."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.cli.parse import parse_numbers, parse_words
from kd_jax import losses, models
from kd_jax.errors import InputError
from kd_jax.train import Config
from kd_jax.train.config import FeatureMatch
from kd_jax.types import LossFn

WITH_TEMPERATURE = ("soft", "dkd", "dist", "nkd")
"""The losses that read hparams.temperature; of any other, all --temperatures are one setting, at T = 1."""
NONE = "none"


@dataclasses.dataclass(frozen=True)
class Lists:
    """The values of the flags that span the grid, by their names; comma lists all."""

    loss: str
    divergence: str
    standardize_logits: str
    betas: str | None
    feature_loss: str
    feature_weight: str | None
    temperatures: str
    alphas: str
    learning_rates: str
    weight_decays: str
    omit: str | None
    seen: str | None
    shots: str
    teacher_ablations: str
    student_init: str
    transfer_shares: str | None = None


class Structure(NamedTuple):
    """What makes a program of its own.

    loss: of LOSSES; divergence: of DIVERGENCES; standardized: whether its teacher's part sees standardised
    logits; feature_loss: of FEATURE_LOSSES, or None.
    """

    loss: str = "soft"
    divergence: str = "kl"
    standardized: bool = False
    feature_loss: str | None = None

    @property
    def loss_fn(self) -> LossFn:
        """The loss of the logits."""
        loss_fn = losses.DIVERGENCES[self.divergence] if self.loss == "soft" else losses.LOSSES[self.loss]
        return losses.standardized(loss_fn) if self.standardized else loss_fn


def short(value: float) -> str:
    """Few digits, yet never the same for two values."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def parse(lists: Lists) -> tuple[list[Structure], list[float | None], list[float | None]]:
    """(structures, values of --betas, of --feature_weight); None: the loss's default."""
    names = parse_words("loss", lists.loss, list(losses.LOSSES))
    divergences = parse_words("divergence", lists.divergence, list(losses.DIVERGENCES))
    if divergences != ["kl"] and "soft" not in names:
        raise InputError("--divergence is of soft targets", "--loss=soft", f"--loss={lists.loss}")
    switch = parse_words("standardize_logits", lists.standardize_logits, ("no", "yes"))
    if "yes" in switch and set(names) <= set(losses.WITHOUT_TEACHER):
        expected = "a loss with a teacher beside it"
        raise InputError("--standardize_logits is of a teacher's logits", expected, f"--loss={lists.loss}")
    features = parse_words("feature_loss", lists.feature_loss, [NONE, *losses.FEATURE_LOSSES])
    if lists.feature_weight is not None and features == [NONE]:
        expected = "--feature_loss with it"
        raise InputError("--feature_weight means nothing here", expected, lists.feature_weight)
    if lists.betas is not None and not {*names} & {*losses.BETAS}:
        expected = f"--loss among {', '.join(losses.BETAS)}"
        raise InputError("--betas mean nothing here", expected, f"--loss={lists.loss}")
    if lists.betas is not None and "label_smoothing" in names:
        parse_numbers("betas", lists.betas, high=1.0)  # a share
    found = [
        Structure(
            name,
            divergence if name == "soft" else "kl",
            standardized == "yes" and name not in losses.WITHOUT_TEACHER,
            None if feature == NONE else feature,
        )
        for feature, standardized, name, divergence in itertools.product(features, switch, names, divergences)
    ]
    return (
        list(dict.fromkeys(found)),
        _numbers("betas", lists.betas),
        _numbers("feature_weight", lists.feature_weight),
    )


def _numbers(name: str, text: str | None) -> list[float | None]:
    return [None] if text is None else [*parse_numbers(name, text)]


def needs_teacher(lists: Lists) -> bool:
    """Whether any structure of these flags reads a teacher."""
    structures, *_ = parse(lists)
    return any(one.feature_loss or one.loss not in losses.WITHOUT_TEACHER for one in structures)


def describe(
    structure: Structure,
    temperature: float,
    alpha: float,
    beta: float | None,
    weight: float | None,
    several_betas: bool,
    several_weights: bool,
) -> tuple[list[str], dict[str, Any]]:
    """(words of the setting's name, the fields of `Setting` that are of the loss, None where they mean
    nothing) of the structure at this point of the grid. With alpha = 0 the loss of the logits is the labels'
    alone, and temperature, divergence and the rest have no part in it."""
    loss, feature = structure.loss, structure.feature_loss
    if loss == "labels" or (alpha == 0 and loss not in losses.WITHOUT_TEACHER):
        loss, words = "labels", ["labels"]
        numbers: tuple[float | None, float] = (None, 0.0)
    elif loss == "label_smoothing":
        words, numbers = [loss], (None, 0.0)
    else:
        at = temperature if loss in WITH_TEMPERATURE else 1.0
        words = [] if loss == "soft" else [loss]
        words += [f"T={short(at)}"] * (loss in WITH_TEMPERATURE)
        words += [f"alpha={short(alpha)}"] * (alpha < 1)
        words += [structure.divergence] * (structure.divergence != "kl")
        words += ["standardized"] * structure.standardized
        numbers = at, alpha
    beta = (losses.BETAS[loss] if beta is None else beta) if loss in losses.BETAS else None
    words += [f"beta={short(beta)}"] if beta is not None and several_betas else []
    if feature is None:
        weight = None
    else:
        weight = losses.FEATURE_LOSSES[feature].weight if weight is None else weight
        words += [feature, *([f"weight={short(weight)}"] * several_weights)]
    plain = loss in ("soft", "hard_label", "labels", "logits") and structure.divergence == "kl"
    plain = plain and not structure.standardized and feature is None
    method = None if plain else " ".join(word for word in words if "=" not in word) or "soft"
    used = {"temperature": numbers[0], "alpha": numbers[1], "beta": beta, "structure": structure}
    return words, used | {"method": method, "feature_loss": feature, "feature_weight": weight}


def with_structure(
    config: Config, structure: Structure, teacher: Any, layers: tuple[str, str], negatives: int, num: int
) -> Config:
    """The training of one structure.

    config: of the first. teacher: as of settings.teachers, or None. layers: the words of --student_layers and
    --teacher_layers. negatives: of CRD; num: N of the training table.
    """
    match, name = None, structure.feature_loss
    if name is not None:
        names = [
            choose_layers(flag, text, name, model, config.image_shape)
            for flag, text, model in (
                ("student_layers", layers[0], config.model),
                ("teacher_layers", layers[1], teacher.models[0]),
            )
        ]
        if not layers[0] and not layers[1]:  # the deepest ones of both
            least = min(map(len, names))
            names = [one[-least:] for one in names]
        if len(names[0]) != len(names[1]):
            given = f"{', '.join(names[0])}; {', '.join(names[1])}"
            raise InputError(f"{name} compares layers in pairs", "equally many of student and teacher", given)
        crd = (num, negatives) if name == "crd" else (0, 0)
        match = FeatureMatch(name, names[0], names[1], teacher.models[0], *crd)
    return dataclasses.replace(config, loss_fn=structure.loss_fn, feature_match=match)


def choose_layers(
    flag: str, text: str, loss: str, model: Any, image_shape: tuple[int, int, int]
) -> tuple[str, ...]:
    """The layers of a model that a feature loss reads: those of the flag, or the method's own."""
    known = models.layer_shapes(model, image_shape)
    maps = [layer for layer, shape in known.items() if len(shape) == 4] or list(known)
    method = losses.FEATURE_LOSSES[loss]
    if not known:
        raise InputError(f"--feature_loss={loss} needs a hidden layer", "a network that has one", "none")
    if text:
        chosen = parse_words(flag, text, list(known))
    else:
        chosen = {
            "maps": maps, "middle_map": [maps[(len(maps) - 1) // 2]], "last_map": maps[-1:],
            "last": [*known][-1:],
        }[method.layers]  # fmt: skip
    flat = [layer for layer in chosen if len(known[layer]) < 4]
    if method.needs_places and flat:
        raise InputError(
            f"--feature_loss={loss} compares places of a map", "layers of [h,w,c]", ", ".join(flat)
        )
    return tuple(chosen)


def require_one_teacher(structures: Sequence[Structure], teacher: Any, transfer: str) -> None:
    """Refuses what a feature loss cannot do: layers of an ensemble; CRD without labels."""
    features = [one.feature_loss for one in structures if one.feature_loss]
    if features and (teacher.average or len(teacher.models) > 1):
        expected = "one --teacher folder, paired or first"
        raise InputError("a feature loss compares the layers of one teacher", expected, teacher.info.path)
    if "crd" in features and transfer != "own":
        raise InputError("crd draws its negatives by class", "--transfer=own", f"--transfer={transfer}")
