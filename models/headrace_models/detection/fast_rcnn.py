"""Fast R-CNN: the picture goes through the layers once, and regions that came with it are read from its features."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision.ops import roi_pool

from headrace_models.classification.sizes import FULL_SIZE
from headrace_models.classification.vgg import Vgg
from headrace_models.detection.faster_rcnn import start_outputs
from headrace_models.detection.layers import Pyramid
from headrace_models.detection.outputs import DetectorOutput, Targets, Threshold
from headrace_models.detection.regions import (
    Sampling,
    as_rows,
    box_loss,
    classification_loss,
    found_in,
    in_place,
    needed,
    onto,
    sample,
    solid_rows,
)

GRID = 7  # places a side of a pooled region
VGG_HIDDEN = 4096
BETA = 1.0  # where the smooth L1 becomes straight (equation 3)
LEVELS = 4  # of the small backbone: strides 4 to 32, regions are read from the first


class FastRcnn(nn.Module):
    """Fast R-CNN (Girshick 2015): VGG16 to its last convolution, RoI pooling to 7x7, the two hidden linear layers, then
    scores and offsets of each class.

    Input `[batch, in_channels, height, width]` and proposals; see `headrace_models.detection.outputs`. 134,690,729
    parameters at 20 classes and the background. Names of the layers that VGG16 has are torchvision's, so its weights
    load by `init_from`. Losses (equations 1 to 3): `classification`, cross-entropy; `box`, smooth L1; both divided by
    the picture's sampled regions, means over pictures. To expect: VOC 2007 mAP 66.9 (published, from VGG16 trained on
    ImageNet); of `backbone: small`, docs/models/detection.md.

    Differs from the paper: background is sampled from all regions that overlap with objects by less than .5, where the
    paper wants .1 at least; the objects' own boxes are sampled too, as in the authors' code; scale and mean of offsets
    are fixed; all layers are trained. `backbone: small` is a residual pyramid whose map of stride 4 is read, with batch
    normalisation, since VGG16's stride of 16 leaves nothing of small pictures.

    Args:
        backbone: vgg16 or small.
        width, hidden: of the small one: channels of its first convolution, values of the two linear layers.
        sampled: regions of a picture that are learned, a quarter of them objects at most.
        dropout: share of the hidden values dropped while training.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        backbone: Literal["vgg16", "small"] = "vgg16",
        width: int = 16,
        hidden: int = 128,
        sampled: int = 64,
        dropout: float = 0.5,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.threshold = Threshold(score_threshold, nms_threshold, detections=max_detections)
        self.sampling = Sampling(sampled)
        if backbone == "vgg16":
            vgg = Vgg("D", 1, in_channels, FULL_SIZE, dropout=dropout)
            self.features: nn.Module = vgg.features[:-1]
            self.classifier = vgg.classifier[:-1]
            hidden = VGG_HIDDEN
        else:
            self.features = Pyramid(in_channels, width, LEVELS, [0], "silu")
            inside = 4 * width * GRID**2
            self.classifier = nn.Sequential(
                *(nn.Linear(inside, hidden), nn.ReLU(), nn.Dropout(dropout)),
                *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)),
            )
            for layer in self.classifier:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        self.scores = nn.Linear(hidden, 1 + num_classes)
        self.offsets = nn.Linear(hidden, 4 * (1 + num_classes))  # the background's are never read, as published
        start_outputs(self.scores, self.offsets)

    def forward(self, image: Tensor, targets: Targets | None = None, proposals: Tensor | None = None) -> DetectorOutput:
        """See `headrace_models.detection.outputs`. Raises InvalidInput without proposals."""
        proposals = needed(proposals, "fast-rcnn")
        features, size = self.features(image), (image.shape[2], image.shape[3])
        if isinstance(features, list):
            features = features[0]
        losses = None
        if targets is not None:
            sampled = sample(proposals, targets, self.sampling, at_random=self.training)
            scores, by = self.read(features, sampled.boxes, size)
            losses = {"classification": classification_loss(scores, sampled), "box": box_loss(by, sampled, BETA)}
        if self.training:
            return DetectorOutput(losses, None)
        scores, by = self.read(features, proposals, size)
        odds = scores.float().softmax(dim=2)[..., 1:]
        return DetectorOutput(losses, found_in(proposals, odds, by, self.threshold, size))

    def read(self, features: Tensor, boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What is said of BOXES `[batch, R, 4]` in pixels of a picture of SIZE: (scores `[batch, R, 1 + classes]`, the
        background first, offsets `[batch, R, classes, 4]`); zeros where a box is none."""
        rows = solid_rows(boxes)
        pooled = roi_pool(features.float(), as_rows(boxes, onto(features, size))[rows], GRID)
        x = self.classifier(pooled.flatten(1))
        scores, by = (in_place(part(x), rows, boxes) for part in (self.scores, self.offsets))
        return scores, by.view(*by.shape[:2], -1, 4)[:, :, 1:]
