"""Class folders, read from paths alone: shared by the split, which decodes, and `headrace init`, which need not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from headrace.data.source import SourceFile

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})


def class_of(path: str) -> str:
    """The class of the file at PATH: its first folder."""
    return path.split("/", 1)[0]


def is_image(path: str) -> bool:
    """Whether PATH is named like an image."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def sorted_out(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[tuple[str, str]]]:
    """The images that lie in class folders, and the path of every other file with what it is."""
    images, others = [], []
    for file in files:
        if not is_image(file.path):
            others.append((file.path, "not an image"))
        elif "/" not in file.path:
            others.append((file.path, "lies in no class folder"))
        else:
            images.append(file)
    return images, others


def predefined_split(images: Sequence[SourceFile]) -> list[str]:
    """The top folders if they are a split (train beside test or validation, classes within), train first."""
    tops = {class_of(image.path) for image in images}
    names = {name.lower() for name in tops}
    nested = all(image.path.count("/") >= 2 for image in images)
    split = len(tops) > 1 and names <= SPLIT_FOLDERS and bool(names & {"train", "training"})
    return sorted(tops, key=lambda name: (not name.lower().startswith("train"), name)) if split and nested else []
