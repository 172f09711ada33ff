"""What a front answers when it cannot answer: a status and one sentence for whoever asked.

These never leave the HTTP side, so they stand apart from the tree in `headrace.base.errors`, which is for the people
who run Headrace, not for the programs that call a model.
"""

from __future__ import annotations


class RequestError(Exception):
    """A request that is refused.

    Args:
        status: the HTTP status, 4xx for the sender's mistakes, 503 for ours that pass.
        sentence: what is wrong and, where it helps, what is allowed.
        retry_after_seconds: when to come again; only with 503.
    """

    def __init__(self, status: int, sentence: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after_seconds = retry_after_seconds


def bad_request(sentence: str) -> RequestError:
    """A 400."""
    return RequestError(400, sentence)
