"""The run spec: read, overridden, judged whole, and brought to the one canonical form that everything else uses."""

from headrace.spec.load import load_spec
from headrace.spec.model import RunSpec

__all__ = ["RunSpec", "load_spec"]
