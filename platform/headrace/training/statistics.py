"""Statistics of an epoch: added up over a worker's batches, then over all workers.

Sums are in double precision, so that how samples were dealt out over batches and workers shows in the last bits only.
All is done on the CPU and over gloo: it happens once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from headrace.base.errors import InvalidInput
from headrace.training.group import Group
from headrace_models.layers.counting import Statistics

Layout = dict[str, tuple[tuple[int, ...], str]]  # by name: shape (of kept rows without their number), type


@dataclass
class Totals:
    """What a worker has seen so far in an epoch."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    kept: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    loss: torch.Tensor | None = None
    samples: int = 0

    def add(self, statistics: Statistics, samples: int) -> None:
        """Take in the STATISTICS of a batch of SAMPLES.

        Raises:
            InvalidInput: they are no tensors, or have other names, shapes or types than those of the batch before.
        """
        require_tensors(statistics)
        sums = {name: _wide(value.detach().cpu()) for name, value in statistics.sums.items()}
        kept = {name: value.detach().cpu() for name, value in statistics.kept.items()}
        if self.samples:
            before = Statistics(self.sums, {name: rows[0] for name, rows in self.kept.items()}, self.loss)
            require_alike([layout(before), layout(Statistics(sums, kept, statistics.loss))], "two batches")
        for name, value in sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        for name, value in kept.items():
            self.kept.setdefault(name, []).append(value)
        if statistics.loss is not None:
            loss = statistics.loss.detach().double().cpu()
            self.loss = loss if self.loss is None else self.loss + loss
        self.samples += samples

    def everyones(self, group: Group) -> tuple[Statistics, int]:
        """(the statistics of all workers of GROUP, their samples), the same on each of them.

        Raises:
            InvalidInput: the workers' statistics have different names, shapes or types.
        """
        own = Statistics(self.sums, {name: torch.cat(rows) for name, rows in self.kept.items()}, self.loss)
        told = group.gather((layout(own), {name: len(rows) for name, rows in own.kept.items()}, self.samples))
        require_alike([theirs for theirs, _, _ in told], "two workers")
        joined = Statistics(
            sums={name: _summed(own.sums[name], group) for name in sorted(own.sums)},
            kept={name: _joined(own.kept[name], [counts[name] for _, counts, _ in told]) for name in sorted(own.kept)},
            loss=None if own.loss is None else _summed(own.loss, group),
        )
        return joined, sum(samples for _, _, samples in told)


def require_tensors(statistics: Statistics) -> None:
    """Raise InvalidInput unless STATISTICS are tensors, and those that are kept have rows."""
    loss = {} if statistics.loss is None else {"": statistics.loss}
    for kind, values in (("sum", statistics.sums), ("kept", statistics.kept), ("loss", loss)):
        for name, value in values.items():
            if not isinstance(value, torch.Tensor):
                wrong, action = f"a {type(value).__name__}", "give tensors, as torch.tensor(3.0) of a number"
            elif kind == "kept" and not value.dim():
                wrong, action = "a tensor without rows", "give [rows, ...], as value[None] of one row"
            else:
                continue
            raise InvalidInput(f"`accumulate` gave {f'{kind} {name}'.strip()} as {wrong}", action=action)


def layout(statistics: Statistics) -> Layout:
    """What must be the same for STATISTICS that are put together."""
    found: Layout = {f"sum {name}": (tuple(value.shape), str(value.dtype)) for name, value in statistics.sums.items()}
    found |= {f"kept {name}": (tuple(rows.shape[1:]), str(rows.dtype)) for name, rows in statistics.kept.items()}
    if statistics.loss is not None:
        found["loss"] = (tuple(statistics.loss.shape), "")
    return found


def require_alike(layouts: Sequence[Layout], whose: str) -> None:
    """Raise InvalidInput unless all LAYOUTS, WHOSE they are, are one and the same."""
    for other in layouts[1:]:
        for name in sorted({*layouts[0], *other}):
            first, second = layouts[0].get(name), other.get(name)
            if first != second:
                raise InvalidInput(
                    f"`accumulate` of {whose} gave different statistics: {name} is {_told(first)} and {_told(second)}",
                    action="give each batch the same names, shapes and types: zeros for what it says nothing about, "
                    "no rows where it keeps none",
                )


def _told(entry: tuple[tuple[int, ...], str] | None) -> str:
    return "not there" if entry is None else f"{list(entry[0])} {entry[1]}".strip()


def _wide(value: torch.Tensor) -> torch.Tensor:
    """VALUE in double precision, row after row: an all-reduce adds up what lies in memory, whatever the strides are."""
    return (value.double() if value.is_floating_point() else value.long()).contiguous()


def _summed(value: torch.Tensor, group: Group) -> torch.Tensor:
    if group.world == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def _joined(rows: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Everyone's ROWS in rank order, of which worker n has COUNTS[n]; as bytes, so that any type can travel."""
    if len(counts) == 1 or not any(counts):
        return rows
    own = rows.contiguous().flatten().view(torch.uint8)
    width = math.prod(rows.shape[1:]) * rows.element_size()
    sent = torch.zeros(max(counts) * width, dtype=torch.uint8)
    sent[: own.numel()] = own
    received = [torch.empty_like(sent) for _ in counts]
    dist.all_gather(received, sent)
    parts = [part[: count * width] for part, count in zip(received, counts, strict=True)]
    return torch.cat(parts).view(rows.dtype).view(sum(counts), *rows.shape[1:])


def on(statistics: Statistics, device: torch.device) -> Statistics:
    """STATISTICS on DEVICE."""

    def moved(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.to(device) for name, value in tensors.items()}

    loss = None if statistics.loss is None else statistics.loss.to(device)
    return Statistics(moved(statistics.sums), moved(statistics.kept), loss)


def with_nan(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first of TENSORS in which something is not a number."""
    return next((name for name, value in tensors if value.is_floating_point() and bool(value.isnan().any())), None)
