"""A generator that is trained with its student: images for distillation without any data.

    adversarial   the generator looks for images on which student and teacher differ: it maximises
                  KL(teacher || student), once for every 10 updates of the student on the images of the same
                  latent vectors (Micaelli & Storkey 2019, algorithm 1; without their attention loss)
    dafl          the generator looks for images that a teacher would know: CE with the teacher's own answer,
                  less `activation` times the mean size of the teacher's last features, plus `entropy` times
                  the sum of p log10 p over the batch's mean probabilities p; before each update of the
                  student (Chen et al. 2019, equation 8 and its code)

Each run has a generator of its own, in its state. Its numbers are traced.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from kd_jax.losses import cross_entropy
from kd_jax.models import forward
from kd_jax.models.generator import Generator, generate, init_generator
from kd_jax.train import keys
from kd_jax.types import GeneratorHParams, HParams, Table, TrainState

if TYPE_CHECKING:
    from kd_jax.train.config import Config

LATENT_SIZE = 100  # as in both papers


class Answers(flax.struct.PyTreeNode):
    """Of a batch of generated images: logits of student and teacher f32[B,K], and the teacher's last
    features."""

    student: jax.Array
    teacher: jax.Array
    features: jax.Array


Objective = Callable[[Answers, GeneratorHParams], jax.Array]
"""What a generator minimises, f32[]. Gradients flow through both networks."""


class GeneratorState(flax.struct.PyTreeNode):
    """Of one run: parameters, and the state of Adam."""

    params: Any
    opt_state: Any


def adversarial_loss(answers: Answers, hparams: GeneratorHParams) -> jax.Array:
    """-KL(teacher || student) at T = 1, the mean over images (Micaelli & Storkey 2019, section 3.1)."""
    teacher, student = jax.nn.log_softmax(answers.teacher), jax.nn.log_softmax(answers.student)
    return -jnp.mean(jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1))


def dafl_loss(answers: Answers, hparams: GeneratorHParams) -> jax.Array:
    """One-hot, activation and information-entropy loss (Chen et al. 2019, equations 5 to 8; the logarithm to
    base 10 and the mean over features as in their code)."""
    one_hot = jnp.mean(cross_entropy(answers.teacher, jnp.argmax(answers.teacher, axis=-1)))
    mean = jnp.mean(jax.nn.softmax(answers.teacher), axis=0)
    entropy = jnp.sum(mean * jnp.log10(jnp.maximum(mean, 1e-12)))
    return one_hot - hparams.activation * jnp.mean(jnp.abs(answers.features)) + hparams.entropy * entropy


OBJECTIVES: dict[str, tuple[Objective, int]] = {"adversarial": (adversarial_loss, 10), "dafl": (dafl_loss, 1)}
"""Name -> the objective, and the student's updates for each of the generator's."""


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """objective: what the generator minimises. interval: the student's updates for each of its own. width: of
    the network."""

    objective: Objective
    interval: int
    width: int = 32


def init(config: "Config", key: jax.Array) -> GeneratorState | None:
    """Of a fresh run; None of a run without a generator.  key: the run's own."""
    if config.generator is None:
        return None
    params = init_generator(_network(config), jax.random.fold_in(key, keys.GENERATOR), LATENT_SIZE)
    return GeneratorState(params, optax.scale_by_adam().init(params))


def next_images(
    config: "Config", table: Table, hparams: HParams, state: TrainState, step: jax.Array
) -> tuple[TrainState, jax.Array]:
    """(the state with the generator as it is at this step, the student's images f32[B,h,w,c] in [0, 1]).

    table: of `select_teacher`, with one teacher.  step: i32[], counts the student's updates.
    """
    chosen = _chosen(config)
    latent_key = keys.at(state.key, keys.LATENT, step // chosen.interval)
    latents = jax.random.normal(latent_key, (config.batch_size, LATENT_SIZE), jnp.float32)
    updated = jax.lax.cond(
        step % chosen.interval == 0,
        lambda: update(config, table, hparams, state, latents, step),
        lambda: state.generator,
    )
    images = generate(_network(config), updated.params, latents)
    return state.replace(generator=updated), jax.lax.stop_gradient(images)


def update(
    config: "Config", table: Table, hparams: HParams, state: TrainState, latents: jax.Array, step: jax.Array
) -> GeneratorState:
    """The generator after one update, at the rate that the student's schedule gives."""
    if table.teacher_variables is None or hparams.generator is None:
        raise ValueError("a generator needs a teacher to query and HParams.generator")
    numbers, objective = hparams.generator, _chosen(config).objective
    variables = jax.tree.map(lambda leaf: leaf[0], table.teacher_variables[0])
    student = {"params": state.params, **state.model_state}

    def loss(params):
        images = generate(_network(config), params, latents)
        logits, features, _ = forward(config.teacher_models[0], variables, images)
        last = list(features.values())[-1] if features else logits
        answers = Answers(forward(config.model, student, images)[0], logits, last)
        return objective(answers, numbers)

    before = state.generator
    direction, opt_state = optax.scale_by_adam().update(jax.grad(loss)(before.params), before.opt_state)
    rate = config.schedule(step) * numbers.learning_rate
    return GeneratorState(jax.tree.map(lambda p, d: p - rate * d, before.params, direction), opt_state)


def _network(config: "Config") -> Generator:
    return Generator(config.image_shape, _chosen(config).width)


def _chosen(config: "Config") -> GeneratorConfig:
    if config.generator is None:
        raise ValueError("a configuration without a generator")
    return config.generator
