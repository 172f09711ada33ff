"""YOLO as published in 2016: the picture in S x S cells, each with B boxes and one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.base.errors import InvalidInput
from headrace_models.classification.sizes import scaled
from headrace_models.detection.boxes import centred, cornered, overlap
from headrace_models.detection.outputs import DetectorOutput, Targets, Threshold, select

# (channels, kernel, halves) of each convolution; None is a 2x2 pool.
Layer = tuple[int, int, bool] | None
LAYERS: Mapping[int, tuple[Layer, ...]] = {
    24: (  # figure 3
        *((64, 7, True), None, (192, 3, False), None),
        *((128, 1, False), (256, 3, False), (256, 1, False), (512, 3, False), None),
        *((256, 1, False), (512, 3, False)) * 4,
        *((512, 1, False), (1024, 3, False), None),
        *((512, 1, False), (1024, 3, False)) * 2,
        *((1024, 3, False), (1024, 3, True), (1024, 3, False), (1024, 3, False)),
    ),
    9: (  # Fast YOLO, section 2.2
        *((16, 3, False), None, (32, 3, False), None, (64, 3, False), None),
        *((128, 3, False), None, (256, 3, False), None, (512, 3, False), None),
        *((1024, 3, False),) * 3,
    ),
}
HALVINGS = 6
HIDDEN = 4096
COORDINATES, NO_OBJECT = 5.0, 0.5  # weights of the losses (section 2.2)
SLOPE = 0.1  # of the leaky ReLU, equation 2


class YoloV1(nn.Module):
    """YOLO (Redmon et al. 2016, figure 3): 24 convolutions, then two linear layers that see the whole picture.

    At `[batch, 3, 448, 448]`, a grid of 7, 2 boxes and 20 classes: 7x7x30 outputs, 271,703,550 parameters. See
    `headrace_models.detection.outputs` for what it takes and gives. Losses (equation 3): `box`, `confidence`,
    `classification`; squared errors, summed over a picture.

    A cell finds one object: of several with their centre in a cell the first is learned, which is the paper's own
    limit (section 2.4). To expect: VOC 2007 mAP 63.4 (published, the first 20 layers trained on ImageNet).

    Differs from the paper: smaller pictures are halved fewer times (those at the front fall out, until the last map
    has the grid's size; an average pool does the rest); the network gives the square roots of width and height, as the
    authors' own code does, so that the loss is linear in what it gives; `batch_norm` came later (Redmon & Farhadi 2017,
    section 2) and makes it train from scratch; `width` is a factor on all channels; `head: cell` gives the two linear
    layers each cell by itself, since layers that see all cells at once learn an object in each of them anew, for which
    little data is too little. To train on little data take Fast YOLO too (9 convolutions): 24 without shortcuts did not
    get beyond the mean box in 40 epochs of 168 pictures.

    Args:
        convolutions: 24, or the 9 of Fast YOLO (section 2.2), whose sizes the paper leaves open: 3x3, from 16 channels
            to 512 with a pool after each, then three of 1024.
        image_size: height and width of the pictures.
        grid: S, cells a side.
        boxes: B, boxes of a cell. Two that come out alike are each right half the time, and so half as sure.
        head: what the linear layers see: whole, as published, or cell.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.

    Raises:
        InvalidInput: the picture has fewer pixels a side than the grid has cells.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        image_size: Sequence[int] = (448, 448),
        convolutions: Literal[24, 9] = 24,
        width: float = 1.0,
        grid: int = 7,
        boxes: int = 2,
        head: Literal["whole", "cell"] = "whole",
        batch_norm: bool = False,
        dropout: float = 0.5,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        if min(image_size) < grid:
            raise InvalidInput(
                f"a picture of {image_size[0]}x{image_size[1]} has no {grid}x{grid} cells", action="lower the grid"
            )
        self.num_classes, self.grid, self.boxes = num_classes, grid, boxes
        self.threshold = Threshold(score_threshold, nms_threshold, detections=max_detections)
        skipped = HALVINGS - max(k for k in range(HALVINGS + 1) if min(image_size) // 2**k >= grid)
        layers: list[nn.Module] = []
        channels, halvings = in_channels, 0
        for entry in LAYERS[convolutions]:
            halves = entry is None or entry[2]
            halvings += halves
            keeps = not halves or halvings <= skipped
            if entry is None:
                layers += [] if keeps else [nn.MaxPool2d(2)]
                continue
            outside = scaled(entry[0], width)
            stride = 1 if keeps else 2
            layers.append(nn.Conv2d(channels, outside, entry[1], stride, padding=entry[1] // 2, bias=not batch_norm))
            layers += [nn.BatchNorm2d(outside)] if batch_norm else []
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
            channels = outside
        hidden, outputs = scaled(HIDDEN, width), num_classes + 5 * boxes
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.per_cell = head == "cell"
        cells = 1 if self.per_cell else grid * grid
        self.classifier = nn.Sequential(
            nn.Linear(channels * cells, hidden),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs * cells),
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        last = self.classifier[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)

    def forward(self, image: Tensor, targets: Targets | None = None) -> DetectorOutput:
        """See `headrace_models.detection.outputs`."""
        cells = self.cells(image)
        scores, rest = cells[..., : self.num_classes], cells[..., self.num_classes :]
        predicted = rest.reshape(
            *rest.shape[:2], self.boxes, 5
        )  # x, y in the cell, roots of width and height, confidence
        size = (image.shape[2], image.shape[3])
        losses = None if targets is None else self.losses(scores, predicted, targets, size)
        if self.training:
            return DetectorOutput(losses, None)
        found = (scores[:, :, None] * predicted[..., 4:]).clamp(0, 1)  # [batch, cells, boxes, classes]
        boxes = self.boxes_of(predicted, size)
        return DetectorOutput(losses, select(boxes.flatten(1, 2), found.flatten(1, 2), self.threshold, size))

    def cells(self, image: Tensor) -> Tensor:
        """All values of each cell, row by row, the classes' first: float32 `[batch, cells, classes + 5 * boxes]`."""
        maps = self.pool(self.features(image)).flatten(2)  # [batch, channels, cells]
        values: Tensor = self.classifier(maps.transpose(1, 2) if self.per_cell else maps.flatten(1))
        return values.float().view(len(image), self.grid**2, -1)

    def boxes_of(self, predicted: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes in pixels, `[batch, cells, boxes, 4]`."""
        cell = torch.arange(self.grid**2, device=predicted.device)
        corner = torch.stack([cell % self.grid, cell // self.grid], dim=-1)[None, :, None]
        pixels = predicted.new_tensor([size[1], size[0]])
        centre = (corner + predicted[..., :2]) * pixels / self.grid
        return cornered(torch.cat([centre, predicted[..., 2:4].square() * pixels], dim=-1))

    def losses(self, scores: Tensor, predicted: Tensor, targets: Targets, size: tuple[int, int]) -> dict[str, Tensor]:
        """Equation 3 in three parts, summed over a picture's cells, means over pictures."""
        pixels = predicted.new_tensor([size[1], size[0]])
        true = centred(targets.boxes) / torch.cat([pixels, pixels])  # from 0 to 1
        place = (true[..., :2] * self.grid).clamp(0, self.grid - 1e-3)
        cell = place[..., 1].long() * self.grid + place[..., 0].long()
        at = functional.one_hot(cell, self.grid**2).bool()  # [batch, objects, cells]
        mine = at & targets.wanted[..., None]
        has, owner = mine.any(dim=1), mine.int().argmax(dim=1)  # the first object of each cell
        silent = (at & targets.ignored[..., None]).any(dim=1) & ~has

        def of_cell(values: Tensor) -> Tensor:
            return values.gather(1, owner[..., None].expand(-1, -1, values.shape[2]))

        wanted = torch.cat([of_cell(place) % 1, of_cell(true[..., 2:]).clamp(min=0).sqrt()], dim=-1)
        with torch.no_grad():
            shared = overlap(self.boxes_of(predicted, size), of_cell(targets.boxes)[:, :, None]).squeeze(-1)
            responsible = functional.one_hot(shared.argmax(dim=2), self.boxes).bool() & has[..., None]
        confidence = predicted[..., 4]
        off = (predicted[..., :4] - wanted[:, :, None]).square().sum(dim=-1)
        unsure = torch.where(
            responsible, (confidence - shared).square(), NO_OBJECT * confidence.square() * ~silent[..., None]
        )
        label = functional.one_hot(of_cell(targets.labels[..., None]).squeeze(-1).clamp(min=0), self.num_classes)
        wrong = (scores - label).square().sum(dim=-1)
        return {
            "box": COORDINATES * (off * responsible).sum(dim=(1, 2)).mean(),
            "confidence": unsure.sum(dim=(1, 2)).mean(),
            "classification": (wrong * has).sum(dim=1).mean(),
        }
