"""Which parameters an endpoint takes: each is sent until the server refuses it by name, then left out or exchanged.

What was found out holds for all later calls to the endpoint, those of later runs included (it stands in the cache of
answers). What a question says, and so what an answer is kept under, does not change with it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from evaluation.endpoint.settings import OpenAISettings

logger = logging.getLogger(__name__)

# Sent under another name before it is left out: newer models of OpenAI's call it so.
_EXCHANGED = {"max_tokens": "max_completion_tokens"}
_OPTIONAL = ("temperature", "max_tokens", "max_completion_tokens", "seed", "response_format")


class Notes(Protocol):
    """Where something is remembered by a name."""

    def recall(self, name: str) -> str | None:
        """What was remembered, if anything."""
        ...

    def remember(self, name: str, value: str) -> None:
        """Remember it."""
        ...


class Dialect:
    """Of one endpoint and model.

    Args:
        settings: of the endpoint.
        notes: that survive the process; ``None``: none.

    Attributes:
        answered: whether it has answered a call of this process.
    """

    def __init__(self, settings: OpenAISettings, base_url: str, notes: Notes | None = None) -> None:
        self._settings, self._notes = settings, notes
        self._name = f"{base_url} {settings.model}"
        self._refused: list[str] = []  # in the order in which they were
        self._taken: set[str] = set()  # of calls that were answered
        self.answered = False
        known = notes.recall(self._name) if notes is not None else None
        if known is not None:
            self._refused = [name for name in _names_in(known) if name in _OPTIONAL]
        if self._refused:
            logger.warning("judge: %s, as an earlier run found out", self.said)

    @property
    def left_out(self) -> list[str]:
        """What is not sent, or sent under another name, and how that is."""
        other = {name: _EXCHANGED[name] for name in self._refused if name in _EXCHANGED}
        return [
            f"{name} (sent as {other[name]})" if name in other and other[name] not in self._refused else name
            for name in self._refused
            if name not in other.values()
        ]

    @property
    def said(self) -> str:
        """The same as a line."""
        return f"{self._settings.model} takes no {', '.join(self.left_out)}: left out"

    def body(
        self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any], *, without: Sequence[str] = ()
    ) -> dict[str, Any]:
        """What is sent: a chat, and what the endpoint takes of the settings and of the answer's form.

        Args:
            name, schema: of the answer's form.
            without: left out of this call alone.
        """
        body = request_body(self._settings, chat, name, schema)
        for refused in self._refused:
            if refused == "response_format" and self._settings.structured == "json_schema":
                continue  # asked for by name
            value = body.pop(refused, None)
            if value is not None and refused in _EXCHANGED:
                body[_EXCHANGED[refused]] = value
        return {key: value for key, value in body.items() if key not in without}

    def refuse(self, parameter: str, body: Mapping[str, Any], why: str) -> str | None:
        """A call's server has refused a parameter: it is sent no more.

        Args:
            body: of the call.
            why: the server's words, without the key.

        Returns:
            why the call can't be made without it, if it can't.
        """
        if parameter not in _OPTIONAL or parameter in (self._settings.extra_body or {}):
            return f"{parameter} is refused; leave it out of extra_body"
        if parameter == "response_format" and self._settings.structured == "json_schema":
            return "response_format is refused; give structured: auto, or none"
        if parameter in self._refused:
            return None  # found out while this call was under way
        self._refused.append(parameter)
        if parameter in _EXCHANGED and parameter in body:
            logger.warning("judge: %s takes no %s: sent as %s from now on (%s)", self._settings.model, parameter,
                           _EXCHANGED[parameter], why)  # fmt: skip
        else:
            logger.warning("judge: %s takes no %s: left out from now on (%s)", self._settings.model, parameter, why)
        if self._notes is not None:
            self._notes.remember(self._name, json.dumps(self._refused))
        return None

    def took(self, body: Mapping[str, Any]) -> None:
        """A call with this body was answered."""
        self.answered = True
        self._taken.update(body)

    def is_taken(self, parameter: str) -> bool:
        """Whether a call with it was answered."""
        return parameter in self._taken


def request_body(
    settings: OpenAISettings, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]
) -> dict[str, Any]:
    """What the settings ask for: the body that names a question, whatever its endpoint takes of it."""
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": list(chat),
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed,
    }
    if settings.temperature is None:
        del body["temperature"]
    if settings.structured != "none":
        form = {"name": name, "strict": True, "schema": dict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body | dict(settings.extra_body or {})


def _names_in(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
