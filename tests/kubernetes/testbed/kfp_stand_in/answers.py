"""What the API answers: values, and errors with the bodies that the real one gave them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from kfp_stand_in.world import Record

_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}


class Problem(Exception):
    """An error: its HTTP status and its body."""

    def __init__(self, status: int, message: str, *, upload: bool = False) -> None:
        super().__init__(message)
        self.status = status
        if upload:
            self.body: Record = {"error_message": message, "error_details": message}
        else:
            details = [{"@type": "type.googleapis.com/google.rpc.Status", "message": message}]
            self.body = {"error": message, "code": _CODES.get(status, 2), "message": message, "details": details}


def page(found: list[Record], key: str, query: Mapping[str, str], largest: int) -> Record:
    """One page of FOUND under KEY, filtered and sorted as QUERY wants."""
    found = [record for record in found if _matches(record, query.get("filter", ""))]
    field, _, order = (query.get("sort_by") or "created_at").partition(" ")
    found.sort(key=lambda record: str(record.get(field) or ""), reverse=order == "desc")
    begin = int(base64.b64decode(query["page_token"])) if query.get("page_token") else 0
    size = min(int(query.get("page_size") or 20), largest)
    answer: Record = {"total_size": len(found)}
    if found[begin : begin + size]:
        answer[key] = found[begin : begin + size]
    if begin + size < len(found):
        answer["next_page_token"] = base64.b64encode(str(begin + size).encode()).decode()
    return answer


def _matches(record: Record, text: str) -> bool:
    if not text:
        return True
    for predicate in json.loads(text).get("predicates", ()):
        if predicate.get("operation") not in {1, "EQUALS"}:
            raise Problem(400, f"the stand-in knows no operation {predicate.get('operation')!r}")
        wanted: Any = predicate.get("stringValue", predicate.get("string_value"))
        if record.get(predicate["key"]) != wanted:
            return False
    return True
