"""Who has, or waits for, something of which this machine has only so much: CPUs, or the right to move an alias.

A `flock` cannot do it: the run that holds an alias is two processes one after the other, and CPUs are a number. So
claims are lines of one JSON file, each owned by a process that can be recognised again; the line of a killed owner
counts no more, and those who wait are served in the order in which they came.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.base.jsonfile import write_json
from headrace.base.locks import file_lock
from headrace.base.processes import ProcessRef

Wants = Mapping[str, Any]
# What a claim gets, given what it wants and what the others hold; None: it has to wait.
Decide = Callable[[Wants, Sequence[Wants]], Wants | None]

POLL_SECONDS = 0.2  # how soon a freed claim is noticed; each poll reads one small file


@dataclass(frozen=True)
class Claim:
    """One line: `holder` is what people are told; `has` is None while it waits."""

    token: str
    holder: str
    owner: ProcessRef
    wants: Wants
    has: Wants | None

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "token": self.token,
            "holder": self.holder,
            "owner": self.owner.to_record(),
            "wants": dict(self.wants),
            "has": None if self.has is None else dict(self.has),
        }


class Ledger:
    """The claims in the file PATH, which is created by the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def claims(self) -> list[Claim]:
        """The claims whose owners live, in the order in which they came."""
        try:
            records = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []
        found = []
        for record in records:
            owner = ProcessRef.from_record(record["owner"])
            if owner is not None and owner.alive():
                found.append(Claim(record["token"], record["holder"], owner, record["wants"], record["has"]))
        return found

    @contextmanager
    def _edit(self) -> Iterator[list[Claim]]:
        with file_lock(self.path.with_suffix(".lock"), holder="the ledger of claims"):
            claims = self.claims()
            before = list(claims)
            yield claims
            if claims != before:
                write_json(self.path, [claim.to_record() for claim in claims])

    def acquire(
        self,
        wants: Wants,
        decide: Decide,
        *,
        holder: str,
        owner: ProcessRef,
        on_wait: Callable[[Sequence[str]], None] | None = None,
    ) -> Claim:
        """Wait for one's turn and for DECIDE to grant WANTS; returns the claim to `release`.

        ON_WAIT is called with the names of those waited for, each time they change.
        """
        token = secrets.token_hex(8)
        with self._edit() as claims:
            claims.append(Claim(token, holder, owner, wants, None))
        told: list[str] = []
        try:
            while True:
                claim, blockers = self._try(token, decide)
                if claim is not None:
                    return claim
                if on_wait is not None and blockers != told:
                    told = blockers
                    on_wait(blockers)
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.release(lambda claim: claim.token == token)
            raise

    def _try(self, token: str, decide: Decide) -> tuple[Claim | None, list[str]]:
        with self._edit() as claims:
            place = next(index for index, claim in enumerate(claims) if claim.token == token)
            ahead = [claim for claim in claims[:place] if claim.has is None]
            held = [claim for claim in claims if claim.has is not None]
            if not ahead:
                has = decide(claims[place].wants, [claim.has for claim in held if claim.has is not None])
                if has is not None:
                    claims[place] = replace(claims[place], has=has)
                    return claims[place], []
            return None, list(dict.fromkeys(claim.holder for claim in [*held, *ahead]))

    def release(self, which: Callable[[Claim], bool]) -> None:
        """Strike out the claims that WHICH picks."""
        with self._edit() as claims:
            claims[:] = [claim for claim in claims if not which(claim)]
