"""The strategies' promises: disjoint and exhaustive, in proportion, units whole, stable where they say so."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.data import digest
from headrace.data.strategies import apportion, at_random, by_hash, by_time, joined_units, quantiles, stratified

FRACTIONS = (0.7, 0.15, 0.15)
few = settings(max_examples=40, deadline=None)
seeds = st.integers(-(2**31), 2**31)
fractions = st.sampled_from([FRACTIONS, (0.8, 0.2, 0.0), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)])


def counts(sides):
    return np.bincount(sides, minlength=3)


def digests(names):
    return digest.of_texts(pa.array(names))


@few
@given(st.integers(1, 400), fractions, seeds)
def test_random_gives_each_split_its_share_to_within_one(samples, shares, seed):
    found = counts(at_random(np.arange(samples), shares, seed))
    assert found.sum() == samples
    assert found[0] >= 1
    off = np.abs(found - np.array(shares) * samples)
    assert (off < 1 + 1e-6).all() or samples < 3


@few
@given(st.lists(st.integers(0, 6), min_size=1, max_size=300), fractions, seeds)
def test_stratified_is_in_proportion_within_each_class(classes, shares, seed):
    strata = np.unique(classes, return_inverse=True)[1]
    sides = stratified(np.arange(len(strata)), strata, shares, seed)
    for stratum in range(strata.max() + 1):
        found = counts(sides[strata == stratum])
        size = found.sum()
        assert found[0] >= 1  # the smallest class can be learned
        assert (found[np.array(shares) == 0] == 0).all()
        assert (np.abs(found - np.array(shares) * size) < 2).all()


def test_many_tiny_classes_do_not_all_end_in_train():
    strata = np.repeat(np.arange(100), 2)
    found = counts(stratified(np.arange(200), strata, FRACTIONS, 0))
    assert found.tolist() == [140, 30, 30]


@few
@given(st.lists(st.integers(0, 60), min_size=1, max_size=300), fractions, seeds)
def test_units_are_never_torn_apart(units, shares, seed):
    units = np.unique(units, return_inverse=True)[1]
    times = np.random.default_rng(0).integers(0, 9, len(units)).astype(float)
    for sides in (
        at_random(units, shares, seed),
        stratified(units, units % 3, shares, seed),
        by_time(units, times, shares),
    ):
        assert len(sides) == len(units)
        for unit in range(units.max() + 1):
            assert len(set(sides[units == unit].tolist())) == 1


def test_groups_of_like_size_come_out_in_proportion():
    groups = np.repeat(np.arange(40), 25)
    assert counts(at_random(groups, FRACTIONS, 3)).tolist() == [700, 150, 150]


def test_one_huge_group_goes_to_train():
    units = np.array([0] * 900 + list(range(1, 101)))
    found = counts(at_random(units, FRACTIONS, 0))
    assert found[0] >= 900
    assert found[1] == found[2] == 50


@few
@given(st.lists(st.text(max_size=8), min_size=1, max_size=200, unique=True), st.lists(st.text(), max_size=50), seeds)
def test_hash_never_moves_a_sample_when_data_is_added(names, more, seed):
    before = by_hash(digests(names), FRACTIONS, seed)
    after = by_hash(digests(names + more), FRACTIONS, seed)
    assert np.array_equal(before, after[: len(names)])


def test_hash_comes_near_the_fractions_and_follows_the_seed():
    keys = digests([str(i) for i in range(20_000)])
    sides = by_hash(keys, FRACTIONS, 0)
    assert np.abs(counts(sides) / 20_000 - FRACTIONS).max() < 0.01
    assert 0.3 < (sides != by_hash(keys, FRACTIONS, 1)).mean() < 0.6


def test_hash_is_the_same_in_every_release():
    """Positions are part of the format: changing them would move every sample of every user."""
    positions = digest.positions(digests(["a", "b", None]), 7)
    assert positions.tolist() == [0.07737513097636795, 0.3871836094193528, 0.2337697059945384]


@few
@given(st.lists(st.integers(0, 40), min_size=3, max_size=200), fractions)
def test_time_puts_nothing_newer_into_train_than_into_test(times, shares):
    times = np.array(times, dtype=float)
    sides = by_time(np.arange(len(times)), times, shares)
    for earlier, later in ((0, 1), (1, 2), (0, 2)):
        if (sides == earlier).any() and (sides == later).any():
            assert times[sides == earlier].max() < times[sides == later].min()
    assert (sides == 0).any()


def test_time_cuts_at_the_fractions_where_times_differ():
    times = np.random.default_rng(1).permutation(200).astype(float)
    assert counts(by_time(np.arange(200), times, FRACTIONS)).tolist() == [140, 30, 30]


def test_equal_content_at_two_times_lies_where_the_earliest_does():
    units = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    sides = by_time(units, np.arange(10.0), (0.5, 0.0, 0.5))
    assert sides.tolist() == [0, 0, 0, 0, 0, 2, 2, 2, 2, 0]


def test_groups_that_share_a_content_become_one_unit():
    contents = np.array([0, 1, 1, 2, 3])
    groups = np.array([0, 0, 1, 1, 2])
    units = joined_units(contents, groups)
    assert units[0] == units[1] == units[2] == units[3] != units[4]
    assert np.array_equal(joined_units(contents, None), contents)


@few
@given(st.integers(1, 1000), fractions)
def test_apportioning_gives_out_everything_once(total, shares):
    found, carry = apportion(total, shares, np.zeros(3))
    assert sum(found) == total
    assert min(found) >= 0
    assert np.allclose(carry, np.array(shares) * total - found)


def test_a_number_is_stratified_by_quantiles():
    strata = quantiles(np.arange(1000.0))
    assert np.bincount(strata).tolist() == [100] * 10
    assert len(set(quantiles(np.ones(5)).tolist())) == 1
