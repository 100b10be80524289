"""Pictures for TensorBoard: arrays in, images in [0, 1] or 8 bits out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.types import Array, ArrayLike, Shape, Tensor

#: Least height of a single image; smaller ones are enlarged, for the eye.
_MIN_HEIGHT = 32
#: Colors for few classes and for some; more classes have a continuous scale and no legend.
_PALETTES = (("tab10", 10), ("tab20", 20))


def is_image(shape: Shape) -> bool:
    """Whether an event of this shape can be shown: `(H, W, 1)` or `(H, W, 3)`."""
    return len(shape) == 3 and shape[-1] in (1, 3)


def value_range(images: Tensor) -> tuple[float, float]:
    """The interval that the values of images fill: the usual ones where they fit."""
    low, high = float(np.min(images)), float(np.max(images))
    for usual in ((0.0, 1.0), (-1.0, 1.0)):
        if usual[0] <= low and high <= usual[1]:
            return usual
    return low, high


def tile(images: Tensor, columns: int, limits: tuple[float, float]) -> Array:
    """Lays images `(N, H, W, C)` out in rows of `columns`, as one framed float image in [0, 1]."""
    low, high = limits
    images = np.clip((np.asarray(images, "float32") - low) / (high - low), 0.0, 1.0)
    factor = max(1, -(-_MIN_HEIGHT // images.shape[1]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    rows = -(-len(images) // columns)
    images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.5)
    images = np.pad(images, ((0, rows * columns - len(images)), (0, 0), (0, 0), (0, 0)))
    _, height, width, channels = images.shape
    grid = images.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


def draw_traversals(grid: Array, dimensions: Sequence[int], values: Any) -> Array:
    """A grid whose rows are latent dimensions and whose columns are values, with its axes."""
    height, width = grid.shape[0] / len(dimensions), grid.shape[1] / len(values)
    # Cells of 0.6 inches, with room for the names.
    figure, axes = _figure(0.6 * len(values), 0.6 * len(dimensions) * height / width, left=0.6)
    axes.imshow(grid, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
    axes.set_yticks((np.arange(len(dimensions)) + 0.5) * height, [f"z[{d}]" for d in dimensions])
    axes.set_xticks((np.arange(len(values)) + 0.5) * width, [f"{value:g}" for value in values])
    axes.tick_params(length=0)
    return _rendered(figure)


def draw_means(means: Any, labels: ArrayLike = None) -> Array:
    """Posterior means `(N, D)` as points, colored by label; two principal axes where D > 2."""
    points, names = _in_two_dimensions(means)
    figure, axes = _figure(4.5, 4.3, left=0.7, right=0.8)
    if labels is None:
        axes.scatter(*points.T, s=6)
    else:
        classes, numbers = np.unique(labels, return_inverse=True)
        palette = next((p for p in _PALETTES if len(classes) <= p[1]), ("viridis", None))
        limits = {} if palette[1] is None else {"vmin": -0.5, "vmax": palette[1] - 0.5}
        drawn = axes.scatter(*points.T, c=numbers, s=6, cmap=palette[0], **limits)
        if limits:
            handles, _ = drawn.legend_elements(num=list(range(len(classes))))
            figure.legend(handles, [str(c) for c in classes], loc="upper right")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return _rendered(figure)


def _in_two_dimensions(means):
    dim = means.shape[1]
    if dim > 2:
        from sklearn.decomposition import PCA

        # All means in one place, as after a collapse, have no share of a variance to divide.
        with np.errstate(invalid="ignore", divide="ignore"):
            # The exact solver draws no random numbers.
            points = PCA(n_components=2, svd_solver="full").fit_transform(means)
        return points, ("first principal axis", "second principal axis")
    return np.pad(means, ((0, 0), (0, 2 - dim))), (
        "mean of z[0]",
        "mean of z[1]" if dim > 1 else "",
    )


def _figure(width, height, left, right=0.1, bottom=0.5, top=0.1):
    # Not by pyplot, whose figures and backend are the user's.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Margins in inches: a layout that finds them takes as long as the drawing.
    total = (left + width + right, bottom + height + top)
    figure = Figure(figsize=total, dpi=100)
    FigureCanvasAgg(figure)
    box = (left / total[0], bottom / total[1], width / total[0], height / total[1])
    return figure, figure.add_axes(box)


def _rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
