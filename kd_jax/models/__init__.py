"""Model families by spec string. Only this package knows that the networks are Flax Linen modules.

A family is a function (spec, words, num_classes, **options) -> module: words are those of the spec after the
family's name, options are dropout and dtype. A module maps (images f32[B,h,w,c], train) to (logits f32[B,K],
features: dict of named activations). The classifier is the dense layer "logits"; what it
sees is the last of the features, flattened.
"""

import functools
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from kd_jax.errors import InputError, nearest_name
from kd_jax.models.cnn import cnn
from kd_jax.models.layers import dropout_units
from kd_jax.models.lenet import NAMED as LENETS
from kd_jax.models.lenet import lenet
from kd_jax.models.mlp import MLP, mlp
from kd_jax.models.normalization import Normalize, Normalized
from kd_jax.models.resnet import NAMED as RESNETS
from kd_jax.models.resnet import resnet
from kd_jax.models.shufflenet import NAMED as SHUFFLENETS
from kd_jax.models.shufflenet import shufflenet
from kd_jax.models.split_batch import join_parts, local_part, num_parts
from kd_jax.models.vgg import NAMED as VGGS
from kd_jax.models.vgg import vgg
from kd_jax.models.wrn import wrn
from kd_jax.types import Variables

MODELS = {
    "mlp": mlp,
    "cnn": cnn,
    "lenet": lenet,
    "resnet": resnet,
    "wrn": wrn,
    "vgg": vgg,
    "shufflenet": shufflenet,
}

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build(
    spec: str,
    num_classes: int,
    *,
    input_dropout: float = 0.0,
    dropout: float = 0.0,
    precision: str = "float32",
    normalize: Normalize | None = None,
    initial: str = "he",
) -> nn.Module:
    """The module that a spec such as "mlp-800-800" names.

    Args:
        num_classes: K, the number of logits.
        input_dropout, dropout: probabilities of dropping an input (fully connected networks only) and a
            hidden unit, in [0, 1).
        precision: of the matrix products (float32 under JAX's default precision: TF32 on recent NVIDIA GPUs);
            parameters, logits and losses are always float32.
        normalize: (mean, std), a number a channel (as lists, where they come from JSON); None: images as they
            are, in [0, 1].
        initial: of the weights of fully connected networks, a name of `mlp.INITS`; others have their papers'.
    Errors: InputError for an unknown family or a malformed spec.
    """
    family, *words = spec.split("-")
    if family not in MODELS:
        expected = f"one of {', '.join(MODELS)}, with its sizes, as in mlp-800-800"
        raise InputError("unknown model", expected, spec + _hint(spec))
    options = {"dropout": dropout, "dtype": PRECISIONS[precision]}
    if family == "mlp":
        options |= {"input_dropout": input_dropout, "initial": initial}
    elif input_dropout:
        raise InputError("dropout of inputs is of fully connected networks", "0 for pictures", input_dropout)
    network = MODELS[family](spec, words, num_classes, **options)
    return network if normalize is None else Normalized(network, *map(tuple, normalize))


def _hint(spec: str) -> str:
    """The nearest network of a fixed size, or the same sizes of the nearest family; else that family."""
    family, *words = re.split("[-_ ]", spec)
    free = [known for known in ("mlp", "cnn", "wrn") if nearest_name(family, [known])]
    sized = ["-".join([known, *words]) for known in free if words]
    return nearest_name(spec, (*LENETS, *RESNETS, *SHUFFLENETS, *VGGS, *sized)) or nearest_name(
        family, MODELS
    )


def network_of(model: nn.Module) -> nn.Module:
    """The family's module, without the normalisation around it."""
    return model.network if isinstance(model, Normalized) else model


def init_variables(model: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]) -> Variables:
    """Fresh variables, {"params": ..., where it has state "batch_stats": ...}, f32, for images of shape
    (h, w, c). The key is consumed."""
    return dict(model.init(key, jnp.zeros((1, *image_shape), jnp.float32), train=False))


def forward(model: nn.Module, variables: Variables, images: jax.Array, dropout_key: jax.Array | None = None):
    """Applies the model: in training mode where a dropout key is given, else in evaluation mode.

    Args: images: f32[B,h,w,c], scaled to [0, 1]; dropout_key: consumed.
    Returns: (logits f32[B,K], features, model_state), the last one updated in training mode only.
    """
    model_state = {name: tree for name, tree in variables.items() if name != "params"}
    if dropout_key is None:
        logits, features = model.apply(variables, images, train=False)
        return logits, features, model_state
    (logits, features), changed = model.apply(
        variables, images, train=True, rngs={"dropout": dropout_key}, mutable=list(model_state)
    )
    return logits, features, dict(changed)


@functools.cache
def layer_shapes(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """The model's features in their order: name -> shape for one image, [1,...]; the classifier sees the
    last. Empty for a classifier on the pixels. Nothing is computed.  image_shape: (h, w, c)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def trace(key):
        images = jnp.zeros((1, *image_shape), jnp.float32)
        features = forward(model, init_variables(model, key, image_shape), images)[1]
        shapes.update({name: x.shape for name, x in features.items()})
        return key  # not the features: JAX sorts the keys of what a traced function returns

    jax.eval_shape(trace, jax.random.key(0))
    return shapes


def hidden_layers(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """The names of `layer_shapes`."""
    return tuple(layer_shapes(model, image_shape))


def _last_hidden(model: nn.Module, features: dict[str, jax.Array]) -> jax.Array:
    """What the classifier sees, not yet flattened. Errors: InputError where that is the image itself."""
    if not features:
        given = f"{type(network_of(model)).__name__} without one"
        raise InputError("a hidden layer is needed", "a network that has one, as mlp-64", given)
    return list(features.values())[-1]


def forward_head(model: nn.Module, variables: Variables, images: jax.Array, dropout_key: jax.Array):
    """`forward` with the classifier alone in training mode: what comes before it is in evaluation mode, its
    batch statistics stay, and the model's dropout drops the classifier's input.

    images: f32[B,h,w,c]; dropout_key: consumed.  Errors: InputError where the model has no hidden layer.
    """
    _, features, model_state = forward(model, variables, images)
    x = _last_hidden(model, features).reshape(images.shape[0], -1)
    network = network_of(model)
    x = dropout_units(dropout_key, x, network.dropout) if network.dropout else x
    dense = nn.Dense(network.num_classes, dtype=network.dtype)
    logits = jnp.asarray(dense.apply({"params": variables["params"]["logits"]}, x), jnp.float32)
    return logits, features, model_state


def predict(
    model: nn.Module, variables: Variables, images: jax.Array, batch_size: int | None = None
) -> jax.Array:
    """Logits in evaluation mode for any number of images, in padded batches: none dropped, none twice.

    images: u8[N,h,w,c].  Returns: f32[N,K].
    """

    def logits_of(batch):
        return forward(model, variables, scale_pixels(batch))[0]

    return _in_batches(logits_of, model, images, batch_size)


def as_vectors(features: jax.Array) -> jax.Array:
    """[B,...,c] -> f32[B,D]: flattened, as the classifier sees them; of a map of more than 2,048 numbers the
    mean over places."""
    features = features.astype(jnp.float32)
    flat = features.reshape(features.shape[0], -1)
    return flat if flat.shape[1] <= 2048 else jnp.mean(features, axis=tuple(range(1, features.ndim - 1)))


def predict_features(
    model: nn.Module, variables: Variables, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`predict`, and beside the logits f32[N,K] the last of the features, `as_vectors` f32[N,D].

    Errors: InputError where the model has no hidden layer.
    """

    def both(batch):
        logits, features, _ = forward(model, variables, scale_pixels(batch))
        return logits, as_vectors(_last_hidden(model, features))

    return _in_batches(both, model, images, None)


def predict_layers(
    model: nn.Module, variables: Variables, images: jax.Array, layers: tuple[str, ...]
) -> tuple[jax.Array, ...]:
    """The named features, flattened, in evaluation mode.  images: u8[N,h,w,c] -> f32[N,D] of each."""

    def chosen(batch):
        features = forward(model, variables, scale_pixels(batch))[1]
        return tuple(features[layer].astype(jnp.float32) for layer in layers)

    return _in_batches(chosen, model, images, None)


def _in_batches(function, model: nn.Module, images: jax.Array, batch_size: int | None):
    """`function` of all images u8[N,h,w,c], a padded batch at a time; its arrays' first axis is a batch's.
    Where a run's batches are split over devices, each of these takes its share of the padded batches."""
    num = images.shape[0]
    if batch_size is None:  # a convolution's activations are many times its input
        pixels = images.shape[1] * images.shape[2]
        batch_size = 1000 if is_dense(model) else min(100, max(8, 2**19 // pixels))
    batch_size = min(batch_size, -(-num // num_parts()))
    padding = -num % (batch_size * num_parts())
    index = jnp.arange(num + padding, dtype=jnp.int32).reshape(-1, batch_size) % num

    stacked = join_parts(jax.lax.map(lambda rows: function(images[rows]), local_part(index)))
    return jax.tree.map(lambda x: x.reshape(num + padding, -1)[:num], stacked)


def is_dense(model: nn.Module) -> bool:
    """Whether the network is fully connected."""
    return isinstance(network_of(model), MLP)


def scale_pixels(images: jax.Array) -> jax.Array:
    """u8 -> f32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


@partial(jax.jit, static_argnums=0)
def predict_stacked(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """Logits of M models of one structure, one after another.  variables: leading axis M -> f32[M,N,K]."""
    return jax.lax.map(lambda one: predict(model, one, images), variables)
