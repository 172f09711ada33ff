"""Faster R-CNN on a ResNet-50 with a feature pyramid, at the size that is published."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from headrace.base.errors import InvalidInput
from headrace_models.classification.resnet import resnet50
from headrace_models.classification.sizes import FULL_SIZE, scaled
from headrace_models.detection.faster_rcnn import GRID, SAMPLES, FasterRcnnBase
from headrace_models.detection.outputs import Threshold
from headrace_models.detection.regions import Sampling
from headrace_models.detection.rpn import Proposing

SIDES = (32, 64, 128, 256, 512)  # pixels: of the anchors, one a map (Lin et al. 2017, section 4.1)
RATIOS = (0.5, 1.0, 2.0)
CHANNELS, HIDDEN = 256, 1024
NAMES = ("0", "1", "2", "3")  # of the maps that regions are read from
CANDIDATES = 100_000  # as many as there are: torchvision has no limit before suppression


class FasterRcnnFpn(FasterRcnnBase):
    """Faster R-CNN (Ren et al. 2015) on a ResNet-50 with a feature pyramid (Lin et al. 2017, section 4).

    Input `[batch, in_channels, height, width]`; see `headrace_models.detection.outputs`. 41,755,286 parameters at 90
    classes and the background. Names and shapes are those of torchvision's `fasterrcnn_resnet50_fpn`: its weights load
    by `init_from`, and it computes the same. To expect: COCO mAP 37.0 (published, torchvision, from a ResNet-50 trained
    on ImageNet). From scratch it needs very many pictures: `faster-rcnn` is the one for a CPU or for little data.

    Differs from torchvision: pictures come in at the task's `image_size`, normalised to the training data's mean and
    variance; losses are means over pictures, where torchvision's are means over the regions of a batch. `width` makes
    it one that trains from scratch on a CPU, with the same anchors.

    Args:
        norm: frozen: batch normalisation with the statistics that came with the weights, as published; batch: learned,
            as training from scratch needs it (53,120 parameters more).
        width: factor on all channels, those of the pyramid and of the linear layers too.
        proposals: regions of a picture that are looked at, twice as many while it trains.
        sampled: regions of a picture that are learned, a quarter of them objects at most.
        score_threshold, nms_threshold, max_detections: see `outputs.Threshold`.

    Raises:
        InvalidInput: another width with frozen statistics, which only weights of the published size have.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        norm: Literal["frozen", "batch"] = "frozen",
        width: float = 1.0,
        proposals: int = 1000,
        sampled: int = 512,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__(
            Threshold(score_threshold, nms_threshold, CANDIDATES, max_detections),
            Proposing(2 * proposals, 2 * proposals),
            Proposing(proposals, proposals),
            Sampling(sampled),
        )
        channels, hidden = scaled(CHANNELS, width), scaled(HIDDEN, width)
        self.backbone = _backbone(in_channels, norm, width, channels)
        self.rpn = nn.ModuleDict({"head": RPNHead(channels, len(RATIOS))})
        self.roi_heads = nn.ModuleDict(
            {
                "box_head": TwoMLPHead(channels * GRID**2, hidden),
                "box_predictor": FastRCNNPredictor(hidden, num_classes + 1),
            }
        )
        self._anchors = AnchorGenerator(tuple((side,) for side in SIDES), (RATIOS,) * len(SIDES))
        self._pool = MultiScaleRoIAlign(list(NAMES), GRID, SAMPLES)

    def maps(self, image: Tensor) -> list[Tensor]:
        """See `FasterRcnnBase.maps`: strides 4, 8, 16, 32, 64."""
        return list(self.backbone(image).values())

    def anchors(self, image: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """See `FasterRcnnBase.anchors`."""
        size = (image.shape[2], image.shape[3])
        every: Tensor = self._anchors(ImageList(image[:1], [size]), list(maps))[0]
        return list(torch.split(every, [x.shape[2] * x.shape[3] * len(RATIOS) for x in maps]))

    def regions(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See `FasterRcnnBase.regions`."""
        batch = len(maps[0])
        logits, by = concat_box_prediction_layers(*self.rpn["head"](list(maps)))
        return logits.view(batch, -1), by.view(batch, -1, 4)

    def read(self, maps: Sequence[Tensor], boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `FasterRcnnBase.read`."""
        features = {name: x.float() for name, x in zip(NAMES, maps, strict=False)}
        pooled = self._pool(features, list(boxes), [size] * len(boxes))
        scores, by = self.roi_heads["box_predictor"](self.roi_heads["box_head"](pooled))
        shape = torch.Size(boxes.shape[:2])
        return scores.unflatten(0, shape), by.unflatten(0, shape).unflatten(2, (-1, 4))[:, :, 1:]


def _backbone(in_channels: int, norm: str, width: float, channels: int) -> BackboneWithFPN:
    """A ResNet-50 with a pyramid of CHANNELS: torchvision's, or at another width ours, whose names are the same."""
    if width != 1:
        if norm == "frozen":
            raise InvalidInput(
                f"frozen statistics come with weights of the published size, and there are none of width {width}",
                action="set norm: batch, or width: 1",
            )
        body = resnet50(1, in_channels, image_size=FULL_SIZE, width=width)
        inside = [4 * scaled(64 << stage, width) for stage in range(4)]
        return BackboneWithFPN(body, {f"layer{k + 1}": NAMES[k] for k in range(4)}, inside, channels)
    layer = partial(FrozenBatchNorm2d, eps=0.0) if norm == "frozen" else nn.BatchNorm2d
    found = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=layer, trainable_layers=5)
    if in_channels != 3:
        first = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        found.body.conv1 = first
    return found
