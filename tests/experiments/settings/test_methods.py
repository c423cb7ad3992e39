"""The settings and programs that --loss, --feature_loss and their kin name."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.settings import methods
from experiments.settings.distill import all_hparams, parse_settings, programs
from experiments.settings.methods import Lists, Structure
from kd_jax import losses, models
from kd_jax.errors import InputError
from kd_jax.types import Batch, BatchLoss, HParams


def lists(**given) -> Lists:
    usual = {"loss": "soft", "divergence": "kl", "standardize_logits": "no", "betas": None}
    usual |= {"feature_loss": "none", "feature_weight": None, "temperatures": "4", "alphas": "1"}
    usual |= {"learning_rates": "1e-3", "weight_decays": "0", "omit": None, "seen": None, "shots": "0"}
    return Lists(**usual | {"teacher_ablations": "full", "student_init": "random"} | given)  # type: ignore[arg-type]


def settings(**given):
    return parse_settings(lists(**given), "0123456789")


def test_each_loss_is_a_program_and_a_setting_belongs_to_one():
    found = settings(loss="labels,soft,dkd,dist,label_smoothing", alphas="0,1", omit="none,3")
    names = [setting.name for setting in found]
    words = ["labels", "T=4", "dkd T=4", "dist T=4", "label_smoothing"]
    assert names == [f"{word}{omit}" for word in words for omit in ("", " omit=3")]
    grouped = programs(found)
    assert [structure.loss for structure in grouped] == ["labels", "soft", "dkd", "dist", "label_smoothing"]
    assert [one for group in grouped.values() for one in group] == found  # in the order of config.json


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_loss_that_reads_the_temperature_is_named(name):
    """Else all --temperatures would be one setting, at T = 1."""
    random = np.random.RandomState(0)
    student, teacher = random.standard_normal((2, 6, 4)).astype(np.float32)
    labels = np.arange(6, dtype=np.int32) % 4
    number = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    at = lambda temperature: losses.LOSSES[name](  # noqa: E731
        student,
        Batch(labels, teacher),
        HParams(number(0), number(0), number(temperature), number(1), jnp.ones(4, bool), jnp.int32(0)),
    )
    assert np.allclose(at(1), at(4), rtol=1e-3) is (name not in methods.WITH_TEMPERATURE)


def test_divergences_and_standardised_logits_are_of_what_has_them():
    found = settings(loss="labels,soft,dkd", divergence="kl,reverse_kl", standardize_logits="no,yes")
    assert {setting.name for setting in found} == {
        "labels", "T=4", "T=4 reverse_kl", "dkd T=4",
        "T=4 standardized", "T=4 reverse_kl standardized", "dkd T=4 standardized",
    }  # fmt: skip
    of = {setting.name: setting.structure.loss_fn for setting in found}
    assert of["T=4 reverse_kl"] is losses.DIVERGENCES["reverse_kl"] and of["T=4"] is losses.soft_loss
    assert of["dkd T=4 standardized"].loss is losses.LOSSES["dkd"]  # type: ignore[attr-defined]
    assert isinstance(Structure("dist", standardized=True).loss_fn, BatchLoss)


def test_feature_losses_are_beside_labels_and_beside_soft_targets():
    found = settings(feature_loss="none,sp,crd", alphas="0,1", feature_weight="1,10")
    names = ["labels", "T=4"]
    names += [
        f"{word} {loss} weight={w}" for loss in ("sp", "crd") for word in ("labels", "T=4") for w in (1, 10)
    ]
    assert [setting.name for setting in found] == names
    assert [setting.feature_weight for setting in found] == [None, None, *(1.0, 10.0) * 4]


def test_numbers_are_those_of_the_papers_unless_given():
    (dkd,), (fitnet,) = settings(loss="dkd"), settings(feature_loss="fitnet")
    assert (dkd.beta, fitnet.beta, fitnet.feature_weight) == (8.0, None, 100.0)
    two = settings(loss="dkd,soft", betas="2,8")
    assert [(one.name, one.beta) for one in two] == [
        ("dkd T=4 beta=2", 2.0), ("dkd T=4 beta=8", 8.0), ("T=4", None),
    ]  # fmt: skip
    numbers = all_hparams(two[:2], 10)
    assert [float(one.beta) for one in numbers] == [2.0, 8.0] and numbers[0].feature_weight is None  # type: ignore[arg-type]
    assert all_hparams(two[2:], 10)[0].beta is None
    assert all_hparams([fitnet], 10)[0].feature_weight == np.float32(100)


def test_config_json_says_nothing_new_of_what_is_old():
    (plain,) = settings()
    always = {"omitted", "temperature", "alpha", "learning_rate", "weight_decay"}
    assert set(plain.info().values) == always and plain.info().name == "T=4"
    (dkd,) = settings(loss="dkd")
    assert dkd.info().values["method"] == "dkd" and dkd.info().values["beta"] == 8.0


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"loss": "dkdd"}, "did you mean dkd"),
        ({"loss": "dkd", "divergence": "reverse_kl"}, "--divergence is of soft targets"),
        ({"loss": "labels", "standardize_logits": "yes"}, "--standardize_logits"),
        ({"feature_weight": "1"}, "--feature_weight means nothing"),
        ({"betas": "1"}, "--betas mean nothing"),
        ({"loss": "label_smoothing", "betas": "1.5"}, "--betas out of range"),
        ({"feature_loss": "crd,crd"}, "each once"),
        ({"feature_loss": "sp", "feature_weight": "-1"}, "--feature_weight out of range"),
        ({"loss": "soft,dkd", "teacher_ablations": "top1"}, "--teacher_ablations"),
    ],
)
def test_what_cannot_be_is_refused(given, expected):
    with pytest.raises(InputError, match=expected):
        settings(**given)


@pytest.mark.parametrize(
    "spec, loss, expected",
    [
        ("cnn-2-3-4", "at", ("block_0", "block_1", "block_2")),
        ("cnn-2-3-4-d5", "fitnet", ("block_1",)),
        ("cnn-2-3-4-d5", "crd", ("dense_0",)),
        ("cnn-2-3-4-d5", "sp", ("block_2",)),
        ("mlp-4-5", "review", ("hidden_0", "hidden_1")),
    ],
)
def test_layers_by_default(spec, loss, expected):
    assert methods.choose_layers("student_layers", "", loss, models.build(spec, 3), (8, 8, 1)) == expected


@pytest.mark.parametrize(
    "spec, loss, text, expected",
    [
        ("mlp-4", "at", "", "compares places"),
        ("cnn-2-d3", "at", "dense_0", "compares places"),
        ("cnn-2", "sp", "block_1", "did you mean block_0"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(spec, loss, text, expected):
    with pytest.raises(InputError, match=expected):
        methods.choose_layers("student_layers", text, loss, models.build(spec, 3), (8, 8, 1))
