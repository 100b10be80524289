"""DataFrames, and whatever else has `to_numpy`, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any


def unframed(value: Any) -> Any:
    """Returns the array of a DataFrame or Series; anything else as it is.

    Columns of numbers and booleans are numbers together, where `to_numpy` alone has objects of
    them: of a boolean column beside others, and of pandas' own dtypes such as `Int64`, whose
    missing values are NaN here.

    Args:
        value: Anything.
    """
    if not hasattr(value, "to_numpy"):
        return value
    array = value.to_numpy()
    if array.dtype != object:
        return array
    dtypes = getattr(value, "dtypes", ())
    dtypes = list(dtypes) if hasattr(dtypes, "__iter__") else [dtypes]
    if not dtypes or any(getattr(dtype, "kind", None) not in tuple("biuf") for dtype in dtypes):
        return array
    if np.any(value.isna().to_numpy()):
        return value.to_numpy(dtype="float64", na_value=np.nan)
    plain = (getattr(d, "numpy_dtype", getattr(d, "subtype", d)) for d in dtypes)
    return value.to_numpy(dtype=np.result_type(*plain))
