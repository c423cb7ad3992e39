"""Normalisation as a part of the model: whatever calls it gives images in [0, 1], whichever numbers it wants.

So a teacher and its student may each have their own, and a checkpoint's metadata carry them.
"""

import chex
import flax.linen as nn
import numpy as np

Normalize = tuple[tuple[float, ...], tuple[float, ...]]
"""(mean, standard deviation) of each of c channels, of images in [0, 1]."""

IMAGENET: Normalize = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""What torchvision's pretrained weights were trained with (its documentation, "Models and weights")."""


class Normalized(nn.Module):
    """`network` on (images - mean) / std. Its variables are those of `network`, by the same names."""

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def setup(self):
        nn.share_scope(self, self.network)

    def __call__(self, images, train: bool):
        chex.assert_axis_dimension(images, -1, len(self.mean))  # else one channel would become three
        mean, std = (np.array(numbers, np.float32)[None, None, None, :] for numbers in (self.mean, self.std))
        return self.network((images - mean) / std, train)


def channel_statistics(images: np.ndarray) -> Normalize:
    """Of images u8[N,h,w,c], N >= 1, scaled to [0, 1]. A channel that never changes has the deviation 1.

    From the counts of the 256 grey levels, so exact but for the last roundings.
    """
    mean, std = [], []
    levels = np.arange(256) / 255
    for channel in np.moveaxis(images, -1, 0):
        counts = sum((np.bincount(image.ravel(), minlength=256) for image in channel), np.zeros(256))
        shares = counts / channel.size
        mean.append(float(shares @ levels))
        std.append(float(np.sqrt(shares @ (levels - mean[-1]) ** 2)) or 1.0)
    return tuple(mean), tuple(std)
