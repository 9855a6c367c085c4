"""Rank methods on chosen inputs by deletion and insertion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def ranking(areas: Mapping[str | None, np.ndarray]) -> list[dict[str, Any]]:
    """Rows {"method", "count", "deletion", "insertion", "difference"}, best first, from areas [maps, 2] (deletion, insertion) of each method.

    Each of the three is [mean, standard error of the mean], the error None for one map; None where a method has no map. Best is the
    largest mean of insertion − deletion: pixels that matter make the score rise early and fall early. Maps whose areas are not
    defined (NaN) do not count. Source of the two measures: Petsiuk et al. 2018.
    """
    rows = []
    for method, given in areas.items():
        known = np.asarray(given, dtype=np.float64).reshape(-1, 2)
        known = known[np.isfinite(known).all(axis=1)]
        rows.append(
            {
                "method": method,
                "count": len(known),
                "deletion": _mean(known[:, 0]),
                "insertion": _mean(known[:, 1]),
                "difference": _mean(known[:, 1] - known[:, 0]),
            }
        )
    return sorted(rows, key=lambda row: -row["difference"][0] if row["difference"] else np.inf)


def _mean(values: np.ndarray) -> list[float | None] | None:
    if not len(values):
        return None
    return [float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None]
