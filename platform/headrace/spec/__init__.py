"""The run spec: read, overridden, judged whole, and brought to the one canonical form that everything else uses.

Names are imported when they are used: a step that only needs the gate's arithmetic does not import pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.base.late import late_names

if TYPE_CHECKING:
    from headrace.spec.load import load_spec
    from headrace.spec.model import RunSpec

__all__ = ["RunSpec", "load_spec"]

__getattr__ = late_names(__name__, {"RunSpec": "model", "load_spec": "load"})
