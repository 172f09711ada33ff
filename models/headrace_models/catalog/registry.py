"""The catalog itself: Headrace's own cards and those that installed packages add.

A package adds tasks and models through the entry point groups `headrace.tasks` and `headrace.models`; each entry point
is a function without arguments that returns a card or several, and must not import torch. A package whose entry point
fails is named in a warning and left out; two cards of one name are an error, since either could be meant.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from headrace.base.errors import Finding, InvalidInput, SpecInvalid
from headrace_models.catalog.activation_cards import ACTIVATIONS
from headrace_models.catalog.cards import Arguments, Card, ComponentCard, ModelCard, TaskCard
from headrace_models.catalog.loss_cards import LOSSES
from headrace_models.catalog.model_cards import MODELS
from headrace_models.catalog.names import listed, nearest
from headrace_models.catalog.optimizer_cards import OPTIMIZERS
from headrace_models.catalog.schedule_cards import SCHEDULES
from headrace_models.catalog.task_cards import TASKS

Kind = Literal["task", "model", "activation", "loss", "optimizer", "schedule"]
C = TypeVar("C", bound=Card)


class PluginWarning(UserWarning):
    """An installed package's cards could not be read; the rest of the catalog is whole."""


@dataclass(frozen=True)
class PluginProblem:
    """Why an entry point was left out."""

    distribution: str
    entry_point: str
    message: str

    def __str__(self) -> str:
        return f"{self.entry_point} of the installed package {self.distribution} was left out: {self.message}"


@dataclass(frozen=True)
class _Found:
    cards: tuple[tuple[str, Card], ...]  # (distribution, card)
    problems: tuple[PluginProblem, ...]
    versions: tuple[tuple[str, str], ...]


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "unknown")


def _cards_of(point: EntryPoint, wanted: type[C]) -> list[C]:
    given = point.load()()
    cards: list[C] = []
    for card in [given] if isinstance(given, Card) else given:
        if not isinstance(card, wanted):
            raise TypeError(f"it returned a {type(card).__name__}, where a {wanted.__name__} is wanted")
        if isinstance(card, ModelCard) and not card.tasks:
            raise ValueError(f"the card of the model {card.name!r} names no task: give it `tasks`")
        if isinstance(card, TaskCard) and not card.formats:
            raise ValueError(f"the card of the task {card.name!r} names no format of data: give it `formats`")
        cards.append(card)
    return cards


@cache
def _plugins(group: str, wanted: type[Card]) -> _Found:
    cards: list[tuple[str, Card]] = []
    problems: list[PluginProblem] = []
    versions: dict[str, str] = {}
    for point in sorted(entry_points(group=group), key=lambda p: (_distribution(p)[0], p.name)):
        distribution, version = _distribution(point)
        try:
            cards += [(distribution, card) for card in _cards_of(point, wanted)]
            versions[distribution] = version
        except Exception as error:  # whatever a foreign package does must not take the catalog down
            problems.append(PluginProblem(distribution, f"{group}: {point.name}", f"{type(error).__name__}: {error}"))
            warnings.warn(str(problems[-1]), PluginWarning, stacklevel=2)
    return _Found(tuple(cards), tuple(problems), tuple(versions.items()))


def _together(kind: str, own: Iterable[C], found: _Found, wanted: type[C]) -> dict[str, C]:
    cards = {card.name: card for card in own}
    owners = dict.fromkeys(cards, "Headrace itself")
    for distribution, card in found.cards:
        if card.name in cards:
            raise InvalidInput(
                f"two {kind}s are called {card.name!r}: one of {owners[card.name]} and one of the installed package "
                f"{distribution}",
                action=f"uninstall one of them (pip uninstall {distribution}), or have its {kind} renamed",
                code="name-clash",
            )
        assert isinstance(card, wanted)
        cards[card.name], owners[card.name] = card, distribution
    return cards


def tasks() -> dict[str, TaskCard]:
    """Every task by name, own ones first."""
    return _together("task", TASKS, _plugins("headrace.tasks", TaskCard), TaskCard)


def models() -> dict[str, ModelCard]:
    """Every zoo model by name, own ones first."""
    return _together("model", MODELS, _plugins("headrace.models", ModelCard), ModelCard)


def activations() -> dict[str, ComponentCard]:
    """Every activation by name."""
    return {card.name: card for card in ACTIVATIONS}


def losses() -> dict[str, ComponentCard]:
    """Every loss by name."""
    return {card.name: card for card in LOSSES}


def optimizers() -> dict[str, ComponentCard]:
    """Every optimizer by name."""
    return {card.name: card for card in OPTIMIZERS}


def schedules() -> dict[str, ComponentCard]:
    """Every learning-rate schedule by name."""
    return {card.name: card for card in SCHEDULES}


def table(kind: Kind) -> Mapping[str, Card]:
    """All cards of one kind by name."""
    tables: dict[str, Callable[[], Mapping[str, Card]]] = {
        "task": tasks,
        "model": models,
        "activation": activations,
        "loss": losses,
        "optimizer": optimizers,
        "schedule": schedules,
    }
    return tables[kind]()


def get(kind: Kind, name: str) -> Card:
    """The card of that kind and name.

    Raises:
        InvalidInput: there is none; the nearest names come first among the allowed ones.
    """
    cards = table(kind)
    if name in cards:
        return cards[name]
    close = nearest(name, cards)
    hint = (
        f"did you mean {close[0]}?" if close else f"choose one of the {kind}s that `headrace models` or the docs list"
    )
    raise InvalidInput(
        f"there is no {kind} called {name!r}",
        action=hint,
        code="unknown-name",
        findings=[Finding(kind, name, listed(name, cards), hint)],
    )


def plugin_versions() -> dict[str, str]:
    """The installed packages that add cards, with their versions: part of a training's cache key."""
    found = (_plugins("headrace.tasks", TaskCard), _plugins("headrace.models", ModelCard))
    return dict(sorted(pair for part in found for pair in part.versions))


def plugins_of(tasks: Iterable[str], model: str) -> dict[str, str]:
    """The installed packages, with their versions, that the cards of TASKS and of MODEL come from."""
    wanted = (("headrace.tasks", TaskCard, set(tasks)), ("headrace.models", ModelCard, {model}))
    owners: set[str] = set()
    for group, kind, names in wanted:
        owners.update(owner for owner, card in _plugins(group, kind).cards if card.name in names)
    return {name: version for name, version in plugin_versions().items() if name in owners}


def plugin_problems() -> list[PluginProblem]:
    """The entry points that were left out, and why."""
    found = (_plugins("headrace.tasks", TaskCard), _plugins("headrace.models", ModelCard))
    return [problem for part in found for problem in part.problems]


def refresh() -> None:
    """Forget what was discovered: packages were installed or removed since."""
    _plugins.cache_clear()


def arguments(card: Card, given: Mapping[str, Any], where: str = "") -> Arguments:
    """GIVEN judged by the card.

    Raises:
        SpecInvalid: with one finding for each mistake; WHERE is the path of the arguments in the spec.
    """
    try:
        return card.args.model_validate(dict(given))
    except ValidationError as error:
        findings = argument_findings(card.args, error, where or f"{card.name}.args")
        raise SpecInvalid(
            f"the arguments of {card.name} are wrong: {findings[0]}", action="mend them", findings=findings
        ) from None


def argument_findings(args: type[BaseModel], error: ValidationError, where: str) -> list[Finding]:
    """Each mistake that pydantic found in arguments of type ARGS, with what is allowed (nearest name first)."""
    findings = []
    for item in error.errors(include_url=False):
        path = ".".join([where, *(str(part) for part in item["loc"])])
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            name = str(item["loc"][-1])
            close = nearest(name, args.model_fields)
            action = f"did you mean {close[0]}?" if close else "remove it"
            allowed = listed(name, args.model_fields) or "no arguments"
            findings.append(Finding(path, repr(item["input"]), allowed, action))
        elif item["type"] == "missing":
            findings.append(Finding(path, "", "", "it is needed: add it"))
        elif item["type"] == "unknown_name":
            close_name = str(item.get("ctx", {}).get("nearest") or "")
            hint = f"did you mean {close_name}?" if close_name else ""
            findings.append(Finding(path, repr(item["input"]), item["msg"], hint))
        else:
            field = args.model_fields.get(str(item["loc"][0])) if item["loc"] else None
            reason = item["msg"].removeprefix("Value error, ")
            action = (field.description or "") if field is not None else ""
            findings.append(Finding(path, repr(item["input"]), reason, action))
    return findings
