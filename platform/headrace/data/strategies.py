"""The five ways of dealing samples out to train, validation and test, as functions of plain arrays.

What may not be torn apart (equal content, a group) is one unit; a strategy deals out units. Sides are numbers: 0 train,
1 validation, 2 test. The same input gives the same output everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from headrace.data import digest
from headrace.data.digest import Bytes

SPLITS = ("train", "validation", "test")
QUANTILES = 10  # strata of a label that is a number

Fractions = tuple[float, float, float]
Codes = npt.NDArray[np.int64]
Sides = npt.NDArray[np.int8]


def by_hash(digests: Bytes, fractions: Fractions, seed: int) -> Sides:
    """By the digest alone, so that a sample keeps its side whatever else is added."""
    bounds = np.cumsum(fractions)[:2]
    return np.searchsorted(bounds, digest.positions(digests, seed), side="right").astype(np.int8)


def at_random(units: Codes, fractions: Fractions, seed: int) -> Sides:
    """At random, to the exact fractions as far as units allow (also of groups, whose units are large)."""
    return stratified(units, np.zeros(len(units), dtype=np.int64), fractions, seed)


def stratified(units: Codes, strata: Codes, fractions: Fractions, seed: int) -> Sides:
    """At random within each stratum (class), each split's count within one of its exact share where units are single.

    What rounding takes from a split in one class it gets back in the next, so that many tiny classes do not all end in
    train; and every class has a sample in train, if train has a fraction at all.

    Args:
        units: [samples], a unit's number from 0; a unit lies in the stratum of its first sample.
        strata: [samples], a stratum's number from 0.
    """
    sizes = np.bincount(units)
    _, first = np.unique(units, return_index=True)
    unit_strata = strata[first]
    order = np.argsort(unit_strata, kind="stable")
    bounds = np.flatnonzero(np.diff(unit_strata[order])) + 1
    sides = np.empty(len(sizes), dtype=np.int8)
    carry = np.zeros(3)
    for members in np.split(order, bounds):
        rng = np.random.default_rng([abs(seed), int(seed < 0), int(unit_strata[members[0]])])
        members = rng.permutation(members)
        targets, carry = apportion(int(sizes[members].sum()), fractions, carry)
        sides[members] = _deal(sizes[members], targets)
    return sides[units]


def by_time(units: Codes, times: npt.NDArray[np.float64], fractions: Fractions) -> Sides:
    """The oldest to train, the newest to test; equal times on one side; a unit where its earliest sample is."""
    values, counts = np.unique(times, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    wanted = np.cumsum(fractions)[:2] * len(times)
    cuts = [int(np.argmin(np.abs(ends - w))) for w in wanted]  # numbers of distinct times before each cut
    if fractions[0] > 0:
        cuts = [max(1, cuts[0]), max(1, *cuts)]
    side_of_value = np.searchsorted(np.array(cuts), np.arange(len(values)), side="right")
    sides = side_of_value[np.searchsorted(values, times)]
    earliest = np.full(int(units.max()) + 1, 2)
    np.minimum.at(earliest, units, sides)
    return earliest[units].astype(np.int8)


def apportion(
    total: int, fractions: Fractions, carry: npt.NDArray[np.float64]
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """TOTAL samples in whole numbers by largest remainder, CARRY being what earlier roundings owe each split."""
    exact = np.array(fractions) * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    owed = np.where(np.array(fractions) > 0, exact - counts + carry, -np.inf)
    for _ in range(total - int(counts.sum())):
        best = int(np.argmax(owed))
        counts[best] += 1
        owed[best] = -np.inf  # at most one more than the floor for each
    if fractions[0] > 0 and counts[0] == 0:
        counts[int(np.argmax(counts))] -= 1
        counts[0] = 1
    return counts.tolist(), carry + exact - counts


def _deal(sizes: npt.NDArray[np.int64], targets: Sequence[int]) -> Sides:
    """A side for each unit: large ones first, each to the split that lacks most; single ones fill what is left."""
    sides = np.empty(len(sizes), dtype=np.int8)
    lacking = list(targets)
    large = np.flatnonzero(sizes > 1)
    for unit in large[np.argsort(-sizes[large], kind="stable")].tolist():
        side = lacking.index(max(lacking))
        sides[unit] = side
        lacking[side] -= int(sizes[unit])
    single = np.flatnonzero(sizes == 1)
    room = [max(0, count) for count in lacking]
    while sum(room) > len(single):  # large units overshot elsewhere: take from where there is most room
        room[room.index(max(room))] -= 1
    sides[single] = np.repeat(np.arange(3, dtype=np.int8), room)
    return sides


def joined_units(contents: Codes, groups: Codes | None) -> Codes:
    """One number per set of samples that must stay together: equal content, and group by group if GROUPS are given.

    Two groups that share a content become one.
    """
    if groups is None:
        return contents
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    offset = int(contents.max()) + 1
    count = offset + int(groups.max()) + 1
    edges = coo_array((np.ones(len(contents), dtype=np.int8), (contents, groups + offset)), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    return np.unique(labels[contents], return_inverse=True)[1].astype(np.int64)


def rarest(names: Sequence[Sequence[str]]) -> Codes:
    """Strata of annotated samples by the NAMES of each one's objects: the class that has the fewest objects in all.

    The rarest class comes first, so that rounding favours it; samples without objects are the last stratum.
    """
    counts = Counter(chain.from_iterable(names))
    order = {name: place for place, name in enumerate(sorted(counts, key=lambda name: (counts[name], name)))}
    return np.array([min((order[name] for name in found), default=len(order)) for found in names], dtype=np.int64)


def quantiles(values: npt.NDArray[np.float64]) -> Codes:
    """Strata of a number: up to QUANTILES ranges with as many samples each, equal values in one."""
    bounds = np.unique(np.quantile(values, np.linspace(0, 1, QUANTILES + 1)[1:-1]))
    return np.searchsorted(bounds, values, side="right").astype(np.int64)
