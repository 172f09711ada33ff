"""Columns of a table to numbers: standardised numbers, one-hot categories.

Missing numbers (null, empty, NaN, infinite) become the column's mean, that is 0 after standardising. A category column
has one input for each of its commonest values and one more, `other`, for missing, rare and unknown ones. Values are
compared as text: true and false, whole numbers without a point, all else as it prints.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace_models.tasks.base import BadInput


@dataclass
class Moments:
    """Count, mean and sum of squared deviations, mergeable without cancellation (Chan, Golub & LeVeque 1983)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Take in one finite value (Welford 1962)."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self.squares += distance * (value - self.mean)

    @classmethod
    def merged(cls, parts: Iterable[Sequence[float]]) -> Moments:
        """The moments of all PARTS (`to_record`) together."""
        total = cls()
        for count, mean, squares in parts:
            if count:
                both = total.count + int(count)
                distance = mean - total.mean
                total.squares += squares + distance**2 * total.count * count / both
                total.mean += distance * count / both
                total.count = both
        return total

    def to_record(self) -> list[float]:
        """Plain values."""
        return [self.count, self.mean, self.squares]

    @property
    def scale(self) -> float:
        """The standard deviation; 1 where all values are alike."""
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        return deviation if deviation > 1e-12 * max(1.0, abs(self.mean)) else 1.0


def number(value: Any, column: str) -> float:
    """VALUE as a float, NaN where it is missing.

    Raises:
        BadInput: it is not a number.
    """
    if value is None or value == "" or value == b"":
        return math.nan
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"column {column!r} holds numbers; {value!r} is not one") from None
    return result if math.isfinite(result) else math.nan


def text(value: Any) -> str | None:
    """A category's VALUE as text, None where it is missing."""
    if value is None or value == "" or value == b"" or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def summarise(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> dict[str, Any]:
    """Mergeable statistics of ROWS, by column."""
    moments = {name: Moments() for name, kind in columns.items() if kind == "number"}
    values: dict[str, Counter[str]] = {name: Counter() for name, kind in columns.items() if kind != "number"}
    for row in rows:
        for name, moment in moments.items():
            value = number(row.get(name), name)
            if value == value:
                moment.add(value)
        for name, counter in values.items():
            category = text(row.get(name))
            if category is not None:
                counter[category] += 1
    return {
        "numbers": {name: moment.to_record() for name, moment in moments.items()},
        "categories": {name: dict(counter) for name, counter in values.items()},
    }


def learn(
    summaries: Sequence[Mapping[str, Any]], columns: Mapping[str, str], max_categories: int
) -> list[dict[str, Any]]:
    """How each column becomes inputs, in order: `{"name", "mean", "scale"}` or `{"name", "values"}`."""
    learned: list[dict[str, Any]] = []
    for name, kind in columns.items():
        if kind == "number":
            moments = Moments.merged(part["numbers"][name] for part in summaries)
            learned.append({"name": name, "mean": moments.mean, "scale": moments.scale})
            continue
        counts: Counter[str] = Counter()
        for part in summaries:
            counts.update(part["categories"][name])
        common = sorted(counts, key=lambda value: (-counts[value], value))[:max_categories]
        learned.append({"name": name, "values": sorted(common)})
    return learned


class Encoder:
    """Rows as float32 `[rows, width]`, by what `learn` gave."""

    def __init__(self, learned: Sequence[Mapping[str, Any]]) -> None:
        self.learned = learned
        self._places = {
            column["name"]: {value: place for place, value in enumerate(column["values"])}
            for column in learned
            if "values" in column
        }
        self.width = sum(len(column["values"]) + 1 if "values" in column else 1 for column in learned)

    def row(self, values: Mapping[str, Any]) -> np.ndarray:
        """One row `[width]`. Raises BadInput for a value that is no number where one is wanted."""
        encoded = np.zeros(self.width, dtype=np.float32)
        start = 0
        for column in self.learned:
            name = column["name"]
            if "values" in column:
                places = self._places[name]
                encoded[start + places.get(text(values.get(name)) or "", len(places))] = 1.0
                start += len(places) + 1
            else:
                value = number(values.get(name), name)
                encoded[start] = (value - column["mean"]) / column["scale"] if value == value else 0.0
                start += 1
        return encoded

    def rows(self, columns: Mapping[str, np.ndarray], count: int) -> np.ndarray:
        """COUNT rows given as one array `[count]` a column; the same numbers as `row` gives, bit for bit."""
        encoded = np.zeros((count, self.width), dtype=np.float32)
        start = 0
        for column in self.learned:
            name, given = column["name"], columns[column["name"]]
            if "values" in column:
                places = self._places[name]
                hot = [places.get(text(value) or "", len(places)) for value in given.tolist()]
                encoded[np.arange(count), start + np.array(hot)] = 1.0
                start += len(places) + 1
            else:
                values = (
                    np.array([number(v, name) for v in given]) if given.dtype == object else given.astype(np.float64)
                )
                standard = (values - column["mean"]) / column["scale"]
                encoded[:, start] = np.where(np.isfinite(values), standard, 0.0)
                start += 1
        return encoded
