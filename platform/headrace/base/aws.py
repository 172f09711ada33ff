"""What of the environment decides how S3 is reached.

The Ray head and the process that talks to MLflow outlive the command that starts them, and keep its environment. A
later command that reaches S3 in another way would hand them work that they cannot do, so it compares first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

_PREFIXES = ("AWS_", "MLFLOW_S3_")


def aws_fingerprint(environment: Mapping[str, str] = os.environ) -> str:
    """What changes with the variables that S3 clients read; it does not give them away."""
    told = sorted(f"{name}={value}" for name, value in environment.items() if name.startswith(_PREFIXES))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] if told else ""


def tell_boto_the_region(environment: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Let boto read AWS_REGION, as AWS's other tools do: by itself it reads AWS_DEFAULT_REGION only."""
    if region := environment.get("AWS_REGION"):
        environment.setdefault("AWS_DEFAULT_REGION", region)
