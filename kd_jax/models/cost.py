"""What a model costs: parameters, bytes, floating point operations. Counted, so the same on every device; how
long it takes is measured in experiments/compression.py.

Operations are those of matrix products and convolutions, two a multiply-add (many papers count one).
Left out: additions of biases, activations, normalisations and pooling, about a hundredth of a network's work.
A multiplication with padding counts as one. A convolution of kd_jax/models/conv.py counts what its definition
has, however it is computed: its matrix products multiply some more padding, and none is in a depthwise one.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, jaxprs_in_params

from kd_jax.models import forward
from kd_jax.types import Variables

CONVOLUTION = "convolve"  # as the call of conv.convolve is named in a jaxpr


def num_parameters(variables: Variables) -> int:
    """Trained numbers of one model: its batch statistics are not among them."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def num_bytes(variables: Variables) -> int:
    """Of one model's arrays as a checkpoint holds them, float32, batch statistics included."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables))


def forward_flops(model: Any, variables: Variables, image_shape: tuple[int, int, int]) -> int:
    """Of the forward pass, in evaluation mode, of one image of shape (h, w, c).

    variables: one model's, as arrays or as jax.ShapeDtypeStruct.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return count_flops(jax.make_jaxpr(partial(forward, model))(variables, image).jaxpr)


def count_flops(jaxpr: Jaxpr) -> int:
    """Of the products anywhere in a jaxpr: those in a loop as often as it runs, of branches the dearest.

    Errors: ValueError for products in a loop whose number of turns is only known when it runs.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        arrays: list[Any] = [value.aval for value in (*equation.invars, *equation.outvars)]
        if parameters.get("name") == CONVOLUTION and len(arrays) == 3:  # not its gradients
            _, kernel, out = arrays
            total += 2 * math.prod(out.shape) * math.prod(kernel.shape[-4:-1])
            continue
        if name in _PRODUCTS:
            shapes = [array.shape for array in arrays]
            total += 2 * _PRODUCTS[name](*shapes, parameters["dimension_numbers"])
            continue
        inner = [count_flops(part) for part in jaxprs_in_params(parameters)]
        if name == "while" and any(inner):
            raise ValueError("a loop of unknown length holds matrix products: their number is not known")
        total += max(inner, default=0) if name == "cond" else parameters.get("length", 1) * sum(inner)
    return total


def _dot(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...], dimensions: Any) -> int:
    """Multiply-adds of dot_general: each output is a sum over the contracted axes."""
    (contracted, _), _ = dimensions
    return math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution(
    image: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...], dimensions: Any
) -> int:
    """Multiply-adds of conv_general_dilated: each output is a sum over a window and the channels of its
    group, which is what the kernel holds for one output channel."""
    return math.prod(out) * math.prod(kernel) // kernel[dimensions.rhs_spec[0]]


_PRODUCTS: dict[str, Callable[..., int]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
}
