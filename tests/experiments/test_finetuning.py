"""Starting from given weights, and training the classifier alone: in a step, by derived numbers, and from the
command line, on a tiny dataset."""

import hashlib
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from kd_jax import losses, models
from kd_jax.io import checkpoint
from kd_jax.train import Config, init_state, optim, train_step, variables_of
from kd_jax.train.sweep import QUICK_COMPILE, init_states, run_keys
from kd_jax.types import HParams, Table
from tests.experiments.launcher import Launcher
from tests.models import test_pretrained

SHAPE, K, N = (8, 8, 3), 3, 12
IMAGES = np.random.RandomState(0).randint(0, 256, (N, *SHAPE)).astype(np.uint8)
LABELS = np.arange(N, dtype=np.int32) % K


def config_of(spec: str, optimizer: optim.Optimizer, **options) -> Config:
    model, loss_fn = models.build(spec, K, **options), losses.LOSSES["labels"]
    return Config(model, SHAPE, K, loss_fn, optimizer, optim.Constant(0), N, 1, freeze_backbone=True)


def hparams(rate: float, decay: float) -> HParams:
    return HParams(*map(jnp.float32, (rate, decay, 1, 0)), jnp.ones(K, bool), jnp.int32(0))


def one_step(config: Config, rate: float, decay: float):
    """(state before, state after) a step on all examples."""

    def run(key):
        state = init_state(config, key)
        index, table = jnp.arange(N, dtype=jnp.int32), Table(jnp.asarray(IMAGES), jnp.asarray(LABELS))
        return state, train_step(config, table, hparams(rate, decay), state, index, jnp.int32(0))[0]

    return jax.jit(run, compiler_options=QUICK_COMPILE)(jax.random.key(0))


@pytest.mark.parametrize("spec", ["resnet-8", "mlp-5", "cnn-4", "cnn-4-d6-bn"])
def test_a_step_of_the_head_is_one_of_softmax_regression_on_the_features(spec):
    """new W = W - rate (x^T (p - y) / N + decay W), x the features in evaluation mode; all else stays."""
    config = config_of(spec, optim.Optimizer(optax.identity, decoupled=False))
    before, after = one_step(config, 0.5, 0.1)
    _, features, _ = models.forward(config.model, variables_of(before), IMAGES / np.float32(255))
    x = np.float64(list(features.values())[-1].reshape(N, -1))
    head = jax.tree.map(np.float64, before.params["logits"])
    scores = np.exp(x @ head["kernel"] + head["bias"])
    error = (scores / scores.sum(axis=1, keepdims=True) - np.eye(K)[LABELS]) / N
    expected = head["kernel"] - 0.5 * (x.T @ error + 0.1 * head["kernel"])
    np.testing.assert_allclose(after.params["logits"]["kernel"], expected, atol=1e-5)
    expected = head["bias"] - 0.5 * (error.sum(axis=0) + 0.1 * head["bias"])
    np.testing.assert_allclose(after.params["logits"]["bias"], expected, atol=1e-5)
    same_but_the_head(variables_of(before), variables_of(after))


def same_but_the_head(one, other) -> None:
    one, other = flatten_dict(one), flatten_dict(other)
    assert one.keys() == other.keys() and len(one) > 2
    for path, leaf in one.items():
        same = np.array_equal(leaf, other[path])
        assert same == (path[1] != "logits"), path


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_the_optimiser_knows_the_head_alone(name):
    config = config_of("mlp-5", optim.OPTIMIZERS[name])
    opt_state = jax.eval_shape(lambda: init_state(config, jax.random.key(0))).opt_state
    shapes = {leaf.shape for leaf in jax.tree.leaves(opt_state)}
    assert shapes - {()} == {(5, K), (K,)}


def test_runs_start_from_what_is_given():
    """All runs have the given leaves, and their own where nothing is given, as without it."""
    config = config_of("mlp-5", optim.OPTIMIZERS["adam"])
    kernel = np.random.RandomState(1).rand(192, 5).astype(np.float32)
    given = {"params": {"hidden_0": {"kernel": kernel}}}
    keys = run_keys(range(3), 1, 0)
    plain, started = init_states(config, keys), init_states(config, keys, given)
    for path, leaf in flatten_dict(started.params).items():
        own = np.asarray(flatten_dict(plain.params)[path])
        expected = np.broadcast_to(kernel, own.shape) if path == ("hidden_0", "kernel") else own
        np.testing.assert_array_equal(leaf, expected)


# --- from the command line ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A dataset of three classes, and weights for five."""
    folder = tmp_path_factory.mktemp("finetuning")
    parts = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS}
    np.savez(folder / "tiny.npz", **parts)
    arrays = test_pretrained.their_arrays()
    random = np.random.RandomState(2)
    arrays["bn1.running_mean"] = random.rand(16).astype(np.float32)
    arrays |= {"fc.weight": random.rand(5, 64).astype(np.float32), "fc.bias": np.zeros(5, np.float32)}
    test_pretrained.save(folder / "weights.safetensors", arrays)
    return folder


@pytest.fixture(scope="module")
def launch(home):
    with Launcher(home) as launcher:
        yield launcher


WORDS = [
    "--dataset=tiny.npz",
    "--model=resnet-8",
    "--pretrained=weights.safetensors",
    "--validation_fraction=0",
]
WORDS += ["--epochs=2", "--batch_size=4", "--seeds=2", "--learning_rate=0.1", "--checkpoint_every=1"]
FROZEN = [*WORDS, "--freeze_backbone", "--dropout=0.2"]
NOTE = "note: the classifier starts afresh: it has 3 classes here\n"
UNSCALED = "note: --pretrained without --normalize: most weights were trained on --normalize=imagenet\n"


def saved(folder: Path):
    """(the models' variables by path, metadata) of a finished run."""
    variables, metadata = checkpoint.load(folder / "teachers")
    return flatten_dict(variables), metadata


@pytest.fixture(scope="module")
def frozen(launch):
    return launch("train_teacher", *FROZEN, "--out=frozen", draw=False)


def test_a_frozen_backbone_stays_as_loaded(frozen, home):
    assert (frozen.status, frozen.err) == (0, UNSCALED + NOTE), frozen
    variables, metadata = saved(home / "frozen")
    loaded = flatten_dict(test_pretrained.load(str(home / "weights.safetensors")).variables)
    assert len(loaded) == len(variables) - 2 > 10
    for path, leaf in loaded.items():
        np.testing.assert_array_equal(variables[path], np.stack([leaf, leaf]))
    kernel = variables["params", "logits", "kernel"]
    assert kernel.shape == (2, 64, 3) and np.all(kernel[0] != kernel[1])
    digest = hashlib.sha256((home / "weights.safetensors").read_bytes()).hexdigest()
    config = json.loads((home / "frozen" / "config.json").read_text())
    assert config["pretrained"] == metadata["pretrained"] == {"sha256": digest, "fresh_classifier": True}
    assert (
        config["flags"]["pretrained"] == "weights.safetensors" and config["flags"]["freeze_backbone"] is True
    )


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_head_alone(launch, home, frozen):
    """The same bits as in one go, the optimiser's state included, which is of the head alone."""
    stopped = launch(
        "train_teacher", *FROZEN, "--out=resumed", draw=False, die="SIGTERM", before="epoch_000001"
    )
    assert stopped.status == 128 + 15
    outcome = launch("train_teacher", *FROZEN, "--out=resumed", draw=False)
    assert outcome.status == 0 and "continuing after epoch 1" in outcome.out
    one, other = saved(home / "resumed")[0], saved(home / "frozen")[0]
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[path])


@pytest.mark.slow
def test_a_normalised_input_leaves_the_names_as_they_are(launch, home, frozen):
    """--normalize=imagenet, with which such weights were trained, belongs to the model, without variables."""
    outcome = launch("train_teacher", *FROZEN, "--normalize=imagenet", "--out=normalised", draw=False)
    assert (outcome.status, outcome.err) == (0, NOTE), outcome
    (variables, metadata), (plain, _) = saved(home / "normalised"), saved(home / "frozen")
    assert variables.keys() == plain.keys() and metadata["model_options"]["normalize"]
    for path, leaf in variables.items():
        assert np.array_equal(leaf, plain[path]) == (path[1] != "logits"), path


@pytest.mark.slow
def test_without_freezing_everything_is_trained(launch, home):
    outcome = launch("train_teacher", *WORDS, "--out=trained", draw=False)
    assert (outcome.status, outcome.err) == (0, UNSCALED + NOTE), outcome
    variables, _ = saved(home / "trained")
    loaded = flatten_dict(test_pretrained.load(str(home / "weights.safetensors")).variables)
    moved = [path for path, leaf in loaded.items() if np.all(variables[path][0] != leaf)]
    assert len(moved) > 0.9 * len(loaded)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--freeze_backbone", "--pretrained="], "--freeze_backbone cannot be this"),
        (["--freeze_backbone", "--max_norm=2"], "--freeze_backbone cannot be this"),
        (["--pretrained=nothing.safetensors"], "no such file of weights"),
        (["--model=wrn-10-1"], "cannot be read for this model"),
        (["--model=resnet-14"], "weights of another network"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(launch, home, words, message):
    outcome = launch("train_teacher", *WORDS, *words, "--out=refused")
    assert outcome.status == 2 and outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not (home / "refused").exists()


def test_a_folder_begun_with_other_weights_is_refused(launch, home, frozen):
    weights, before = home / "weights.safetensors", (home / "weights.safetensors").read_bytes()
    test_pretrained.save(weights, test_pretrained.their_arrays())
    outcome = launch("train_teacher", *FROZEN, "--out=frozen", draw=False)
    weights.write_bytes(before)
    assert outcome.status == 2 and "other pretrained weights" in outcome.err


# --- as imported --------------------------------------------------------------------------------------------

KEPT = [word for word in WORDS if not word.startswith(("--epochs", "--seeds", "--validation"))]
KEPT += ["--epochs=0", "--seeds=2", "--pretrained=own.safetensors", "--validation_fraction=0.25"]


@pytest.fixture(scope="module")
def kept(launch, home):
    """A teacher whose classifier fits, which no update changes."""
    arrays = test_pretrained.their_arrays()
    random = np.random.RandomState(3)
    arrays |= {
        "bn1.running_mean": random.rand(16).astype(np.float32),
        "bn1.running_var": np.ones(16, np.float32),
    }
    test_pretrained.save(home / "own.safetensors", {f"module.{k}": v for k, v in arrays.items()})
    return launch("train_teacher", *KEPT, "--out=kept", draw=False)


@pytest.mark.slow
def test_no_epoch_keeps_a_teacher_as_it_is(kept, home):
    """Every leaf, batch statistics included; its accuracy is that which was shown before."""
    prefix = "note: the prefix module. is taken off the keys of the weights\n"
    assert (kept.status, kept.err) == (0, UNSCALED + prefix), kept
    variables, metadata = saved(home / "kept")
    loaded = test_pretrained.load(str(home / "own.safetensors")).variables
    assert variables.keys() == flatten_dict(loaded).keys()
    for path, leaf in flatten_dict(loaded).items():
        np.testing.assert_array_equal(variables[path], np.stack([leaf, leaf]))
    config = json.loads((home / "kept" / "config.json").read_text())
    model = models.build("resnet-8", K)
    logits = models.predict(model, loaded, jnp.asarray(IMAGES))
    accuracy = float(np.mean(np.asarray(logits).argmax(-1) == LABELS))
    assert config["imported"]["test"] == {"accuracy": accuracy, "support": N}
    assert config["imported"]["validation"]["support"] == K
    shown = f"test accuracy {100 * accuracy:.2f} % of 12 images"
    assert shown in kept.out
    report = (home / "kept" / "report.md").read_text()
    assert re.search(rf"^- weights as imported: validation accuracy .*, {re.escape(shown)}$", report, re.M)
    results = (home / "kept" / "results.csv").read_text()
    assert f"teacher,0,test,none,all,accuracy,{accuracy}" in results
    assert metadata["pretrained"]["fresh_classifier"] is False


@pytest.mark.slow
def test_a_kept_teacher_teaches_and_is_not_made_again(launch, home, kept):
    again = launch("train_teacher", *KEPT, "--out=kept", draw=False)
    assert again.status == 0 and "is complete" in again.out
    words = [
        "--dataset=tiny.npz",
        "--teacher=kept",
        "--model=mlp-4",
        "--epochs=1",
        "--validation_fraction=0.25",
    ]
    assert launch("distill", *words, "--out=students", draw=False).status == 0


@pytest.mark.parametrize(
    "words, message",
    [
        (["--epochs=0", "--pretrained="], "--epochs cannot be this"),
        (["--epochs=0"], "--epochs=0 keeps no classifier: expected weights whose classifier has the 3"),
        (["--epochs=-1"], "--epochs"),
    ],
)
def test_what_no_epoch_cannot_keep(launch, home, words, message):
    test_what_cannot_be_is_refused_in_one_line(launch, home, words, message)
