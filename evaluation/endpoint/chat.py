"""One question to a model and what came of it: the body that is sent, the answer that is read, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.endpoint.settings import OpenAISettings
from evaluation.scores import Status

Usage = tuple[int | None, int | None]  # prompt and completion tokens, if the server said


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    content: str
    usage: Usage
    cut_off: bool  # by max_tokens


class Unanswered(Exception):
    """A call that gave no answer: the status and reason that its scores get, and what it cost."""

    def __init__(self, status: Status, reason: str, usage: Usage = (None, None)) -> None:
        super().__init__(reason)
        self.status, self.usage = status, usage


@dataclass(frozen=True)
class Failure:
    """A call without an answer; ``again``: ``pause`` (throttled), ``retry``, ``now`` (asked otherwise), or never."""

    status: Status
    reason: str
    again: str | None
    usage: Usage = (None, None)


def without_key(error: object, key: str) -> str:
    """An error's text on one line, without the key."""
    return " ".join(str(error).split()).replace(key, "***")[:300]


def request_body(
    settings: OpenAISettings, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is sent: a chat, and the answer's form if the endpoint is held to take one."""
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": list(chat),
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed,
    }
    if schema is not None:
        form = {"name": name, "strict": True, "schema": dict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def read_completion(completion: Any, used: Usage, clean: Callable[[object], str]) -> Answer | Failure:
    """What the model said, or why there is nothing to read."""
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices or getattr(choices[0], "message", None) is None:
        return Failure(Status.FAILED, "the server answered without choices", "retry", used)
    message, reason = choices[0].message, choices[0].finish_reason
    if getattr(message, "refusal", None):
        return Failure(Status.REFUSED, clean(message.refusal), None, used)
    if reason == "content_filter":
        return Failure(Status.REFUSED, "the server's content filter", None, used)
    if not isinstance(message.content, str) or not message.content:
        return Failure(Status.FAILED, f"an empty answer (finish_reason {reason})", "retry", used)
    return Answer(message.content, used, cut_off=reason == "length")


def most_tokens(chat: Sequence[Mapping[str, str]]) -> int:
    """More tokens than a chat can have: a token has a byte at least, a message some of its own."""
    return sum(len(message["content"].encode("utf-8", "replace")) + 16 for message in chat)


def usage_of(completion: Any) -> Usage:
    """Tokens that an answer says it cost; ``None`` where it does not say."""
    usage = getattr(completion, "usage", None)
    counts = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    return counts if all(isinstance(count, int) and count >= 0 for count in counts) else (None, None)
