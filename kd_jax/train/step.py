"""One run as pure functions: train_step -> train_epoch (scan over U) -> fit (loop over E).

Each is `(carry, input) -> (carry, output)` on arrays; what is static is gathered in a frozen `Config`
(config.py). Nothing here knows that runs are mapped. What a step sees of the data is in batch.py.
"""

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from kd_jax.models import forward, forward_head, init_variables, predict
from kd_jax.models.split_batch import local_part, mean_over_parts, sum_over_parts
from kd_jax.train import generator, keys
from kd_jax.train.batch import (
    ablate_teacher_logits,
    augment_and_scale,
    batch_images,
    batch_losses,
    cached_rows,
    make_batch,
    select_teacher,
)
from kd_jax.train.config import Config
from kd_jax.train.counts import all_finite, count, zero_counts
from kd_jax.train.features import feature_losses, init_features
from kd_jax.train.optim import apply_gradients, clip_columns
from kd_jax.train.sampling import run_order
from kd_jax.types import Counts, HParams, Table, TrainState, Variables


def init_state(config: Config, key: jax.Array, pretrained_variables: Variables | None = None) -> TrainState:
    """A run's state before its first epoch. key: the run's own typed key, kept in the state.

    pretrained_variables: any part of the tree of variables; the run starts with it instead of its own draws.
    """
    variables = dict(init_variables(config.model, jax.random.fold_in(key, keys.INIT), config.image_shape))
    if pretrained_variables is not None:
        variables = unflatten_dict(flatten_dict(variables) | flatten_dict(pretrained_variables))
    params, of_features = variables.pop("params"), init_features(config, key)
    opt_state = config.optimizer.direction.init(trainable_params(config, params, of_features))
    zero, finite = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    made = generator.init(config, key)
    return TrainState(params, variables, opt_state, key, zero, finite, made, of_features)


def trainable_params(config: Config, params: dict, of_features: dict) -> dict:
    """The parameters that gradients, weight decay and the optimiser's state are of; with a feature loss
    {"student": ..., "connector": ...}."""
    params = {"logits": params["logits"]} if config.freeze_backbone else params
    if config.feature_match is None:
        return params
    return {"student": params, "connector": of_features["connector"]}


def variables_of(state: TrainState) -> dict:
    """The model's variables: {"params": ..., and the collections of model_state}."""
    return {"params": state.params, **state.model_state}


def train_step(
    config: Config, table: Table, hparams: HParams, state: TrainState, index: jax.Array, step: jax.Array
) -> tuple[TrainState, Counts]:
    """One update on the examples `index` i32[B]; `step` i32[] counts updates since the start of the run.

    Where the batch is split over devices (models/split_batch.py), each computes its part of it, and all make
    the same update.

    A mixture counts as right where the answer is the label of the example it belongs to, whatever its share.
    """
    if config.generator is not None:
        state, images = generator.next_images(config, table, hparams, state, step)
        mixup_lambda = None
    else:
        images = batch_images(config, table, state.key, index, step)
        images, mixup_lambda = augment_and_scale(config, state.key, images, step)
    rows = cached_rows(table, state.key, index, step)
    images, index, rows = local_part((images, index, rows))
    batch = make_batch(config, table, hparams, images, index, rows)
    batch = ablate_teacher_logits(batch, hparams, state.key, step)
    dropout_key = keys.at(state.key, keys.DROPOUT, step)

    apply = forward_head if config.freeze_backbone else forward
    trained = trainable_params(config, state.params, state.of_features)

    def mean_loss(trained):
        params = trained if config.feature_match is None else trained["student"]
        variables = {"params": state.params | params, **state.model_state}
        logits, features, model_state = apply(config.model, variables, images, dropout_key)
        per_example = batch_losses(config, logits, batch, hparams, mixup_lambda)
        memory = None
        if config.feature_match is not None:
            key = keys.at(state.key, keys.NEGATIVES, step)
            side = state.of_features | {"connector": trained["connector"]}
            more, memory = feature_losses(config, side, features, batch, table, hparams, index, key)
            per_example += hparams.feature_weight * more  # type: ignore[operator]
        return jnp.mean(per_example), (logits, per_example, model_state, memory)

    gradients, (logits, per_example, model_state, memory) = jax.grad(mean_loss, has_aux=True)(trained)
    gradients = mean_over_parts(gradients)
    params, opt_state = apply_gradients(
        config.optimizer, config.schedule(step), gradients, state.opt_state, trained, hparams
    )
    of_features = state.of_features
    if config.feature_match is not None:
        params, of_features = params["student"], {"connector": params["connector"], "memory": memory}
    if config.max_norm is not None:
        params = clip_columns(params, config.max_norm)
    taught = None if batch.teacher_logits is None else batch.teacher_logits[:, : config.num_classes]
    counts = count(logits[:, : config.num_classes], batch.labels, per_example, taught)
    params = state.params | params
    state = state.replace(
        params=params, model_state=model_state, opt_state=opt_state, of_features=of_features
    )
    return state, sum_over_parts(counts)


def train_epoch(
    config: Config, table: Table, hparams: HParams, state: TrainState
) -> tuple[TrainState, Counts]:
    """U updates in a fresh order of the kept examples; the counts are of the batches as they were met.

    A run that diverges stays as it was before that epoch, and its loss is nan from then on.
    """
    order_key = keys.at(state.key, keys.ORDER, state.epoch)
    shot_key = jax.random.fold_in(state.key, keys.SHOTS)
    order = run_order(order_key, shot_key, table, hparams, config.num_updates * config.batch_size)
    steps = state.epoch * config.num_updates + jnp.arange(config.num_updates, dtype=jnp.int32)

    def body(carry, inputs):
        state, counts = carry
        state, more = train_step(config, table, hparams, state, *inputs)
        return (state, jax.tree.map(jnp.add, counts, more)), None

    start = (state, zero_counts(config.num_classes))
    batches = order.reshape(config.num_updates, config.batch_size)
    (after, counts), _ = jax.lax.scan(body, start, (batches, steps))
    changing = ("params", "model_state", "opt_state", "of_features", "generator")
    diverged = state.diverged | ~all_finite([getattr(after, name) for name in changing])
    keep = lambda old, new: jnp.where(diverged, old, new)  # noqa: E731
    kept = {name: jax.tree.map(keep, getattr(state, name), getattr(after, name)) for name in changing}
    counts = counts.replace(loss_sum=jnp.where(diverged, jnp.nan, counts.loss_sum))
    return state.replace(epoch=state.epoch + 1, diverged=diverged, **kept), counts


def evaluate(
    model, variables, images: jax.Array, labels: jax.Array, num_classes: int | None = None
) -> Counts:
    """Counts in evaluation mode, of the first `num_classes` outputs, or all.  images u8[N,h,w,c], labels
    i32[N], N >= 1."""
    return count(predict(model, variables, images)[:, :num_classes], labels)


def fit(
    config: Config,
    table: Table,
    validation: Table | None,
    hparams: HParams,
    state: TrainState,
    num_epochs,
    length: int,
) -> tuple[TrainState, dict[str, Counts]]:
    """`num_epochs` epochs (i32[], traced, at most `length`), each followed by an evaluation on `validation`.

    Returns: (state, history): {"train": Counts, "validation": Counts} with a leading axis `length`, of which
        the first num_epochs entries are filled; "validation" is absent where validation is None.
    The epoch count is traced so that segments of any length share one compiled program.
    """
    table = select_teacher(config, table, hparams)

    def measure(state, train_counts):
        out = {"train": train_counts}
        if validation is not None:
            out["validation"] = evaluate(
                config.model, variables_of(state), validation.images, validation.labels, config.num_classes
            )
            if config.monitor is not None:
                variables = variables_of(state)
                out |= config.monitor(config.model, variables, validation, hparams, config.num_classes)
        return out

    def body(i, carry):
        state, history = carry
        state, counts = train_epoch(config, table, hparams, state)
        history = jax.tree.map(lambda all_, one: all_.at[i].set(one), history, measure(state, counts))
        return state, history

    shapes = jax.eval_shape(measure, state, zero_counts(config.num_classes))
    history = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), shapes)
    return jax.lax.fori_loop(jnp.int32(0), num_epochs, body, (state, history))
