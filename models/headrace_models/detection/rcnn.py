"""R-CNN: each region is cut out, warped to one size, and goes through the layers by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from headrace_models.detection.boxes import centred, cornered
from headrace_models.detection.faster_rcnn import start_outputs
from headrace_models.detection.layers import Convolution, Stage
from headrace_models.detection.outputs import PADDING, DetectorOutput, Targets, Threshold
from headrace_models.detection.regions import (
    Sampled,
    Sampling,
    as_rows,
    box_loss,
    found_in,
    in_place,
    needed,
    sample,
    solid_rows,
)

CONTEXT = 16 / 227  # of a crop's side that is around the region, on each side (section 2.1, appendix A)
STRIDE = 8  # of the layers
SLOPE = 3.0  # of the scores: a margin of 1 is .95, of -1 is .05
BETA = 1.0  # where the smooth L1 becomes straight


class Rcnn(nn.Module):
    """R-CNN (Girshick et al. 2014): crops of regions, convolutions, a linear SVM for each class against all the rest,
    and class-wise regression of the box.

    Input `[batch, in_channels, height, width]` and proposals; see `headrace_models.detection.outputs`. Losses: `svm`,
    the hinge loss of each class's SVM, summed over classes, mean over a picture's regions; `box`, smooth L1 of the
    offsets (appendix C) divided by the same number; means over pictures. Scores are the margins through a logistic
    function of a fixed slope: they rank detections and are no probabilities. To expect: docs/models/detection.md.

    Differs from the paper: there it is three trainings (a softmax to tune an AlexNet that knows ImageNet, then SVMs on
    stored features with mined negatives, then ridge regression); here all is one network and one loss, the convolutions
    are a small residual network with batch normalisation, learned with the SVMs, and the optimizer's weight decay is
    the SVMs' margin term. Regions that overlap by .5 are positive and those below .3 negative for both losses; the
    paper has the objects' own boxes only for the SVMs, and .6 for regression. Beyond the edge a crop is the mean
    colour, as in the paper. `nms_threshold` is the paper's .3.

    Args:
        crop: pixels a side that regions are warped to.
        width: channels of the first convolution.
        sampled: regions of a picture that are learned, a quarter of them objects at most.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        crop: int = 32,
        width: int = 16,
        sampled: int = 32,
        activation: str = "silu",
        score_threshold: float = 0.05,
        nms_threshold: float = 0.3,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.threshold = Threshold(score_threshold, nms_threshold, detections=max_detections)
        self.sampling = Sampling(sampled, positive=0.5, negative=0.3)
        self.crop, w, a = crop, width, activation
        self.features = nn.Sequential(
            Convolution(in_channels, w, stride=2, activation=a), Stage(w, 2 * w, 1, a), Stage(2 * w, 4 * w, 1, a)
        )
        values = 4 * w * (-(-crop // STRIDE)) ** 2
        self.svm, self.offsets = nn.Linear(values, num_classes), nn.Linear(values, 4 * num_classes)
        start_outputs(self.svm, self.offsets)

    def forward(self, image: Tensor, targets: Targets | None = None, proposals: Tensor | None = None) -> DetectorOutput:
        """See `headrace_models.detection.outputs`. Raises InvalidInput without proposals."""
        proposals, size = needed(proposals, "rcnn"), (image.shape[2], image.shape[3])
        losses = None
        if targets is not None:
            sampled = sample(proposals, targets, self.sampling, at_random=self.training)
            margins, by = self.read(image, sampled.boxes)
            losses = {"svm": hinge_loss(margins, sampled), "box": box_loss(by, sampled, BETA)}
        if self.training:
            return DetectorOutput(losses, None)
        margins, by = self.read(image, proposals)
        return DetectorOutput(losses, found_in(proposals, (SLOPE * margins).sigmoid(), by, self.threshold, size))

    def read(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """What is said of BOXES `[batch, R, 4]`: (margins `[batch, R, classes]`, offsets `[batch, R, classes, 4]`),
        float32; zeros where a box is none."""
        rows = solid_rows(boxes)
        x = self.features(warped(image, boxes, self.crop, rows)).flatten(1)
        margins, by = (in_place(part(x).float(), rows, boxes) for part in (self.svm, self.offsets))
        return margins, by.view(*by.shape[:2], -1, 4)


def warped(image: Tensor, boxes: Tensor, crop: int, rows: Tensor | None = None) -> Tensor:
    """BOXES `[batch, R, 4]` cut out of IMAGE with their CONTEXT, each warped to CROP pixels a side, zeros (the training
    pictures' mean) beyond the edge: float32 `[batch * R, channels, crop, crop]`, or those ROWS of it alone."""
    middle = centred(boxes)
    around = as_rows(cornered(torch.cat([middle[..., :2], middle[..., 2:] / (1 - 2 * CONTEXT)], dim=-1)))
    wanted = around if rows is None else around[rows]
    crops: Tensor = roi_align(image.float(), wanted, crop, sampling_ratio=2, aligned=True)
    return crops


def hinge_loss(margins: Tensor, sampled: Sampled) -> Tensor:
    """max(0, 1 - y * MARGINS), y = 1 for a region's own class and -1 for all others: summed over classes, mean over a
    picture's regions, mean over pictures."""
    used = sampled.label != PADDING
    own = functional.one_hot(sampled.label.clamp(min=0), margins.shape[2] + 1)[..., 1:]
    each = functional.relu(1 - (2 * own - 1) * margins).sum(dim=2)
    return ((each * used).sum(dim=1) / used.sum(dim=1).clamp(min=1)).mean()
