"""Selective search: boxes in a picture that may hold an object, before anything is learned (Uijlings et al. 2013).

A picture is segmented (Felzenszwalb & Huttenlocher 2004), then the two neighbouring regions that are most alike in
colour, texture, size and fit become one, again and again until one is left; each region that there ever was gives the
box around it (section 3). This is done for each of STRATEGIES, whose boxes are joined.

Differs from the papers: the picture is shrunk to LARGEST pixels on its longer side; of the graph of pixels only the
edges of its minimum spanning tree are looked at, which is four times faster and differs where a small finished region
lies between two that would have joined past it; boxes that are nearly the same (IoU above SAME) count once; two colour
spaces at one scale, where the authors' "fast" mode has two scales of segments too; its second combination of measures
is size and fill alone, where theirs has texture as well: two that differ more find more (docs/models/detection.md).

What it takes: docs/models/detection.md.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

MOST = 500  # boxes of a picture
LARGEST = 192  # pixels of the longer side that is searched
SMOOTHED = 0.8  # pixels: deviation of the Gaussian before segmentation (Felzenszwalb & Huttenlocher, section 4)
SCALE = 50.0  # k: how much a region may differ inside, divided by its pixels
SMALLEST_REGION, SMALLEST_SIDE = 20, 3  # pixels, of the picture that is searched
SAME = 0.8
COLOUR_BINS, TEXTURE_BINS, DIRECTIONS = 25, 10, 8  # section 3.2
EVERYTHING, SHAPE = (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)  # weights of colour, texture, size, fill
STRATEGIES = {"hsv": (EVERYTHING, SHAPE), "lab": (EVERYTHING, SHAPE)}


class Regions(NamedTuple):
    """What grouping knows of each region: of n, and of those that come of them."""

    size: np.ndarray  # float64 [n], pixels
    boxes: np.ndarray  # float64 [n, 4], x2 and y2 exclusive
    colour: np.ndarray  # float32 [n, 3 * COLOUR_BINS], sums to 1
    texture: np.ndarray  # float32 [n, 3 * DIRECTIONS * TEXTURE_BINS], sums to 1


def selective_search(pixels: np.ndarray, most: int = MOST) -> np.ndarray:
    """Boxes (x1, y1, x2, y2), those of late regions (large parts of the picture) rather first.

    Args:
        pixels: uint8 [1 or 3, height, width].

    Returns:
        float32 [most, 4] in pixels of the picture, x2 and y2 exclusive; rows of zeros where there are fewer. The same
        picture gives the same boxes.
    """
    _, height, width = pixels.shape
    colours = np.ascontiguousarray(np.broadcast_to(pixels, (3, height, width)).transpose(1, 2, 0))
    picture = Image.fromarray(colours, "RGB")
    shrink = min(1.0, LARGEST / max(height, width))
    small = picture.resize((max(1, round(width * shrink)), max(1, round(height * shrink))), Image.Resampling.BOX)
    rng = np.random.default_rng(0)
    boxes, places = [np.zeros((0, 4))], [np.zeros(0)]
    for space, measures in STRATEGIES.items():
        converted = _converted(small, space)
        labels = segments(converted)
        regions = describe(converted, labels)
        for weights in measures:
            found = grouped(regions, _neighbours(labels), labels.size, weights)
            boxes.append(found)
            places.append(np.arange(len(found), 0, -1) * rng.random(len(found)))  # section 4.2: the last one first
    kept = _different(np.concatenate(boxes), np.concatenate(places), most)
    result = np.zeros((most, 4), np.float32)
    result[: len(kept)] = kept * np.array([width / small.width, height / small.height] * 2)
    return result


def segments(colours: np.ndarray, scale: float = SCALE, smallest: int = SMALLEST_REGION) -> np.ndarray:
    """Which region each pixel of COLOURS float32 [height, width, channels] (from 0 to 255) belongs to.

    Two regions join where the difference between them is at most what is inside either, and SCALE divided by its
    pixels (Felzenszwalb & Huttenlocher 2004, equations 3 and 4); then those below SMALLEST join a neighbour.

    Returns:
        int64 [height, width], from 0 on.
    """
    height, width = colours.shape[:2]
    smooth = gaussian_filter(colours, (SMOOTHED, SMOOTHED, 0))
    places = np.arange(height * width).reshape(height, width)
    pairs = (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
    )
    ends = np.concatenate([np.stack([places[one].ravel(), places[other].ravel()]) for one, other in pairs], axis=1)
    apart = [np.sqrt(((smooth[one] - smooth[other]) ** 2).sum(axis=2)).ravel() for one, other in pairs]
    weights = np.concatenate(apart).astype(np.float64) + 1e-6  # a sparse matrix has no edges of weight 0
    count = height * width
    tree = minimum_spanning_tree(coo_matrix((weights, tuple(ends)), shape=(count, count)).tocsr()).tocoo()
    order = np.argsort(tree.data, kind="stable")
    edges = zip(tree.row[order].tolist(), tree.col[order].tolist(), tree.data[order].tolist(), strict=True)
    parent, size, limit = list(range(count)), [1] * count, [scale] * count
    left = []
    for one, other, weight in edges:
        a, b = _root(parent, one), _root(parent, other)
        if weight <= limit[a] and weight <= limit[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            limit[a] = weight + scale / size[a]
        else:
            left.append((one, other))
    for one, other in left:
        a, b = _root(parent, one), _root(parent, other)
        if a != b and (size[a] < smallest or size[b] < smallest):
            parent[b] = a
            size[a] += size[b]
    roots = [_root(parent, place) for place in range(count)]
    return np.unique(roots, return_inverse=True)[1].reshape(height, width)


def _root(parent: list[int], place: int) -> int:
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place


def describe(colours: np.ndarray, labels: np.ndarray) -> Regions:
    """The regions of LABELS: histograms of each channel's values, and of its slopes in DIRECTIONS (section 3.2)."""
    count = int(labels.max()) + 1
    flat = labels.ravel()
    size = np.bincount(flat, minlength=count).astype(np.float64)
    rows, columns = np.indices(labels.shape)
    boxes = np.zeros((count, 4))
    for place, (values, low) in enumerate(((columns, True), (rows, True), (columns, False), (rows, False))):
        edge = np.full(count, np.iinfo(np.int64).max if low else -1)
        (np.minimum if low else np.maximum).at(edge, flat, values.ravel())
        boxes[:, place] = edge if low else edge + 1
    colour = _histogram((colours / 256 * COLOUR_BINS).reshape(flat.size, -1), flat, count, COLOUR_BINS)
    across = gaussian_filter(correlate1d(colours, [-0.5, 0, 0.5], axis=1), (1, 1, 0))
    down = gaussian_filter(correlate1d(colours, [-0.5, 0, 0.5], axis=0), (1, 1, 0))
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    slopes = across[..., None] * np.cos(angles, dtype=np.float32) + down[..., None] * np.sin(angles, dtype=np.float32)
    steep = np.sqrt(np.maximum(slopes, 0) / 128) * TEXTURE_BINS  # most slopes are small
    texture = _histogram(steep.reshape(flat.size, -1), flat, count, TEXTURE_BINS)
    return Regions(size, boxes, colour, texture)


def _histogram(values: np.ndarray, labels: np.ndarray, count: int, bins: int) -> np.ndarray:
    """How often each of VALUES' columns (from 0 to BINS) falls in each bin, by region; a region's shares sum to 1."""
    columns = values.shape[1]
    filled = values.astype(np.int64).clip(0, bins - 1)
    filled += (labels * (columns * bins))[:, None] + np.arange(columns) * bins
    sums = np.bincount(filled.ravel(), minlength=count * columns * bins).reshape(count, columns * bins)
    result: np.ndarray = (sums / sums.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def _neighbours(labels: np.ndarray) -> list[set[int]]:
    """The regions that touch each region along a side of a pixel."""
    found: list[set[int]] = [set() for _ in range(int(labels.max()) + 1)]
    sides = ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:]))
    pairs = np.concatenate([np.stack([one.ravel(), other.ravel()], axis=1) for one, other in sides])
    for one, other in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
        found[one].add(other)
        found[other].add(one)
    return found


def grouped(
    regions: Regions, neighbours: list[set[int]], pixels: int, weights: tuple[float, float, float, float]
) -> np.ndarray:
    """The boxes of REGIONS and of all that come of joining the two most alike neighbours, float64 [2n - 1, 4].

    Alike is the sum of four measures (section 3.2, equations 2 to 6), each times its of WEIGHTS; PIXELS is the size of
    the picture.
    """
    count = len(regions.size)
    size, boxes, colour, texture = (
        np.concatenate([part, np.zeros((count - 1, *part.shape[1:]), part.dtype)]) for part in regions
    )
    alive = [True] * count

    def alike(one: int, others: np.ndarray) -> np.ndarray:
        low, high = np.minimum(boxes[one, :2], boxes[others, :2]), np.maximum(boxes[one, 2:], boxes[others, 2:])
        both = size[one] + size[others]
        total: np.ndarray = (
            weights[1] * np.minimum(texture[one], texture[others]).sum(axis=1)
            + weights[2] * (1 - both / pixels)
            + weights[3] * (1 - ((high - low).prod(axis=1) - both) / pixels)
        )
        return total + weights[0] * np.minimum(colour[one], colour[others]).sum(axis=1) if weights[0] else total

    queue: list[tuple[float, int, int]] = []
    for one, others in enumerate(neighbours):
        later = sorted(other for other in others if other > one)
        if later:
            queue += [(-value, one, o) for value, o in zip(alike(one, np.array(later)).tolist(), later, strict=True)]
    heapq.heapify(queue)
    touching, new = [set(others) for others in neighbours], count
    while queue:
        _, one, other = heapq.heappop(queue)
        if not (alive[one] and alive[other]):
            continue
        alive[one] = alive[other] = False
        alive.append(True)
        size[new] = size[one] + size[other]
        boxes[new, :2] = np.minimum(boxes[one, :2], boxes[other, :2])
        boxes[new, 2:] = np.maximum(boxes[one, 2:], boxes[other, 2:])
        share = size[one] / size[new]
        for values in (colour, texture):
            values[new] = share * values[one] + (1 - share) * values[other]
        around = (touching[one] | touching[other]) - {one, other}
        touching.append(around)
        for near in around:
            touching[near] -= {one, other}
            touching[near].add(new)
        if around:
            near_ones = sorted(around)
            values = alike(new, np.array(near_ones)).tolist()
            for value, near in zip(values, near_ones, strict=True):
                heapq.heappush(queue, (-value, near, new))
        new += 1
    return boxes[:new]


def _different(boxes: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """BOXES from the lowest ORDER on, MOST at most: no small ones, none that is nearly the same as one before."""
    large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= SMALLEST_SIDE
    boxes = boxes[large][np.argsort(order[large], kind="stable")]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    alive, kept = np.ones(len(boxes), dtype=bool), []
    for place, box in enumerate(boxes):
        if not alive[place]:
            continue
        kept.append(place)
        if len(kept) == most:
            break
        rest = boxes[place + 1 :]
        sides = np.minimum(box[2:], rest[:, 2:]) - np.maximum(box[:2], rest[:, :2])
        shared = sides.clip(0).prod(axis=1)
        alive[place + 1 :] &= shared <= SAME * (areas[place] + areas[place + 1 :] - shared)
    return boxes[kept]


def _converted(picture: Image.Image, space: str) -> np.ndarray:
    """PICTURE's colours in SPACE, float32 [height, width, 3], each channel from 0 to 255."""
    if space == "hsv":
        return np.asarray(picture.convert("HSV"), np.float32)
    return lab(np.asarray(picture, np.float32))


def lab(colours: np.ndarray) -> np.ndarray:
    """sRGB [..., 3] from 0 to 255 as CIE L*a*b* (D65), L times 2.55, a and b plus 128."""
    linear = colours / 255
    linear = np.where(linear > 0.04045, ((linear + 0.055) / 1.055) ** 2.4, linear / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], axis=-1).astype(np.float32)
