"""What every metric takes: something computed already, or a model and data."""

import numpy as np
from keras import ops


def posterior_of(posterior, data, batch_size):
    """The posterior value given, or the one that a model encodes `data` to.

    Raises:
        ValueError: If a model comes without data, or data without a model.
    """
    if callable(getattr(posterior, "encode", None)):
        if data is None:
            raise ValueError("`data` must be given along with a model. Received: data=None")
        return posterior.encode(data, batch_size=batch_size)
    if data is not None:
        raise ValueError(
            "`data` must come with a model that encodes it. Received: "
            f"{type(posterior).__name__} and data={type(data).__name__}"
        )
    return posterior


def means_of(means, data, batch_size):
    """Posterior means, float64 `(N, D)`, of an array or of a model and data.

    Raises:
        TypeError: If there are no numbers in an array.
        ValueError: If the shape is another, or values are not finite.
    """
    source = posterior_of(means, data, batch_size)
    if source is not means:
        source = source.mean
    if not hasattr(source, "dtype"):
        raise TypeError(
            f"`means` must be an array or a model that encodes. Received: {type(source).__name__}"
        )
    array = ops.convert_to_numpy(source).astype("float64")
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(
            "`means` must have shape (N, D) with at least 2 examples. Received: "
            f"shape={array.shape}"
        )
    if not np.all(np.isfinite(array)):
        raise ValueError("`means` must be finite. Received: NaN or infinity among them")
    return array
