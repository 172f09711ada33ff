"""`builtin:digits`: scikit-learn's 1,797 grey images of 8 x 8 in folders 0 to 9 (UCI: optical digits)."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.base.errors import MissingExtra
from headrace.data.png import png_of

if TYPE_CHECKING:
    import numpy as np

SIDE = 8
LEVELS = 16  # the brightest of the set's 17 grey levels


def version() -> str:
    """See `BuiltinSet`."""
    try:
        return f"scikit-learn {metadata.version('scikit-learn')}"
    except metadata.PackageNotFoundError:
        raise MissingExtra("train", "builtin data") from None


def contents() -> Mapping[str, bytes]:
    """See `BuiltinSet`. The grey levels are spread over 0 to 255."""
    import numpy as np

    values = digits()
    images = np.rint(values[:, : SIDE * SIDE] * (255 / LEVELS)).astype(np.uint8)
    return {
        f"{int(row[-1])}/{i:05d}.png": png_of(image.tobytes(), SIDE, SIDE)
        for i, (row, image) in enumerate(zip(values, images, strict=True))
    }


def digits() -> np.ndarray:
    """float64 [1797, 65], the class last. Read from scikit-learn's file: importing its datasets takes seconds."""
    import numpy as np

    version()
    found = util.find_spec("sklearn")
    file = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if file.is_file():
        return np.array(
            gzip.decompress(file.read_bytes()).replace(b"\n", b",").rstrip(b",").split(b","), float
        ).reshape(-1, 65)
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    return np.column_stack([data, target])
