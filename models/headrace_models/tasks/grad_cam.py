"""Grad-CAM: which places of a picture speak for a class (Selvaraju et al. 2017, section 3).

    alpha_k = mean over places of dy/dA_k          y: the score of the class, before softmax
    map     = ReLU(sum over k of alpha_k A_k)      A_k: channel k of the last layer that has places

The layer is found by watching one picture go through: the last module whose output is `[batch, channels, height,
width]` with more than one place, and on which the score depends. One that enlarges its input, as an adaptive pool may,
made its places up: it is passed over unless it is named. The network is used as it is and left as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headrace.base.errors import InvalidInput
from headrace_models.catalog.names import listed

Run = Callable[[Tensor], Tensor]  # pictures, as the network takes them, to scores [batch, classes]


class Layer(NamedTuple):
    """A module's output, of the nth time that it is called; from 0 on."""

    name: str
    call: int


See = Callable[[Layer, Tensor, bool], Tensor | None]  # the bool: the output has more places than the input


def grad_cam(model: nn.Module, run: Run, pictures: Tensor, name: str | None = None) -> tuple[Tensor, Tensor]:
    """Where in PICTURES [batch, channels, height, width] the class that each is taken for is seen.

    Args:
        run: calls MODEL.
        name: the module whose output is looked at; the last one that has places where it is None.

    Returns:
        Maps [batch, height, width] from 0, the size of PICTURES, and the classes [batch].

    Raises:
        InvalidInput: there is no such module, or none that has places and that the scores depend on.
    """
    pictures = pictures.detach()
    with torch.inference_mode(False), torch.enable_grad():
        if pictures.is_inference():
            pictures = pictures.clone()
        layer = find_layer(model, run, pictures[:1], name)
        kept: list[Tensor] = []
        with _watching(model, [layer.name], partial(_cut, layer, kept)):
            scores = run(pictures)
        chosen = scores.argmax(dim=1)
        (places,) = kept
        (slopes,) = torch.autograd.grad(scores.gather(1, chosen[:, None]).sum(), places)
    maps = (slopes.mean(dim=(2, 3), keepdim=True) * places.detach()).sum(dim=1, keepdim=True).relu()
    size = (pictures.shape[2], pictures.shape[3])
    return nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0], chosen


def find_layer(model: nn.Module, run: Run, picture: Tensor, name: str | None = None) -> Layer:
    """The last layer of MODEL with places on which the scores of PICTURE [1, ...] depend; see `grad_cam`."""
    modules = [each for each, _ in model.named_modules() if each]
    if name is not None and name not in modules:
        raise InvalidInput(
            f"the network has no layer {name!r}; there are {listed(name, modules)}",
            action="write one of them as explain_layer, or leave it out",
        )
    seen: list[tuple[Layer, Tensor]] = []
    start = picture.detach().requires_grad_() * 1  # a leaf must not be changed in place, as a network may
    with _watching(model, modules if name is None else [name], partial(_noted, seen, name is not None)):
        best = run(start).max()
    found = [each for each in seen if each[1].requires_grad]
    slopes: tuple[Tensor | None, ...] = ()
    if found and best.requires_grad:
        slopes = torch.autograd.grad(best, [out for _, out in found], allow_unused=True)
    used = [layer for (layer, _), slope in zip(found, slopes, strict=False) if slope is not None]
    if not used:
        whose = "the network has no layer that" if name is None else f"the layer {name!r} is not one that"
        raise InvalidInput(
            f"{whose} gives [batch, channels, height, width] with more than one place, and that the scores depend on",
            action="leave `explain` out, or name a convolution as explain_layer",
        )
    return used[-1]


def _noted(seen: list[tuple[Layer, Tensor]], all_of_them: bool, called: Layer, out: Tensor, enlarged: bool) -> None:
    if all_of_them or not enlarged:
        seen.append((called, out))


def _cut(layer: Layer, kept: list[Tensor], called: Layer, out: Tensor, _enlarged: bool) -> Tensor | None:
    """OUT of LAYER as the beginning of a graph: what comes before need not be remembered."""
    if called != layer:
        return None
    kept.append(out.detach().requires_grad_() * 1)
    return kept[0]


def _places(value: Any) -> int:
    """How many places VALUE has; 0 where it is no `[batch, channels, height, width]`."""
    return value.shape[2] * value.shape[3] if isinstance(value, Tensor) and value.ndim == 4 else 0


@contextmanager
def _watching(model: nn.Module, names: list[str], see: See) -> Iterator[None]:
    """Within it SEE is given each output with places of the modules NAMES; what it returns is taken instead."""
    calls: Counter[str] = Counter()

    def hook(name: str, _module: nn.Module, given: Any, out: Any) -> Any:
        if _places(out) < 2:
            return None
        calls[name] += 1
        enlarged = 0 < _places(next(iter(given), None)) < _places(out)
        return see(Layer(name, calls[name] - 1), out, enlarged)

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(partial(hook, name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
