"""The likelihood of a test set, a part at a time: what was measured is kept beside the run."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING

import numpy as np

from ..core.conditions import num_rows, take_rows
from ..core.files import written
from ..metrics import negative_log_likelihood
from ..metrics.estimate import mean_estimate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

#: Examples of a part, a multiple of the batches of 64.
PART = 1024


def measured_in_parts(
    model: Any,
    x: Any,
    num_samples: int,
    num_images: int | None,
    file: Path,
    of: Any,
    deadline: float | None = None,
    say: Callable[[str], Any] = lambda line: None,
) -> dict[str, dict[str, Any]] | None:
    """Measures the likelihood, and the bound and its parts from the same draws.

    Args:
        model: `VAE`.
        x: Test data.
        num_samples: Importance samples.
        num_images: Examples, drawn by seed 0, or None for all.
        file: JSON file of the parts that are done.
        of: JSON value that tells what is measured; parts of something else are not taken up.
        deadline: Time of `time.monotonic` after which no part is begun, or None.
        say: Called with each line that tells how far it has come.

    Returns:
        Dict of numbers as a record has them; None if the deadline came first.
    """
    rows = num_rows(x)
    if num_images is not None and num_images < rows:
        x = take_rows(x, np.sort(np.random.default_rng(0).choice(rows, num_images, False)))
        rows = num_images
    of = json.loads(json.dumps([of, num_samples, rows, PART]))
    parts = _kept(file, of)
    for seed, start in enumerate(range(0, rows, PART)):
        if seed < len(parts):
            continue
        if parts and deadline is not None and time.monotonic() > deadline:
            return None
        some = take_rows(x, slice(start, start + PART))
        found = negative_log_likelihood(model, some, num_samples, seed=seed)
        part = {"values": np.asarray(found.per_example, "float64").round(4).tolist()}
        parts.append(part | {name: found.extra[name] for name in ("elbo", "distortion", "rate")})
        with written(file) as partial:
            partial.write_text(json.dumps({"of": of, "parts": parts}), "utf-8")
        if rows > PART:
            say(f"likelihood of {min(start + PART, rows):,} of {rows:,} examples")
    values = np.concatenate([part["values"] for part in parts])
    mean = mean_estimate(values)
    common = {"unit": "nats", "count": mean.count}
    counts = [len(part["values"]) for part in parts]
    numbers = {
        name: {
            "value": float(np.average([part[name] for part in parts], weights=counts)),
            "standard_error": math.nan,
            **common,
            "estimator": "same draws",
        }
        for name in ("elbo", "distortion", "rate")
    }
    whole = {"value": mean.value, "standard_error": mean.standard_error, **common}
    return {
        "negative_log_likelihood": {**whole, "estimator": "importance_weighted"},
        **numbers,
    }


def _kept(file, of):
    try:
        held = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return held["parts"] if held.get("of") == of else []
