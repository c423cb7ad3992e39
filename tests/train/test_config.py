"""Config is equal by value: configurations that are built apart share one trace and one compiled program."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kd_jax import losses, models
from kd_jax.models import MODELS
from kd_jax.train import augment, loop, make_config, noise, optim, sweep
from kd_jax.types import Table

SHAPE = (8, 4, 4, 3)
IMAGES = jnp.zeros(SHAPE, jnp.uint8)
# Each makes its value anew.
AUGMENTATIONS = {
    "translate": lambda: augment.RandomTranslate(1),
    "affine": lambda: augment.RandomAffine(1, 10.0, 0.1),
    "flip": lambda: augment.RandomFlip(),
    "cutout": lambda: augment.Cutout(2, (1, 2, 3)),
    "chain": lambda: augment.Chain((augment.RandomFlip(), augment.RandomTranslate(1))),
}
OTHERS = [augment.RandomTranslate(2), augment.RandomAffine(1, 10.0, 0.2), augment.Cutout(2, (1, 2, 4))]
OTHERS += [augment.Chain((augment.RandomTranslate(1), augment.RandomFlip())), None]
SPECS = ["mlp-4", "cnn-4-6-bn", "resnet-8", "wrn-10-1", "vgg-8-bn", "shufflenet-x0.5-cifar", "lenet-5"]


def build(spec="mlp-4", schedule="cosine", augmentation="chain", optimizer="adam", num_epochs=3, **options):
    model = models.build(spec, 3, dropout=0.1, normalize=([0.5] * 3, [0.2] * 3))
    return make_config(
        model,
        SHAPE,
        options.pop("loss_fn", losses.soft_loss),
        num_epochs,
        batch_size=4,
        optimizer=optim.OPTIMIZERS[optimizer],
        schedule=optim.SCHEDULES[schedule],
        augment=AUGMENTATIONS[augmentation](),
        teacher_models=(models.build(spec, 3),),
        **options,
    )


def same(one, other) -> bool:
    return one == other and hash(one) == hash(other)


@pytest.mark.parametrize("schedule", optim.SCHEDULES)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_equal_configurations_share_one_trace(schedule, augmentation):
    chex.clear_trace_counter()

    @partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def program(config, key, step):
        return config.schedule(step), config.augment(key, IMAGES)

    with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote
        for seed in range(2):
            config = build(schedule=schedule, augmentation=augmentation)
            assert same(config, build(schedule=schedule, augmentation=augmentation))
            program.trace(config, jax.random.key(seed), jnp.int32(seed))


def test_every_augmentation_and_schedule_is_a_frozen_dataclass_and_compared():
    classes = [one for one in vars(augment).values() if dataclasses.is_dataclass(one)]
    assert {type(make()) for make in AUGMENTATIONS.values()} == set(classes)
    for one in (*classes, *optim.SCHEDULES.values(), optim.Optimizer):
        assert one.__dataclass_params__.frozen and one.__dataclass_params__.eq


@pytest.mark.parametrize("spec", SPECS)
def test_networks_that_are_built_apart_are_one(spec):
    assert {one.split("-")[0] for one in SPECS} == set(MODELS)
    assert same(build(spec), build(spec)) and (build(spec) == build()) == (spec == "mlp-4")


def test_what_differs_in_a_number_is_another_configuration():
    known = [build(augmentation=name) for name in AUGMENTATIONS]
    known += [dataclasses.replace(known[0], augment=other) for other in OTHERS]
    known += [build(schedule=name) for name in ("constant", "warmup_cosine", "steps")]
    known += [build(schedule=name, num_epochs=4) for name in ("cosine", "warmup_cosine", "steps")]
    known += [build(optimizer=name) for name in ("adamw", "sgd")]
    known += [build(loss_fn=losses.LOSSES["logits"]), build(mixup=1.0), build(average_teachers=True)]
    known += [build(noise=one) for one in noise.NOISES.values()]
    assert len(set(known)) == len(known)
    assert build(schedule="constant", num_epochs=4) == build(schedule="constant")  # it is the same program


def test_optimisers_are_equal_by_what_makes_them():
    for name, one in optim.OPTIMIZERS.items():
        again = optim.Optimizer(one.transformation, one.decoupled, tuple(dict(one.options).items()))
        assert same(one, again), name
    assert len(set(optim.OPTIMIZERS.values())) == len(optim.OPTIMIZERS)


def test_a_second_training_of_an_equal_configuration_compiles_nothing():
    """`fit_runs` as a library's user calls it, twice."""
    labels = np.arange(8, dtype=np.int32) % 3
    table = Table(np.zeros(SHAPE, np.uint8), labels)
    settings, before = [sweep.make_hparams(3)], None
    with jax.numpy_dtype_promotion("standard"):
        for seed in range(2):
            model = models.build("mlp-4", 3)
            config = make_config(
                model, SHAPE, losses.labels_loss, 2, batch_size=4, augment=augment.RandomTranslate(1)
            )
            loop.fit_runs(config, table, settings, [seed], 2, base=0)
            programs = loop._segment._cache_size(), sweep._init_all._cache_size()
            assert before in (None, programs)
            before = programs
