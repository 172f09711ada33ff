"""`train.compile`: torch.compile of the training step, refused at once where it could not work.

PyTorch itself says so only after the first batch, and in an error of many lines. What is asked for and cannot be had is
an error here and not a slower training: nobody would see it before the bill.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import cast

import torch

from headrace.base.errors import InvalidInput

# What Inductor calls on a CPU (its `cpp.cxx`), and Triton on a GPU (`triton.runtime.build`), and by which variable
# somebody can name another.
_COMPILERS = {"cpu": ("CXX", ("g++",)), "cuda": ("CC", ("gcc", "clang"))}


def require_compiler(device: torch.device) -> None:
    """Raise InvalidInput where PyTorch has nothing to compile with for DEVICE."""
    variable, usual = _COMPILERS[device.type]
    named = os.environ.get(variable)
    tried = (named,) if named else usual
    if not any(shutil.which(name) for name in tried):
        raise InvalidInput(
            f"train.compile is true, and this worker has no compiler ({' or '.join(tried)})",
            action=f"install {usual[0]} where the workers run (Debian: g++), or set train.compile: false",
            code="no-compiler",
        )
    if device.type == "cuda" and find_spec("triton") is None:
        raise InvalidInput(
            "train.compile is true, and this worker has no triton",
            action="install the triton that PyTorch was built with, or set train.compile: false",
            code="no-compiler",
        )


def compiled_step(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """MODEL as the training step calls it; its parameters and their names stay MODEL's own.

    Raises:
        InvalidInput: there is no compiler.
    """
    require_compiler(device)
    import torch._inductor.config

    # By default as many processes as the machine has cores; a worker has what it reserved.
    torch._inductor.config.compile_threads = torch.get_num_threads()
    return cast("torch.nn.Module", torch.compile(model))
