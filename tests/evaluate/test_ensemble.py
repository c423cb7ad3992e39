"""Ensembles: the mean of probabilities against NumPy, whatever the mapping; whom several groups teach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from kd_jax import models
from kd_jax.evaluate import ensemble, evaluate
from kd_jax.losses import LOSSES, soft_loss
from kd_jax.train import Config, init_state, make_batch, optim, select_teacher, sweep, train_epoch
from kd_jax.types import HParams, Table
from tests.train.probes import STEP

logits_loss = LOSSES["logits"]
K, N, SHAPE = 4, 23, (3, 2, 1)
RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (N, *SHAPE)).astype(np.uint8)
LABELS = RANDOM.randint(0, K, N).astype(np.int32)
TABLE = Table(jnp.asarray(IMAGES), jnp.asarray(LABELS))
MODELS = (models.build("mlp-5", K), models.build("mlp-6-3", K, dropout=0.5))


def stacked(model, num: int, seed: int = 0):
    """Variables of `num` networks, leading axis num, scaled so that they disagree."""
    keys = jax.random.split(jax.random.key(seed), num)
    trees = [models.init_variables(model, key, SHAPE) for key in keys]
    return jax.tree.map(lambda *leaves: 6 * jnp.stack(leaves), *trees)


def by_numpy(variables, member: int, images: np.ndarray) -> np.ndarray:
    """Logits f64[N,K] of one dense network."""
    x = images.reshape(len(images), -1) / 255.0
    layers = variables["params"]
    for name in [*sorted(set(layers) - {"logits"}), "logits"]:
        x = x @ np.float64(layers[name]["kernel"][member]) + np.float64(layers[name]["bias"][member])
        x = x if name == "logits" else np.maximum(x, 0)
    return x


def counted(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    table = np.zeros((K, K), np.int32)
    np.add.at(table, (labels, predicted), 1)
    return table


def test_the_mean_of_probabilities_is_neither_a_vote_nor_the_mean_of_logits():
    """Example 0: two members barely prefer class 0, the third is sure of class 1: p1 = (.48 + .48 + .98) / 3.
    Example 1: two sure of class 0 as 0.9, one as 1e-9, the rest class 1; the mean of logits is 1's."""
    first = np.log([[0.50, 0.48, 0.01, 0.01]] * 2 + [[0.01, 0.97, 0.01, 0.01]])
    second = np.log([[0.90, 0.08, 0.01, 0.01]] * 2 + [[1e-9, 1 - 1e-9 - 2e-2, 1e-2, 1e-2]])
    assert second.mean(axis=0).argmax() == 1
    logits = jnp.asarray(np.stack([first, second], axis=1), jnp.float32)
    matrix = ensemble.confusion_of(logits, jnp.asarray([2, 3], jnp.int32))
    np.testing.assert_array_equal(matrix, counted(np.array([1, 0]), np.array([2, 3])))


@pytest.mark.parametrize(("num_settings", "num_seeds"), [(1, 3), (2, 3), (3, 1), (5, 2)])
def test_students_of_a_setting_together(num_settings, num_seeds):
    """Also where runs are padded to the 8 devices, and do not share their devices by setting."""
    model = MODELS[0]
    variables = stacked(model, num_settings * num_seeds)
    logits = np.stack([by_numpy(variables, run, IMAGES) for run in range(num_settings * num_seeds)])
    probabilities = softmax(logits, axis=-1).reshape(num_settings, num_seeds, N, K).mean(axis=1)
    expected = [counted(one.argmax(axis=-1), LABELS) for one in probabilities]
    found = ensemble.evaluate_settings(model, TABLE, variables, num_settings, num_seeds)
    np.testing.assert_array_equal(found, expected)
    mesh = sweep.runs_mesh(num_settings * num_seeds)
    on_mesh = sweep.put_on_mesh(sweep.pad_runs(variables, mesh.size), mesh, sweep.SHARDED)
    again = ensemble.evaluate_settings(model, TABLE, on_mesh, num_settings, num_seeds)
    np.testing.assert_array_equal(again, expected)


def config_of(loss_fn=soft_loss, **options) -> Config:
    return Config(
        model=MODELS[0], image_shape=SHAPE, num_classes=K, loss_fn=loss_fn, optimizer=STEP,
        schedule=lambda step: jnp.float32(1), batch_size=3, num_updates=1, **options,
    )  # fmt: skip


def hparams(teacher: int, temperature: float) -> HParams:
    numbers = [jnp.float32(x) for x in (0, 0, temperature, 1)]
    return HParams(*numbers, jnp.ones(K, bool), jnp.int32(teacher))


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_groups_of_two_structures_teach_by_the_mean_of_softened_probabilities(average, temperature):
    """Cached and queried alike; paired: the mean of the run's own member of each group."""
    sizes = (2, 3) if average else (2, 2)
    groups = tuple(stacked(model, size) for model, size in zip(MODELS, sizes, strict=True))
    cached = TABLE.replace(
        teacher_logits=tuple(
            models.predict_stacked(*group, TABLE.images) for group in zip(MODELS, groups, strict=True)
        )
    )
    queried = TABLE.replace(teacher_variables=groups)
    index = np.array([7, 0, 22, 7], np.int32)
    for teacher in range(2):
        members = [
            softmax(by_numpy(group, member, IMAGES[index]) / temperature, axis=-1)
            for group, size in zip(groups, sizes, strict=True)
            for member in (range(size) if average else [teacher])
        ]
        run, found = hparams(teacher, temperature), []
        for table, asked in ((cached, ()), (queried, MODELS)):
            config = config_of(teacher_models=asked, average_teachers=average)
            images = models.scale_pixels(TABLE.images[index])
            batch = make_batch(config, select_teacher(config, table, run), run, images, jnp.asarray(index))
            found.append(np.asarray(batch.teacher_logits))
        np.testing.assert_allclose(softmax(found[0] / temperature, axis=-1), np.mean(members, axis=0), 1e-4)
        np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)
        together = evaluate.query_teachers(MODELS, average, soft_loss, groups, run, TABLE.images[index])
        if temperature == 1:  # at which teachers are asked when a bias is matched to them
            np.testing.assert_allclose(
                log_softmax(together, axis=-1), np.log(np.mean(members, 0)), 1e-3, 1e-4
            )


@pytest.mark.parametrize("average", [False, True])
def test_groups_of_two_structures_teach_the_logits_loss_by_the_mean_of_logits(average):
    """Ba & Caruana 2014. Cached, queried and asked for the evaluation alike; at any temperature."""
    groups = tuple(stacked(model, 2) for model in MODELS)
    logits = tuple(models.predict_stacked(*group, TABLE.images) for group in zip(MODELS, groups, strict=True))
    index, run = np.array([7, 0, 22, 7], np.int32), hparams(1, 5.0)
    members = [
        by_numpy(group, member, IMAGES[index]) for group in groups for member in ([0, 1] if average else [1])
    ]
    found = [evaluate.query_teachers(MODELS, average, logits_loss, groups, run, TABLE.images[index])]
    for table, asked in (
        (TABLE.replace(teacher_logits=logits), ()),
        (TABLE.replace(teacher_variables=groups), MODELS),
    ):
        config = config_of(logits_loss, teacher_models=asked, average_teachers=average)
        images = models.scale_pixels(TABLE.images[index])
        batch = make_batch(config, select_teacher(config, table, run), run, images, jnp.asarray(index))
        found.append(batch.teacher_logits)
    for one in found:
        np.testing.assert_allclose(one, np.mean(members, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss_fn", [LOSSES[name] for name in ("soft", "hard_label", "logits")])
def test_one_teacher_as_an_ensemble_is_that_teacher(loss_fn):
    """To the bit where its logits are cached; each example's loss is that of a student paired with it."""
    variables, run = stacked(MODELS[1], 1), hparams(0, 4.0)
    logits = models.predict_stacked(MODELS[1], variables, TABLE.images)
    index, student = jnp.arange(5, dtype=jnp.int32), by_numpy(stacked(MODELS[0], 1, 9), 0, IMAGES[:5])
    images, found = models.scale_pixels(TABLE.images[:5]), []
    for average in (False, True):
        for table, asked in (
            (TABLE.replace(teacher_logits=(logits,)), ()),
            (TABLE.replace(teacher_variables=(variables,)), MODELS[1:]),
        ):
            config = config_of(loss_fn, teacher_models=asked, average_teachers=average)
            batch = make_batch(config, select_teacher(config, table, run), run, images, index)
            found.append((batch.teacher_logits, loss_fn(jnp.float32(student), batch, run)))
    np.testing.assert_array_equal(found[2][0], logits[0, :5])
    for one in found[1:]:
        np.testing.assert_allclose(one[0], found[0][0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one[1], found[0][1], rtol=1e-4, atol=1e-4)


def test_a_lone_group_is_no_ensemble():
    """Its member's logits reach the student to the bit, cached or asked."""
    variables, run = stacked(MODELS[1], 2), hparams(1, 4.0)
    logits = models.predict_stacked(MODELS[1], variables, TABLE.images)
    index = jnp.arange(5, dtype=jnp.int32)
    cached = TABLE.replace(teacher_logits=(logits,))
    batch = make_batch(config_of(), cached, run, models.scale_pixels(TABLE.images[:5]), index)
    np.testing.assert_array_equal(batch.teacher_logits, logits[1, :5])
    alone = evaluate.query_teachers(MODELS[1:], False, soft_loss, (variables,), run, TABLE.images)
    np.testing.assert_allclose(alone, logits[1], rtol=1e-6, atol=1e-6)


def test_a_table_with_variables_and_no_model_is_refused():
    table = TABLE.replace(teacher_variables=(stacked(MODELS[0], 2),))
    config = config_of(average_teachers=True)
    with pytest.raises(ValueError, match="zip"):
        make_batch(config, table, hparams(0, 1.0), models.scale_pixels(TABLE.images), jnp.arange(N))


def test_students_are_taught_by_queried_groups_as_by_cached_ones():
    """A whole epoch, with an augmentation that changes nothing."""
    groups = tuple(stacked(model, 2) for model in MODELS)
    logits = tuple(models.predict_stacked(*group, TABLE.images) for group in zip(MODELS, groups, strict=True))
    ends = []
    for table, options in (
        (TABLE.replace(teacher_logits=logits), {}),
        (
            TABLE.replace(teacher_variables=groups),
            {"teacher_models": MODELS, "augment": lambda key, images: images},
        ),
    ):
        config = Config(
            model=MODELS[0], image_shape=SHAPE, num_classes=K, loss_fn=soft_loss,
            optimizer=optim.OPTIMIZERS["sgd"], schedule=lambda step: jnp.float32(1), batch_size=5,
            num_updates=5, average_teachers=True, **options,
        )  # fmt: skip
        run = hparams(0, 3.0).replace(learning_rate=jnp.float32(0.1), weight_decay=None)
        state = init_state(config, jax.random.key(3))
        ends.append(jax.jit(lambda s, c=config, t=table, r=run: train_epoch(c, t, r, s))(state)[0].params)
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ends[-1], state.params)
        assert max(jax.tree.leaves(moved)) > 0.01
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *ends)
