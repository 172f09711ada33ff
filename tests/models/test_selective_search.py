"""Selective search: what regions there are, what they are joined to, and whether the objects are among the boxes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from headrace.data import builtin_shapes
from headrace_models.detection.selective_search import (
    EVERYTHING,
    MOST,
    SHAPE,
    Regions,
    describe,
    grouped,
    lab,
    segments,
    selective_search,
)


def overlaps(boxes: np.ndarray, box: Sequence[float]) -> np.ndarray:
    true = np.array(box, float)
    sides = np.minimum(boxes[:, 2:], true[2:]) - np.maximum(boxes[:, :2], true[:2])
    shared = sides.clip(0).prod(axis=1)
    ratio: np.ndarray = shared / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (true[2:] - true[:2]).prod() - shared)
    return ratio


def flag() -> np.ndarray:
    """Green with a red square and a blue bar, [64, 80, 3]."""
    pixels = np.zeros((64, 80, 3), np.uint8)
    pixels[:] = (40, 160, 60)
    pixels[10:30, 12:32] = (220, 30, 30)
    pixels[40:52, 20:70] = (30, 40, 220)
    return pixels


OBJECTS = ([12, 10, 32, 30], [20, 40, 70, 52])


def test_regions_of_one_colour_are_one_segment_each() -> None:
    labels = segments(flag().astype(np.float32), smallest=20)
    for x1, y1, x2, y2 in OBJECTS:
        inside = labels[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3]
        assert len(np.unique(inside)) == 1
        assert inside[0, 0] != labels[0, 0]
    assert labels[0, 0] == labels[-1, -1]
    assert labels.min() == 0
    assert len(np.unique(labels)) == labels.max() + 1


def test_a_slope_that_no_pixel_shows_stays_one_segment_and_a_step_does_not() -> None:
    slope = np.tile(np.linspace(0, 100, 128, dtype=np.float32)[None, :, None], (20, 1, 3))
    assert segments(slope).max() == 0
    assert segments(np.where(slope > 50, np.float32(200), np.float32(0))).max() >= 1


def test_segments_below_the_smallest_size_join_a_neighbour() -> None:
    pixels = np.zeros((40, 40, 3), np.float32)
    pixels[10:13, 10:13] = 255
    assert segments(pixels, smallest=1).max() >= 1
    assert segments(pixels, smallest=200).max() == 0


def test_a_region_is_described_by_its_size_box_colours_and_slopes() -> None:
    labels = np.zeros((6, 8), np.int64)
    labels[2:5, 3:7] = 1
    colours = np.zeros((6, 8, 3), np.float32)
    colours[labels == 1] = 255
    regions = describe(colours, labels)
    assert regions.size.tolist() == [36, 12]
    assert regions.boxes.tolist() == [[0, 0, 8, 6], [3, 2, 7, 5]]
    np.testing.assert_allclose(regions.colour.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(regions.texture.sum(axis=1), 1, rtol=1e-5)
    assert np.flatnonzero(regions.colour[0]).tolist() == [0, 25, 50]
    assert np.flatnonzero(regions.colour[1]).tolist() == [24, 49, 74]


@pytest.mark.parametrize(
    ("weights", "first"),
    [(EVERYTHING, [0, 0, 20, 10]), ((0.0, 1.0, 1.0, 1.0), [10, 0, 30, 10])],
    ids=["all", "no colour"],
)
def test_the_most_alike_neighbours_are_joined_first(
    weights: tuple[float, float, float, float], first: list[int]
) -> None:
    """Three squares in a row: the first two have one colour, the last two a texture that is a little more alike."""
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10]], float)
    colour = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    texture = np.array([[1, 0], [0.5, 0.5], [0.4, 0.6]], np.float32)
    regions = Regions(np.full(3, 100.0), boxes, colour, texture)
    found = grouped(regions, [{1}, {0, 2}, {1}], 300, weights)
    assert found[:3].tolist() == boxes.tolist()
    assert found[3:].tolist() == [first, [0, 0, 30, 10]]


def test_by_shape_alone_small_regions_are_joined_first_whatever_their_colour() -> None:
    boxes = np.array([[0, 0, 10, 10], [10, 0, 14, 10], [14, 0, 17, 10]], float)
    alike = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    regions = Regions((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), boxes, alike, alike)
    assert grouped(regions, [{1}, {0, 2}, {1}], 170, EVERYTHING)[3].tolist() == [0, 0, 14, 10]
    assert grouped(regions, [{1}, {0, 2}, {1}], 170, SHAPE)[3].tolist() == [10, 0, 17, 10]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_boxes_hold_the_objects_and_the_rest_is_padding(channels: int) -> None:
    pixels = flag().transpose(2, 0, 1)
    pixels = pixels if channels == 3 else pixels.max(axis=0, keepdims=True)
    boxes = selective_search(pixels)
    assert boxes.shape == (MOST, 4)
    assert boxes.dtype == np.float32
    real: np.ndarray = boxes.any(axis=1)
    assert 3 <= real.sum() < MOST
    assert not real[real.sum() :].any()
    assert (boxes[real][:, 2:] > boxes[real][:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= [80, 64, 80, 64]).all()
    for box in OBJECTS:
        assert overlaps(boxes[real], box).max() > 0.75
    assert overlaps(boxes[real], [0, 0, 80, 64]).max() == 1  # all joined
    assert np.array_equal(boxes, selective_search(pixels))
    assert selective_search(pixels, most=2)[:, 2:].all()


def test_a_large_picture_is_searched_small_and_boxed_large() -> None:
    large = flag().repeat(5, axis=0).repeat(5, axis=1).transpose(2, 0, 1)
    boxes = selective_search(large)
    for box in OBJECTS:
        assert overlaps(boxes[boxes.any(axis=1)], [5 * side for side in box]).max() > 0.85


def test_a_picture_without_anything_in_it_is_one_box() -> None:
    boxes = selective_search(np.full((3, 40, 50), 90, np.uint8))
    assert boxes[boxes.any(axis=1)].tolist() == [[0, 0, 50, 40]]


def test_nearly_all_shapes_are_among_the_boxes() -> None:
    found = []
    for number in range(15):
        pixels, objects = builtin_shapes.scene(random.Random(f"shapes/{number}"))
        boxes = selective_search(pixels.transpose(2, 0, 1))
        boxes = boxes[boxes.any(axis=1)]
        found += [overlaps(boxes, [o.left, o.top, o.right, o.bottom]).max() for o in objects]
    assert np.mean(np.array(found) > 0.5) > 0.95
    assert np.mean(found) > 0.85


def test_colours_in_lab_are_the_known_ones() -> None:
    white, red, grey = lab(np.array([[255, 255, 255], [255, 0, 0], [119, 119, 119]], np.float32))
    np.testing.assert_allclose(white, [255, 128, 128], atol=0.2)
    np.testing.assert_allclose(red, [53.24 * 2.55, 128 + 80.09, 128 + 67.20], atol=0.3)
    np.testing.assert_allclose(grey, [50.03 * 2.55, 128, 128], atol=0.3)
