"""One run as pure functions: train_step -> train_epoch (scan over U) -> fit (loop over E).

Each is `(carry, input) -> (carry, output)` on arrays; what is static is gathered in a frozen `Config`
(config.py). Nothing here knows that runs are mapped.
"""

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from kd_jax import losses
from kd_jax.losses import teacher_ablations
from kd_jax.models import forward, forward_head, init_variables, predict, scale_pixels
from kd_jax.train.augment import mix, mixup_lambdas, mixup_partner
from kd_jax.train.config import Config
from kd_jax.train.counts import add_counts, all_finite, count, zero_counts
from kd_jax.train.optim import apply_gradients, clip_columns
from kd_jax.train.sampling import epoch_order, example_mask, shot_mask
from kd_jax.types import Batch, Counts, HParams, Table, TrainState, Variables

INIT, ORDER, DROPOUT, AUGMENT, MIXUP, NOISE, SHOTS, ABLATION, PERTURB, MIXTURES = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    100,
)
"""Purposes folded into a run's key: all that there are, so that no two draw the same numbers."""


def init_state(config: Config, key: jax.Array, given: Variables | None = None) -> TrainState:
    """A run's state before its first epoch. key: the run's own typed key, kept in the state.

    given: variables, any part of their tree, with which the run starts instead of its own draws.
    """
    variables = dict(init_variables(config.model, jax.random.fold_in(key, INIT), config.image_shape))
    if given is not None:
        variables = unflatten_dict(flatten_dict(variables) | flatten_dict(given))
    params = variables.pop("params")
    opt_state = config.optimizer.direction.init(trainable_params(config, params))
    return TrainState(params, variables, opt_state, key, jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def trainable_params(config: Config, params: dict) -> dict:
    """The parameters that gradients, weight decay and the optimiser's state are of."""
    return {"logits": params["logits"]} if config.freeze_backbone else params


def variables_of(state: TrainState) -> dict:
    """The model's variables: {"params": ..., and the collections of model_state}."""
    return {"params": state.params, **state.model_state}


def select_teacher(config: Config, table: Table, hparams: HParams) -> Table:
    """The table with the variables of this run's teacher of each group alone, leading axis 1, unless all
    teachers are averaged.

    Done once a run: inside the step it would copy the weights at every update. Cached logits stay as they
    are, one copy for all runs.
    """
    if table.teacher_variables is None or config.average_teachers:
        return table

    def pick(leaf):
        # A lone teacher stays one copy for all runs, vmapped ones too.
        return leaf if len(leaf) == 1 else jax.lax.dynamic_index_in_dim(leaf, hparams.teacher)

    return table.replace(teacher_variables=jax.tree.map(pick, table.teacher_variables))


def make_batch(config: Config, table: Table, hparams: HParams, images: jax.Array, index: jax.Array) -> Batch:
    """Labels and targets of the examples `index` i32[B]. `images` f32[B,h,w,c] are these examples as the
    student sees them, and so as a queried teacher sees them in evaluation mode. `table`: of
    `select_teacher`."""
    labels = table.labels[index]
    logits = _teacher_logits(config, table, hparams, images, index)
    if logits is None:
        return Batch(labels)
    if not config.has_labels:
        labels = jnp.argmax(logits[:, : config.num_classes], axis=-1).astype(labels.dtype)
    return Batch(labels, logits)


def _teacher_logits(
    config: Config, table: Table, hparams: HParams, images: jax.Array, index: jax.Array
) -> jax.Array | None:
    """What the run's teachers say of these examples, f32[B,K]; None where there is none."""
    if table.teacher_variables is not None:
        logits = [
            jax.lax.map(lambda one, model=model: forward(model, one, images)[0], variables)
            for model, variables in zip(config.teacher_models, table.teacher_variables, strict=True)
        ]
    elif table.teacher_logits is None:
        return None
    elif config.average_teachers:
        logits = [cached[:, index] for cached in table.teacher_logits]
    else:
        logits = [cached[hparams.teacher, index][None] for cached in table.teacher_logits]
    return losses.combine_teachers(logits, hparams.temperature, config.loss_fn)


def augment_and_scale(
    config: Config, key: jax.Array, images: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """The batch u8[B,h,w,c] as the student sees it at this step, and each example's share of its image.

    key: the run's own.  Returns: (f32[B,h,w,c], f32[B]), shares None where nothing is mixed.
    """
    if config.augment is not None:
        images = config.augment(jax.random.fold_in(jax.random.fold_in(key, AUGMENT), step), images)
    images = scale_pixels(images)
    if config.mixup is None:
        return images, None
    mixup_key = jax.random.fold_in(jax.random.fold_in(key, MIXUP), step)
    shares = mixup_lambdas(mixup_key, images.shape[0], config.mixup)
    return mix(shares, images), shares


def batch_losses(
    config: Config, logits: jax.Array, batch: Batch, hparams: HParams, shares: jax.Array | None
) -> jax.Array:
    """Each example's loss f32[B]; of a mixture, the losses against both its parts by their shares, which is
    the loss against the mixed label for any loss that is linear in it.

    A queried teacher has answered for the mixture, so its answer is in both; cached logits are mixed as the
    labels are.
    """
    logits, batch = mask_logits(logits, batch, hparams)
    own = config.loss_fn(logits, batch, hparams)
    if shares is None:
        return own
    other = jax.tree.map(mixup_partner, batch)
    if config.teacher_models:
        other = other.replace(teacher_logits=batch.teacher_logits)
    return shares * own + (1 - shares) * config.loss_fn(logits, other, hparams)


def ablate_teacher_logits(batch: Batch, hparams: HParams, key: jax.Array, step: jax.Array) -> Batch:
    """The batch with the run's ablation applied to its teacher logits.  key: the run's own."""
    if hparams.teacher_ablation is None or batch.teacher_logits is None:
        return batch
    signal_key = jax.random.fold_in(jax.random.fold_in(key, ABLATION), step)
    ablated = teacher_ablations.ablate_teacher_logits(
        hparams.teacher_ablation, signal_key, batch.teacher_logits, hparams.class_mask, hparams.temperature
    )
    return batch.replace(teacher_logits=ablated)


def mask_logits(logits: jax.Array, batch: Batch, hparams: HParams) -> tuple[jax.Array, Batch]:
    """Both networks' logits with those that the loss does not see at probability 0, so that every loss is
    that of the others alone (a label among them would cost 1e9), and no gradient reaches their weights.
    logits: f32[B,K + A] -> the same shape."""
    if hparams.logit_mask is None:
        return logits, batch
    seen = lambda x: jnp.where(hparams.logit_mask, x, teacher_ablations.NEVER)  # noqa: E731
    taught = None if batch.teacher_logits is None else seen(batch.teacher_logits)
    return seen(logits), batch.replace(teacher_logits=taught)


def batch_images(
    config: Config, table: Table, key: jax.Array, index: jax.Array, step: jax.Array
) -> jax.Array:
    """The raw batch u8[B,h,w,c]: the examples `index`, or noise.  key: the run's own."""
    if config.noise is None:
        return table.images[index]
    number = step % config.num_updates if config.repeat_noise else step
    noise_key = jax.random.fold_in(jax.random.fold_in(key, NOISE), number)
    return config.noise(noise_key, (config.batch_size, *config.image_shape))


def train_step(
    config: Config, table: Table, hparams: HParams, state: TrainState, index: jax.Array, step: jax.Array
) -> tuple[TrainState, Counts]:
    """One update on the examples `index` i32[B]; `step` i32[] counts updates since the start of the run.

    A mixture counts as right where the answer is the label of the example it belongs to, whatever its share.
    """
    images = batch_images(config, table, state.key, index, step)
    images, shares = augment_and_scale(config, state.key, images, step)
    batch = ablate_teacher_logits(make_batch(config, table, hparams, images, index), hparams, state.key, step)
    dropout_key = jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), step)

    apply = forward_head if config.freeze_backbone else forward
    trained = trainable_params(config, state.params)

    def mean_loss(params):
        variables = {"params": state.params | params, **state.model_state}
        logits, _, model_state = apply(config.model, variables, images, dropout_key)
        per_example = batch_losses(config, logits, batch, hparams, shares)
        return jnp.mean(per_example), (logits, per_example, model_state)

    gradients, (logits, per_example, model_state) = jax.grad(mean_loss, has_aux=True)(trained)
    params, opt_state = apply_gradients(
        config.optimizer, config.schedule(step), gradients, state.opt_state, trained, hparams
    )
    if config.max_norm is not None:
        params = clip_columns(params, config.max_norm)
    taught = None if batch.teacher_logits is None else batch.teacher_logits[:, : config.num_classes]
    counts = count(logits[:, : config.num_classes], batch.labels, per_example, taught)
    params = state.params | params
    return state.replace(params=params, model_state=model_state, opt_state=opt_state), counts


def train_epoch(
    config: Config, table: Table, hparams: HParams, state: TrainState
) -> tuple[TrainState, Counts]:
    """U updates in a fresh order of the kept examples; the counts are of the batches as they were met.

    A run that diverges stays as it was before that epoch, and its loss is nan from then on.
    """
    order_key = jax.random.fold_in(jax.random.fold_in(state.key, ORDER), state.epoch)
    mask = example_mask(table.labels, hparams.class_mask)
    if hparams.num_shots is not None:
        mask |= shot_mask(jax.random.fold_in(state.key, SHOTS), table.labels, hparams.num_shots)
    order = epoch_order(order_key, mask, config.num_updates * config.batch_size)
    steps = state.epoch * config.num_updates + jnp.arange(config.num_updates, dtype=jnp.int32)

    def body(carry, inputs):
        state, counts = carry
        state, more = train_step(config, table, hparams, state, *inputs)
        return (state, add_counts(counts, more)), None

    start = (state, zero_counts(config.num_classes))
    batches = order.reshape(config.num_updates, config.batch_size)
    (after, counts), _ = jax.lax.scan(body, start, (batches, steps))
    diverged = state.diverged | ~all_finite((after.params, after.model_state, after.opt_state))
    keep = lambda old, new: jnp.where(diverged, old, new)  # noqa: E731
    params, model_state, opt_state = (
        jax.tree.map(keep, getattr(state, name), getattr(after, name))
        for name in ("params", "model_state", "opt_state")
    )
    counts = counts.replace(loss_sum=jnp.where(diverged, jnp.nan, counts.loss_sum))
    return TrainState(params, model_state, opt_state, state.key, state.epoch + 1, diverged), counts


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
