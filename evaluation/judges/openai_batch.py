"""The same judge through the endpoint's Batch API: half the price, hours of time, nothing in flight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.endpoint.batch import POLL_S, Batches, Question
from evaluation.endpoint.breaker import Stop
from evaluation.endpoint.calls import Caller
from evaluation.endpoint.chat import Answer, Unanswered
from evaluation.endpoint.dialect import request_body
from evaluation.items import Item
from evaluation.judges.openai import OnScored, OpenAIJudge
from evaluation.scores import Status


class BatchJudge(OpenAIJudge):
    """An :class:`OpenAIJudge` that asks by batch.

    Args:
        state: file that remembers the batch under way.
        poll_s: between two looks at it.
    """

    def __init__(self, *args: Any, state: Path, poll_s: float = POLL_S, **more: Any) -> None:
        super().__init__(*args, **more)
        self._state, self._poll_s = state, poll_s

    async def _judge_all(self, items: Iterable[Item], attributes: Sequence[str], on_scored: OnScored) -> None:
        """First what is asked of every text is collected, then asked by batch, then read as if answered at once."""
        items = list(items)  # for both
        shared = self._settings, self._key, self.budget, self._clock, self.dialect
        caller = _Collecting(*shared)
        for item in items:
            await self._judge_one(caller, item, attributes, keep=False)
        self.unanswered.clear()  # of the collecting
        batches = Batches(*shared, state=self._state, poll_s=self._poll_s)
        answered = await batches.answers(caller.questions)
        self.n_calls += batches.n_calls
        self.ended = batches.stop
        self.first_error = self.first_error or batches.first_error
        reader = _Reading(*shared, answered=answered, stop=batches.stop)
        for index, item in enumerate(items):
            on_scored(index, await self._judge_one(reader, item, attributes))


class _Collecting(Caller):
    """Answers nothing; remembers what was asked."""

    def __init__(self, *shared: Any) -> None:
        super().__init__(*shared)
        self.questions: dict[str, Question] = {}

    async def ask(self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]) -> Answer:
        question = Question(chat, name, schema)
        self.questions[self.id_of(question)] = question
        raise Unanswered(Status.FAILED, "not asked yet")

    def id_of(self, question: Question) -> str:
        """Of a question, whatever parameters the endpoint takes."""
        body = request_body(self._settings, question.chat, question.name, question.schema)
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:40]


class _Reading(_Collecting):
    """Answers from a batch."""

    def __init__(self, *shared: Any, answered: Mapping[str, Answer | Unanswered], stop: Stop | None) -> None:
        super().__init__(*shared)
        self._answered, self._stop = answered, stop

    async def ask(self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]) -> Answer:
        found = self._answered.get(self.id_of(Question(chat, name, schema)))
        if isinstance(found, Answer):
            return found
        if found is None and self._stop is not None:
            raise Unanswered(self._stop.status, f"not asked: {self._stop.reason}", curable=not self._stop.incurable)
        raise found or Unanswered(Status.FAILED, "the batch has no answer to it")
