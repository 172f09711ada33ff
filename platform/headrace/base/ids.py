"""Names that are safe everywhere: in MLflow, as a Kubernetes label, as a folder."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

LONGEST_NAME = 40  # of TrainingRuns and ModelDeployments: what is made for them adds a suffix, and may have 47
RUN_ID = re.compile(r"[a-z][a-z0-9-]{0,23}-[a-z2-7]{8}")


def slug(text: str, longest: int = 24) -> str:
    """TEXT as `[a-z][a-z0-9-]*` of at most LONGEST characters."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not cleaned or not cleaned[0].isalpha():
        cleaned = f"r-{cleaned}".rstrip("-")
    return cleaned[:longest].rstrip("-")


def new_run_id(name: str) -> str:
    """A fresh run id: NAME's slug and 40 random bits in base32, as `digits-k3v7q2ma`."""
    return f"{slug(name)}-{base64.b32encode(secrets.token_bytes(5)).decode().lower()}"


def derived_run_id(name: str, seed: str) -> str:
    """The run id that belongs to SEED, which is unique where it comes from: the same wherever it is asked for."""
    digest = hashlib.sha256(seed.encode()).digest()[:5]
    return f"{slug(name)}-{base64.b32encode(digest).decode().lower()}"


def is_run_id(text: str) -> bool:
    """Whether TEXT has the shape of a run id (so that it can be used as a folder's name)."""
    return RUN_ID.fullmatch(text) is not None
