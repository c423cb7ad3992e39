"""What an update sees of the data: the images of a batch, its targets, and its losses."""

from functools import partial

import jax
import jax.numpy as jnp

from kd_jax import losses
from kd_jax.losses import teacher_ablations
from kd_jax.models import forward, scale_pixels
from kd_jax.train import keys
from kd_jax.train.augment import flips, mix, mixup_lambdas, mixup_partner
from kd_jax.train.config import Config
from kd_jax.types import Batch, HParams, Table


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


def make_batch(
    config: Config,
    table: Table,
    hparams: HParams,
    images: jax.Array,
    index: jax.Array,
    rows: jax.Array | None = None,
) -> Batch:
    """Labels and targets of the examples `index` i32[B]. `images` f32[B,h,w,c] are these examples as the
    student sees them, and so as a queried teacher sees them in evaluation mode. `table`: of
    `select_teacher`. `rows`: of `cached_rows`, where the cached logits are not those of `index`."""
    labels = table.labels[index]
    logits, features = _teacher_answers(config, table, hparams, images, index if rows is None else rows)
    if logits is None:
        return Batch(labels)
    if not config.has_labels:
        labels = jnp.argmax(logits[:, : config.num_classes], axis=-1).astype(labels.dtype)
    return Batch(labels, logits, features)


def cached_rows(table: Table, key: jax.Array, index: jax.Array, step: jax.Array) -> jax.Array:
    """The rows i32[B] of the cached teacher logits for the examples `index` of a whole batch.

    Where the logits of the mirror images are cached too, as `augment.RandomFlip` alone allows it, those of
    the images that it mirrors at this step are in the second half of the rows.  key: the run's own.
    """
    num = len(table.labels)
    if table.teacher_logits is None or table.teacher_logits[0].shape[1] == num:
        return index
    mirrored = flips(keys.at(key, keys.AUGMENT, step), len(index))
    return jnp.where(mirrored, index + num, index)


def _teacher_answers(
    config: Config, table: Table, hparams: HParams, images: jax.Array, index: jax.Array
) -> tuple[jax.Array | None, tuple[jax.Array, ...] | None]:
    """What the run's teachers say of these examples: logits f32[B,K], and the layers [B,...] that a feature
    loss reads; None where there is none."""
    match, features = config.feature_match, None
    if table.teacher_variables is not None:
        layers = () if match is None else match.teacher_layers

        def answer(model, one):
            logits, features, _ = forward(model, one, images)
            return logits, tuple(features[layer] for layer in layers)

        answers = [
            jax.lax.map(partial(answer, model), variables)
            for model, variables in zip(config.teacher_models, table.teacher_variables, strict=True)
        ]
        logits = [one for one, _ in answers]
        features = None if match is None else tuple(layer[0] for layer in answers[0][1])
    elif table.teacher_logits is None:
        return None, None
    elif config.average_teachers:
        logits = [cached[:, index] for cached in table.teacher_logits]
    else:
        logits = [cached[hparams.teacher, index][None] for cached in table.teacher_logits]
        if table.teacher_features is not None:
            features = tuple(cached[hparams.teacher, index] for cached in table.teacher_features)
    return losses.combine_teachers(logits, hparams.temperature, config.loss_fn), features


def augment_and_scale(
    config: Config, key: jax.Array, images: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """The batch u8[B,h,w,c] as the student sees it at this step, and each example's share of its image.

    key: the run's own.  Returns: (f32[B,h,w,c], f32[B]), mixup_lambda None where nothing is mixed.
    """
    if config.augment is not None:
        images = config.augment(keys.at(key, keys.AUGMENT, step), images)
    images = scale_pixels(images)
    if config.mixup is None:
        return images, None
    mixup_key = keys.at(key, keys.MIXUP, step)
    mixup_lambda = mixup_lambdas(mixup_key, images.shape[0], config.mixup)
    return mix(mixup_lambda, images), mixup_lambda


def batch_losses(
    config: Config, logits: jax.Array, batch: Batch, hparams: HParams, mixup_lambda: jax.Array | None
) -> jax.Array:
    """Each example's loss f32[B]; of a mixture, the losses against both its parts by their shares, which is
    the loss against the mixed label for any loss that is linear in it.  mixup_lambda: f32[B] or None.

    A queried teacher has answered for the mixture, so its answer is in both; cached logits are mixed as the
    labels are.
    """
    logits, batch = mask_logits(logits, batch, hparams)
    loss = config.loss_fn(logits, batch, hparams)
    if mixup_lambda is None:
        return loss
    other = jax.tree.map(mixup_partner, batch)
    if config.teacher_models:
        other = other.replace(teacher_logits=batch.teacher_logits)
    return mixup_lambda * loss + (1 - mixup_lambda) * config.loss_fn(logits, other, hparams)


def ablate_teacher_logits(batch: Batch, hparams: HParams, key: jax.Array, step: jax.Array) -> Batch:
    """The batch with the run's ablation applied to its teacher logits.  key: the run's own."""
    if hparams.teacher_ablation is None or batch.teacher_logits is None:
        return batch
    signal_key = keys.at(key, keys.ABLATION, step)
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
    noise_key = keys.at(key, keys.NOISE, number)
    return config.noise(noise_key, (config.batch_size, *config.image_shape))
