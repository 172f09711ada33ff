"""What is particular to a kind of problem, behind one protocol."""

from headrace_models.tasks.base import BadInput, Sample, Schema, Signature, Task, TensorSpec
from headrace_models.tasks.build import build_task, build_tasks, task_from_record

__all__ = [
    "BadInput",
    "Sample",
    "Schema",
    "Signature",
    "Task",
    "TensorSpec",
    "build_task",
    "build_tasks",
    "task_from_record",
]
