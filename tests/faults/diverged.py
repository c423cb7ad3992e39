"""Runs that go to nan beside runs that do not, in one program: by network, optimiser and way of mapping."""

import itertools
from functools import partial

import jax
import numpy as np

from kd_jax import data, losses, models, train
from kd_jax.train import loop, optim, sweep
from kd_jax.types import Table
from tests.faults.tried import Tried

SEEDS, EPOCHS, EXAMPLES = 3, 3, 256
SOUND, WILD = 0.01, 1e30
NETWORKS = ("mlp-16", "cnn-4-8-bn")
CHUNKS = (1, 2, None)


def train_beside(model: str, optimizer: str, vmap_size: int | None, rates: tuple[float, float], length: int):
    """(states, history) in numpy of SEEDS runs at each of two learning rates, as one program in segments."""
    digits = data.load("digits")
    images, labels = digits.train_images[:EXAMPLES], digits.train_labels[:EXAMPLES]
    config = train.make_config(
        models.build(model, digits.num_classes),
        images.shape,
        losses.LOSSES["labels"],
        EPOCHS,
        batch_size=64,
        optimizer=optim.OPTIMIZERS[optimizer],
    )
    settings = [sweep.make_hparams(digits.num_classes, learning_rate=rate) for rate in rates]
    hparams = sweep.stack_runs(settings, range(SEEDS))
    states = sweep.init_states(config, sweep.run_keys(range(SEEDS), len(rates), 0))
    table, parts = Table(images, labels), []
    segments = loop.run_segments(config, table, None, hparams, states, EPOCHS, length, vmap_size)
    for after, history, _ in segments:
        parts.append((after, history))
    after = parts[-1][0]
    history = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *(each for _, each in parts))
    kept = sweep.gather(after.replace(key=jax.random.key_data(after.key)), 2 * SEEDS)
    return kept, history


def differences(model: str, optimizer: str, vmap_size: int | None) -> list[str]:
    """What does not hold of the runs at SOUND beside others at WILD."""
    way = partial(train_beside, model, optimizer, vmap_size)
    (states, history), (calm, undisturbed) = way((SOUND, WILD), EPOCHS), way((SOUND, SOUND), EPOCHS)
    pieces, _ = way((SOUND, WILD), 1)
    neighbours = lambda tree: jax.tree.map(lambda leaf: leaf[:SEEDS], tree)  # noqa: E731
    found = []
    if not np.array_equal(states.diverged, np.arange(2 * SEEDS) >= SEEDS):
        found.append(f"diverged is {states.diverged.tolist()}")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((states.params, states.opt_state))):
        found.append("a number kept is not finite")
    if not _same(neighbours((states, history)), neighbours((calm, undisturbed))):
        found.append("the neighbours differ from those without it")
    # Segments of another length are another program, whose rounding may be another: the runs that diverge.
    if not np.array_equal(pieces.diverged, states.diverged):
        found.append("in segments others diverge")
    return found


def _same(one, other) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def campaign() -> list[Tried]:
    ways = list(itertools.product(NETWORKS, ("sgd", "adam"), CHUNKS))
    failures = []
    for way in ways:
        failures += [f"{', '.join(map(str, way))}: {what}" for what in differences(*way)]
    failing = {failure.split(":")[0] for failure in failures}
    what = f"{SEEDS} runs at learning rate {WILD:g} beside {SEEDS} at {SOUND:g} in one program: network, "
    what += "optimiser, way of mapping"
    outcome = "frozen and marked; its neighbours' weights and history equal to the bit those without it"
    return [Tried(what, len(ways), len(ways) - len(failing), outcome, tuple(failures))]
