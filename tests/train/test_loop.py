"""Training with checkpoints: what is interrupted and called again gives the same bits, and nothing else.

Two settings x two seeds of a small network on 16 random images, five epochs, a checkpoint after every second:
one compiled program for all tests.
"""

import dataclasses
import functools
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from kd_jax import losses, models
from kd_jax.errors import InputError
from kd_jax.io import checkpoint
from kd_jax.train import loop, make_config, optim, sweep
from kd_jax.types import Table
from tests.io.damage import flip_a_byte

N, K, EPOCHS = 16, 3, 5
RANDOM = np.random.RandomState(0)
TABLE = Table(RANDOM.randint(256, size=(N, 3, 3, 1)).astype(np.uint8), (np.arange(N) % K).astype(np.int32))
HELD_OUT = Table(TABLE.images[:5], TABLE.labels[:5])
CONFIG = make_config(
    models.build("mlp-4", K, dropout=0.2),
    TABLE.images.shape,
    losses.labels_loss,
    EPOCHS,
    batch_size=8,
    optimizer=optim.OPTIMIZERS["sgd"],
    schedule=optim.SCHEDULES["constant"],
)
SETTINGS = [sweep.make_hparams(K, learning_rate=0.1), sweep.make_hparams(K, [1], learning_rate=0.05)]
HPARAMS = sweep.stack_runs(SETTINGS, (0, 1))
ONE_SETTING = sweep.stack_runs(SETTINGS[:1], (0, 1))
KEYS = sweep.run_keys((0, 1), 2, base=0)


@pytest.fixture(autouse=True)
def _optax_promotes():
    with jax.numpy_dtype_promotion("standard"):
        yield


def train(
    folder: Path, on_segment=None, config=CONFIG, table=TABLE, hparams=HPARAMS, keys=KEYS,
    epochs=EPOCHS, start=sweep.init_states,
):  # fmt: skip
    """(states, history) in numpy, keys as their data."""
    states, history = loop.train(
        config, table, HELD_OUT, hparams, keys, folder, epochs, 2, start=start, on_segment=on_segment
    )
    return sweep.gather(states.replace(key=jax.random.key_data(states.key)), len(keys)), history


def no_start(config, keys):
    raise AssertionError("there was a checkpoint")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, its checkpoints after epochs 4 and 5; states, history) of a training in one call."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    with jax.numpy_dtype_promotion("standard"):
        return folder, *train(folder)


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "copied"))


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stop_after(last: int):
    def on_segment(epoch, history):
        if epoch == last:
            raise KeyboardInterrupt

    return on_segment


@pytest.mark.parametrize("last", [0, 2, 4])
def test_resumed_is_uninterrupted_to_the_bit(whole, tmp_path, last):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after(last))
    assert names(tmp_path) == [f"epoch_{epoch:06d}" for epoch in (2, 4) if epoch <= last]
    resumed = train(tmp_path, start=no_start if last else sweep.init_states)
    same_bits(resumed, whole[1:])


def test_the_segments_are_the_trainings_own(whole, tmp_path):
    """Checkpoints after epochs 2, 4 and 5, of which two stay; the history is of all epochs so far, its counts
    those of 2 batches of 8 in each, of the 5 held-out images after each."""
    seen = []
    train(tmp_path, lambda epoch, history: seen.append((epoch, history)))
    assert [epoch for epoch, _ in seen] == [0, 2, 4, 5] and seen[0][1] == {}
    for epoch, history in seen[1:]:
        support = {split: counts["support"].sum(axis=-1) for split, counts in history.items()}
        np.testing.assert_array_equal(support["train"], np.full((4, epoch), 16))
        np.testing.assert_array_equal(support["validation"], np.full((4, epoch), 5))
    assert names(tmp_path) == ["epoch_000004", "epoch_000005"]
    same_bits(seen[-1][1], whole[2])


def test_what_is_complete_is_not_trained_again(whole, copied):
    seen = []
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    again = train(copied, lambda epoch, history: seen.append(epoch), start=no_start)
    same_bits(again, whole[1:])
    assert seen == [EPOCHS]
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(whole, copied, caplog):
    flipped, seen = flip_a_byte(copied / "epoch_000005"), []
    with caplog.at_level(logging.WARNING, "kd_jax"):
        again = train(copied, lambda epoch, history: seen.append(epoch), start=no_start)
    same_bits(again, whole[1:])
    assert seen == [4, 5] and names(copied) == ["epoch_000004", "epoch_000005"]
    checkpoint.verify(copied / "epoch_000005")
    (warning,) = caplog.messages
    assert warning.startswith("epoch_000005 is passed over for the one before it") and str(flipped) in warning


def test_damaged_checkpoints_alone_are_refused(copied, caplog):
    flipped = [flip_a_byte(path) for path in sorted(copied.iterdir())]
    with pytest.raises(InputError, match=f"damaged checkpoint: .*{flipped[0]}"):
        train(copied, start=no_start)
    assert len(caplog.messages) == 1 and names(copied) == ["epoch_000004", "epoch_000005"]


def other_image() -> Table:
    images = TABLE.images.copy()
    images[0, 0, 0] ^= 1
    return TABLE.replace(images=images)


@pytest.mark.parametrize(
    "what, changed",
    [
        ("config", {"config": dataclasses.replace(CONFIG, loss_fn=losses.soft_loss)}),
        ("config", {"config": dataclasses.replace(CONFIG, max_norm=2.0)}),
        ("data", {"table": other_image()}),
        ("data", {"table": TABLE.replace(labels=TABLE.labels[::-1].copy())}),
        ("data", {"table": TABLE.replace(teacher_logits=(np.zeros((1, N, K), np.float32),))}),
        ("hyper-parameters", {"hparams": HPARAMS.replace(alpha=HPARAMS.alpha + 1)}),
        ("hyper-parameters", {"hparams": HPARAMS.replace(weight_decay=HPARAMS.alpha)}),
        ("keys", {"keys": sweep.run_keys((0, 2), 2, base=0)}),
        ("hyper-parameters, keys", {"hparams": ONE_SETTING, "keys": sweep.run_keys((0, 1), 1, base=0)}),
    ],
)
def test_another_experiments_folder_is_refused(copied, what, changed):
    with pytest.raises(InputError, match=f"holds another experiment: .*other {what} than there"):
        train(copied, start=no_start, **changed)
    assert names(copied) == ["epoch_000004", "epoch_000005"]


def test_a_longer_training_is_refused_and_a_shorter_one_continued(copied):
    with pytest.raises(InputError, match="holds a longer training: expected at most 3 epochs; given 5"):
        train(copied, epochs=3)
    states, history = train(copied, epochs=6, start=no_start)
    assert np.all(states.epoch == 6) and history["train"]["support"].shape == (4, 6, K)


def test_arguments_that_are_made_again_are_the_same_experiment():
    """In another process a function is at another address."""

    def made(rate):
        def loss(logits, batch, hparams):
            return rate * losses.labels_loss(logits, batch, hparams)

        return dataclasses.replace(CONFIG, loss_fn=functools.partial(loss))

    one, other = (loop._describe_experiment(made(1), TABLE, HELD_OUT, HPARAMS, KEYS) for _ in range(2))
    assert made(1) != made(1) and one == other


def test_a_checkpoint_of_an_older_version_is_continued(whole, copied):
    """It does not say of which experiment it is."""
    arrays, _ = checkpoint.load(copied / "epoch_000004")
    shutil.rmtree(copied)
    checkpoint.save(copied / "epoch_000004", arrays, {"epoch": 4, "num_runs": 4})
    same_bits(train(copied, start=no_start), whole[1:])


def test_a_folder_of_another_name_is_no_checkpoint(tmp_path):
    for name in ("epoch_000002", "epoch_000010 (copy)", "epoch_backup", "epoch_000010_2"):
        (tmp_path / name).mkdir()
    assert loop._saved(tmp_path) == [tmp_path / "epoch_000002"]
