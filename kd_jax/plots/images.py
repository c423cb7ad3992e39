"""Images of a dataset, side by side."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kd_jax.plots.style import PAGE, finish, panels, style

_LONGEST = 24  # characters of a class name


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]], columns: int, note: str) -> Figure:
    """A row of images for each class.

    rows: (class name, images u8[n,h,w,c], n at most `columns`; of two channels the first is shown, of four
    the first three); at least one row has an image.
    """
    height, width = next(images.shape[1:3] for _, images in rows if len(images))
    gap = max(1, width // 16)
    sheet = np.full((len(rows) * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for row, (_, images) in enumerate(rows):
        shown = images[..., :3] if images.shape[-1] > 2 else np.repeat(images[..., :1], 3, axis=-1)
        for column, image in enumerate(shown):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = image
    with style(**{"axes.grid": False}):
        inches = PAGE * sheet.shape[0] / sheet.shape[1]
        figure, grid = panels(PAGE, min(max(inches, 1.0), 30.0), 1, 1)
        axes = grid[0, 0]
        axes.imshow(sheet, interpolation="nearest")
        names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..." for name, _ in rows]
        axes.set_yticks(np.arange(len(rows)) * (height + gap) + height / 2, names)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        finish(figure, "Training images of each class", note + ".")
    return figure
