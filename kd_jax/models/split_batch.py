"""A batch that is split over devices: the sums and the order that its parts share.

Inside `jax.shard_map` over an axis named BATCH_AXIS each device holds a part of a run's batch, of equal size,
in the order of the devices. Elsewhere the batch is whole, and each function here returns what it is given.
"""

import jax

BATCH_AXIS = "batch"


def num_parts() -> int:
    """How many devices hold a part of the batch; known while a function is traced."""
    try:
        return jax.lax.axis_size(BATCH_AXIS)
    except NameError:  # no such axis here
        return 1


def sum_over_parts(tree):
    """The sum of each array over the parts, the same on all their devices."""
    return jax.lax.psum(tree, BATCH_AXIS) if num_parts() > 1 else tree


def local_part(tree):
    """This device's rows of arrays [B,...]: [B/parts,...]. B is a multiple of the number of parts."""
    parts = num_parts()
    if parts == 1:
        return tree
    index = jax.lax.axis_index(BATCH_AXIS)

    def part(x):
        size = x.shape[0] // parts
        return jax.lax.dynamic_slice_in_dim(x, index * size, size)

    return jax.tree.map(part, tree)


def join_parts(tree):
    """The rows of all parts in their order: [B/parts,...] -> [B,...], the same on all their devices."""
    if num_parts() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, BATCH_AXIS, tiled=True), tree)


def of_whole_batch(function, x: jax.Array) -> jax.Array:
    """`function(shape)` for the shape of the whole batch of which x [B/parts,...] is this device's part, and
    of it the part's rows. So random numbers are those of a batch that is not split."""
    return local_part(function((x.shape[0] * num_parts(), *x.shape[1:])))


def mean_over_parts(tree):
    """The mean of each array over the parts, the same on all their devices."""
    return jax.lax.pmean(tree, BATCH_AXIS) if num_parts() > 1 else tree
