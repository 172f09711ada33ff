"""The catalog: what can be named in a spec, as cards that are read without torch."""

from headrace_models.catalog.cards import Arguments, Card, ComponentCard, ModelCard, NoArguments, TaskCard
from headrace_models.catalog.names import listed, matches, nearest
from headrace_models.catalog.registry import (
    PluginProblem,
    PluginWarning,
    activations,
    argument_findings,
    arguments,
    get,
    losses,
    models,
    optimizers,
    plugin_problems,
    plugin_versions,
    refresh,
    schedules,
    table,
    tasks,
)

__all__ = [
    "Arguments",
    "Card",
    "ComponentCard",
    "ModelCard",
    "NoArguments",
    "PluginProblem",
    "PluginWarning",
    "TaskCard",
    "activations",
    "argument_findings",
    "arguments",
    "get",
    "listed",
    "losses",
    "matches",
    "models",
    "nearest",
    "optimizers",
    "plugin_problems",
    "plugin_versions",
    "refresh",
    "schedules",
    "table",
    "tasks",
]
