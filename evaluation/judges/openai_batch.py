"""The same judge through the endpoint's Batch API: half the price, hours of time, nothing in flight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.endpoint.batch import POLL_S, Batches
from evaluation.endpoint.calls import Caller
from evaluation.endpoint.chat import Answer, Unanswered, request_body
from evaluation.endpoint.limits import Budget, Clock
from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import Item
from evaluation.judges.openai import OnScored, OpenAIJudge
from evaluation.scores import Score, Status


class BatchJudge(OpenAIJudge):
    """An :class:`OpenAIJudge` that asks by batch.

    Args:
        state: file that remembers the batch under way.
        poll_s: between two looks at it.
    """

    def __init__(self, *args: Any, state: Path, poll_s: float = POLL_S, **more: Any) -> None:
        super().__init__(*args, **more)
        self._state, self._poll_s = state, poll_s

    async def _judge_all(
        self, items: Sequence[Item], attributes: Sequence[str], on_scored: OnScored | None
    ) -> list[dict[str, Score]]:
        """First what is asked of every text is collected, then asked by batch, then read as if answered at once."""
        shared = self._settings, self._key, self.budget, self._clock
        caller = _Collecting(*shared)
        for item in items:
            await self._judge_one(caller, item, attributes, keep=False)
        batches = Batches(*shared, state=self._state, poll_s=self._poll_s)
        answered = await batches.answers(caller.bodies)
        self.n_calls += batches.n_calls
        self.stopped = batches.stopped
        reader = _Reading(*shared, answered)
        results = []
        for index, item in enumerate(items):
            results.append(await self._judge_one(reader, item, attributes))
            if on_scored is not None:
                on_scored(index, results[-1])
        return results


def _id(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:40]


class _Collecting(Caller):
    """Answers nothing; remembers what was asked."""

    def __init__(self, settings: OpenAISettings, *args: Any) -> None:
        super().__init__(settings, *args)
        self.bodies: dict[str, dict[str, Any]] = {}

    async def ask(self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]) -> Answer:
        body = request_body(self._settings, chat, name, None if self._settings.structured == "none" else schema)
        self.bodies[_id(body)] = body
        raise Unanswered(Status.FAILED, "not asked yet")


class _Reading(Caller):
    """Answers from a batch."""

    def __init__(
        self,
        settings: OpenAISettings,
        key: str,
        budget: Budget,
        clock: Clock,
        answered: Mapping[str, Answer | Unanswered],
    ) -> None:
        super().__init__(settings, key, budget, clock)
        self._answered = answered

    async def ask(self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]) -> Answer:
        body = request_body(self._settings, chat, name, None if self._settings.structured == "none" else schema)
        found = self._answered.get(_id(body))
        if isinstance(found, Answer):
            return found
        raise found or Unanswered(Status.FAILED, "the batch has no answer to it")
