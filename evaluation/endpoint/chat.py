"""What came of one question to a model: the answer that is read, or why there is none, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.endpoint.replies import Next, Refusal, Usage
from evaluation.scores import Status

# No count of tokens is larger; what a server says beyond it is no count.
_MOST_TOKENS = 10**9


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    content: str
    usage: Usage
    cut_off: bool  # by max_tokens


class Unanswered(Exception):
    """A call that gave no answer: the status and reason that its scores get, and what it cost.

    Attributes:
        curable: whether the same question may be answered another time.
    """

    def __init__(self, status: Status, reason: str, usage: Usage = (None, None), *, curable: bool = True) -> None:
        super().__init__(reason)
        self.status, self.usage, self.curable = status, usage, curable


def read_completion(completion: Mapping[str, Any]) -> Answer | Refusal:
    """What the model said, or why there is nothing to read."""
    used = usage_of(completion)
    choice = completion["choices"][0]
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        return Refusal(Next.RETRY, "the server answered without choices", usage=used)
    reason = choice.get("finish_reason")
    if message.get("refusal"):
        return Refusal(Next.NEVER, str(message["refusal"]), Status.REFUSED, usage=used)
    if reason == "content_filter":
        return Refusal(Next.NEVER, "the server's content filter", Status.REFUSED, usage=used)
    content = message.get("content")
    if isinstance(content, list):  # in parts
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content:
        return Refusal(Next.RETRY, f"an empty answer (finish_reason {reason})", usage=used)
    return Answer(content, used, cut_off=reason == "length")


def most_tokens(chat: Sequence[Mapping[str, str]]) -> int:
    """More tokens than a chat can have: a token has a byte at least, a message some of its own."""
    return sum(len(message["content"].encode("utf-8", "replace")) + 16 for message in chat)


def usage_of(completion: Mapping[str, Any]) -> Usage:
    """Tokens that an answer says it cost; ``None`` where it does not say, or says what can't be."""
    usage = completion.get("usage")
    if not isinstance(usage, Mapping):
        return None, None
    counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
    sound = all(type(count) is int and 0 <= count <= _MOST_TOKENS for count in counts)
    return counts if sound else (None, None)
