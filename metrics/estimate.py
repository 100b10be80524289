"""The result of every estimator: a number with its error and the way it was made."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured value.

    Attributes:
        value: Float.
        standard_error: Float, standard deviation of `value` over repetitions of the measurement;
            NaN where it is not known.
        count: Int, how many examples (or pairs, or draws) it was taken over.
        estimator: Name of the estimator.
        unit: Such as `"nats"`; empty for a plain number.
        settings: Dict of JSON values: what to repeat the measurement with.
        per_example: NumPy array with one value per example, or None.
        extra: Dict of further numbers that the same pass gave.
    """

    value: float
    standard_error: float = math.nan
    count: int = 0
    estimator: str = ""
    unit: str = ""
    settings: dict = dataclasses.field(default_factory=dict)
    per_example: Any = dataclasses.field(default=None, repr=False, compare=False)
    extra: dict = dataclasses.field(default_factory=dict)

    def __float__(self) -> float:
        return self.value

    def __int__(self) -> int:
        return int(self.value)

    def __format__(self, spec: str) -> str:
        spec = spec or ".4g"
        error = f" +- {self.standard_error:.2g}" if math.isfinite(self.standard_error) else ""
        return f"{self.value:{spec}}{error}" + (f" {self.unit}" if self.unit else "")

    def __str__(self) -> str:
        return f"{self}"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the values per example, as JSON knows it: no NaN, no infinity."""
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "per_example"
        }
        return to_json(fields)


def mean_estimate(values: Any, **fields: Any) -> Estimate:
    """The mean of independent values per example, with its standard error.

        value = mean(v),   standard_error = sd(v) / sqrt(n)

    Args:
        values: NumPy `(n,)`.
        **fields: Further fields of `Estimate`.
    """
    values = np.asarray(values, "float64")
    spread = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(
        value=float(np.mean(values)),
        standard_error=float(spread),
        count=len(values),
        per_example=values,
        **fields,
    )


def to_json(value: Any) -> Any:
    """`value` in what JSON can hold; numbers that are not finite become None."""
    if isinstance(value, Estimate):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
