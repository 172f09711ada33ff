"""Faster R-CNN: a network finds regions on learned anchors, and looks at each of them once more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from headrace_models.detection.layers import Pyramid
from headrace_models.detection.outputs import DetectorOutput, Targets, Threshold
from headrace_models.detection.regions import (
    Sampling,
    as_rows,
    box_loss,
    classification_loss,
    found_in,
    onto,
    sample,
)
from headrace_models.detection.rpn import BETA, LEARNED, Proposing, anchors_of, proposal_losses, propose
from headrace_models.detection.ssd import Predictor, by_level

GRID, SAMPLES = 7, 2  # places a side of a pooled region, and samples a side of a place


class FasterRcnnBase(nn.Module):
    """What both Faster R-CNNs share: proposals, sampling, four losses (Ren et al. 2015, section 3).

    A subclass gives feature maps (`maps`), the anchors on them (`anchors`), what it says of the anchors (`regions`) and
    of regions (`read`). Losses: see `rpn.proposal_losses`, and `box` and `classification` of `regions`.
    """

    def __init__(self, threshold: Threshold, learning: Proposing, judging: Proposing, sampling: Sampling) -> None:
        super().__init__()
        self.threshold, self.sampling = threshold, sampling
        self.proposing = {True: learning, False: judging}

    def maps(self, image: Tensor) -> list[Tensor]:
        """Feature maps `[batch, channels, rows, columns]`, the finest first."""
        raise NotImplementedError

    def anchors(self, image: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """The anchors on each map in pixels of the image, `[anchors, 4]`."""
        raise NotImplementedError

    def regions(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(logits `[batch, A]`, offsets `[batch, A, 4]`) of all anchors, in their order."""
        raise NotImplementedError

    def read(self, maps: Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What is said of BOXES `[batch, R, 4]` in pixels of a picture of SIZE: (scores `[batch, R, 1 + classes]`, the
        background first, offsets `[batch, R, classes, 4]`)."""
        raise NotImplementedError

    def forward(self, image: Tensor, targets: Targets | None = None) -> DetectorOutput:
        """See `headrace_models.detection.outputs`."""
        maps, size = self.maps(image), (image.shape[2], image.shape[3])
        anchors = self.anchors(image, maps)
        logits, by = self.regions(maps)
        proposals = propose(logits, by, anchors, self.proposing[self.training], size)
        losses = None
        if targets is not None:
            chance = self.training
            losses = proposal_losses(logits, by, torch.cat(anchors), targets, LEARNED, at_random=chance)
            sampled = sample(proposals, targets, self.sampling, at_random=chance)
            scores, shifts = self.read(maps, sampled.boxes, size)
            losses |= {
                "classification": classification_loss(scores, sampled),
                "box": box_loss(shifts, sampled, BETA),
            }
        if self.training:
            return DetectorOutput(losses, None)
        scores, shifts = self.read(maps, proposals, size)
        odds = scores.float().softmax(dim=2)[..., 1:]
        return DetectorOutput(losses, found_in(proposals, odds, shifts, self.threshold, size))


class FasterRcnn(FasterRcnnBase):
    """Faster R-CNN on a small residual backbone, for pictures of about 100 to 500 pixels.

    Input `[batch, in_channels, height, width]`; see `headrace_models.detection.outputs`. To expect:
    docs/models/detection.md.

    Differs from the paper: anchors have the usual sizes of the training data's objects (`anchor_sizes`: k-means as in
    Redmon & Farhadi 2017, section 2), each on the map of a feature pyramid (Lin et al. 2017) whose stride is nearest to
    a fourth of its side; scores and offsets of anchors are read by one 3x3 convolution a map, as SSD has it, since the
    pyramid's maps end with one already; regions are read from the finest map that has anchors, by RoIAlign (He et al.
    2017, section 3) instead of RoI pooling; batch normalisation instead of a pretrained VGG16; all of it is trained at
    once ("approximate joint training", section 3.2); anchors that cross the picture's edge are learned too.

    Args:
        anchor_sizes: (width, height) in pixels.
        width: channels of the first convolution.
        levels: feature maps; those that no size falls to only help the finer ones.
        hidden: values of the two layers that look at a region.
        proposals: regions of a picture that are looked at.
        sampled: regions of a picture that are learned, a quarter of them objects at most.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.
    """

    def __init__(
        self,
        num_classes: int,
        anchor_sizes: Sequence[Sequence[float]],
        in_channels: int = 3,
        width: int = 16,
        levels: int = 4,
        hidden: int = 128,
        proposals: int = 100,
        sampled: int = 64,
        activation: str = "silu",
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(
            Threshold(score_threshold, nms_threshold, detections=max_detections),
            Proposing(4 * proposals, 2 * proposals),
            Proposing(4 * proposals, proposals),
            Sampling(sampled),
        )
        sizes = by_level(anchor_sizes, levels)
        self._sizes = [torch.tensor(each) for each in sizes.values()]
        self.pyramid = Pyramid(in_channels, width, levels, list(sizes), activation)
        channels, counts = [4 * width] * len(sizes), [len(each) for each in sizes.values()]
        self.objectness = Predictor(channels, counts, 1)
        self.proposal_box = Predictor(channels, counts, 4)
        self.region = RegionHead(4 * width * GRID**2, hidden, num_classes)

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `FasterRcnnBase.maps`."""
        found: list[Tensor] = self.pyramid(image)
        return found

    def anchors(self, image: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """See `FasterRcnnBase.anchors`."""
        size = (image.shape[2], image.shape[3])
        return [anchors_of(each, sizes, size) for each, sizes in zip(maps, self._sizes, strict=True)]

    def regions(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See `FasterRcnnBase.regions`."""
        return self.objectness(maps).squeeze(2), self.proposal_box(maps)

    def read(self, maps: Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `FasterRcnnBase.read`."""
        rows = as_rows(boxes, onto(maps[0], size))
        pooled = roi_align(maps[0].float(), rows, GRID, sampling_ratio=SAMPLES, aligned=True)
        scores, by = self.region(pooled.flatten(1))
        return scores.unflatten(0, boxes.shape[:2]), by.unflatten(0, boxes.shape[:2])


class RegionHead(nn.Module):
    """Two linear layers, then scores (the background first) and offsets of each class (Girshick 2015, figure 1)."""

    def __init__(self, inside: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inside, hidden), nn.Linear(hidden, hidden)
        self.scores, self.offsets = nn.Linear(hidden, 1 + num_classes), nn.Linear(hidden, 4 * num_classes)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        start_outputs(self.scores, self.offsets)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """`[regions, inside]` to (`[regions, 1 + classes]`, `[regions, classes, 4]`)."""
        x = functional.relu(self.second(functional.relu(self.first(pooled))))
        return self.scores(x), self.offsets(x).unflatten(1, (-1, 4))


def start_outputs(scores: nn.Linear, offsets: nn.Linear) -> None:
    """Weights from N(0, 0.01) and N(0, 0.001), no biases (Girshick 2015, section 2.3)."""
    for layer, deviation in ((scores, 0.01), (offsets, 0.001)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
