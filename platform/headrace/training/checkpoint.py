"""Checkpoints: everything that training needs to go on as if nothing had happened.

    model.safetensors   the model's weights, for whoever wants nothing else
    state.pt            the rest, read with weights_only=True: optimizer, scaler, moving average, the best epoch's
                        weights, history, what the task learned, random states of every worker

Ray Train copies the folder into the run's storage and then names it in its snapshot (`checkpoint_folder.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file


def random_states() -> dict[str, Any]:
    """The states of this process's random generators, as tensors and plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """The inverse of `random_states`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def seed_everything(seed: int) -> None:
    """Seed the generators that user code and PyTorch draw from."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)


def write_checkpoint(folder: Path, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint into an empty FOLDER."""
    save_file(dict(weights), folder / "model.safetensors")
    torch.save(dict(state), folder / "state.pt")


def read_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(weights, state) of the checkpoint in FOLDER."""
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    return load_file(folder / "model.safetensors"), state
