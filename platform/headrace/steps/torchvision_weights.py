"""Weights that torchvision publishes, by its names (`torchvision:resnet18`, `torchvision:VGG16_Weights.DEFAULT`).

Nothing is downloaded: the file must lie where PyTorch keeps what it downloads (torch.hub's folder, which TORCH_HOME
moves), and must be the file that its name says: the name holds the beginning of its sha256.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base.errors import InvalidInput, MissingExtra
from headrace.base.jsonfile import sha256_of_file
from headrace.spec.files import TORCHVISION
from headrace_models.catalog import listed, nearest

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

_HASH = re.compile(r"-([0-9a-f]{8,})\.")  # as torch.hub finds it in a file's name
_MOST_NAMES = 8  # in a message


def torchvision_file(given: str) -> Path:
    """The file of the weights that GIVEN (`torchvision:NAME`) names, on this machine, checked by its name's hash.

    Raises:
        InvalidInput: torchvision has no such weights, the file is not here, or it is another one.
        MissingExtra: torchvision is not installed.
    """
    weights = _weights(given.removeprefix(TORCHVISION))
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rsplit("/", 1)[-1]
    download = f"from torchvision.models import get_weight; get_weight('{weights}').get_state_dict(check_hash=True)"
    get = f'python -c "{download}"'
    if not file.is_file():
        raise InvalidInput(
            f"model.init_from: the weights {weights} are not on this machine: there is no {file.name} in {file.parent}",
            action=f"download them once with: {get}; or name a .safetensors or .pth file of your own",
        )
    told = _HASH.search(file.name)
    if told is None:
        raise InvalidInput(
            f"model.init_from: the file of {weights} cannot be checked: {file.name} has no hash in its name",
            action="name the file itself, if you trust it: `init_from: PATH`",
        )
    sha256 = sha256_of_file(file)
    if not sha256.startswith(told[1]):
        raise InvalidInput(
            f"model.init_from: {file} is damaged, or another file: its sha256 begins with {sha256[: len(told[1])]}",
            action=f"remove it and download it again with: {get}",
        )
    return file


def _weights(name: str) -> WeightsEnum:
    try:
        from torchvision import models
    except ImportError:
        raise MissingExtra("train", "torchvision's weights") from None
    group, dot, member = name.partition(".")
    try:
        found: WeightsEnum = models.get_weight(name) if dot else models.get_model_weights(name)["DEFAULT"]
    except (KeyError, ValueError, TypeError):
        raise _unknown(models, name, group, member) from None
    return found


def _unknown(models: Any, name: str, group: str, member: str) -> InvalidInput:
    """The error of a NAME that torchvision does not have: with the nearest models, or weights of a model."""
    groups = {each.__name__: each for each in map(models.get_model_weights, models.list_models())}
    if not member:
        known = models.list_models()
    elif group in groups:
        known = [str(weights) for weights in groups[group]]
    else:
        known = [f"{near}.DEFAULT" for near in nearest(group, groups)] or [f"{each}.DEFAULT" for each in groups]
    names = listed(name, known).split(", ")
    return InvalidInput(
        f"model.init_from: torchvision has no weights {name!r}",
        action=f"the nearest are {', '.join(f'{TORCHVISION}{each}' for each in names[:_MOST_NAMES])}",
    )
