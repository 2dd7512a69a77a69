"""The same judge through the endpoint's Batch API: half the price, hours of time, nothing in flight.

Questions go up as a file, answers come down as one. Which batch is under way is written down before it is waited
for, so that a run that is stopped waits for the same one again and pays once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.endpoint.calls import (
    Answer,
    Caller,
    Unanswered,
    most_tokens,
    read_completion,
    request_body,
    usage_of,
    without_key,
)
from evaluation.endpoint.limits import Clock
from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import Item
from evaluation.judges.openai import OnScored, OpenAIJudge
from evaluation.scores import Score, Status

logger = logging.getLogger(__name__)

# A batch's own limits (OpenAI: 50,000 requests, 200 MB); smaller ones come back sooner.
REQUESTS_A_BATCH = 10_000
POLL_S = 30.0
_ENDED = ("completed", "failed", "expired", "cancelled")


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
        caller = _Collecting(self._settings, self._key, self.budget, self._clock)
        for item in items:
            await self._judge_one(caller, item, attributes, keep=False)
        answered: dict[str, Answer | Unanswered] = {}
        bodies = list(caller.bodies.items())
        for first in range(0, len(bodies), REQUESTS_A_BATCH):
            answered |= await self._answers(dict(bodies[first : first + REQUESTS_A_BATCH]))
            if self.stopped is not None:
                break
        reader = _Reading(self._settings, self._key, self.budget, self._clock, answered)
        results = []
        for index, item in enumerate(items):
            results.append(await self._judge_one(reader, item, attributes))
            if on_scored is not None:
                on_scored(index, results[-1])
        return results

    async def _answers(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Answer | Unanswered]:
        from openai import AsyncOpenAI, OpenAIError

        lines = [
            json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"
            for key, body in bodies.items()
        ]
        data = "".join(lines).encode()
        digest = hashlib.sha256(data).hexdigest()
        most = sum(self.budget.cost(most_tokens(b["messages"]), self._settings.max_tokens) for b in bodies.values())
        known = json.loads(self._state.read_text("utf-8")) if self._state.is_file() else {}
        s = self._settings
        async with AsyncOpenAI(api_key=self._key, base_url=s.base_url, timeout=s.timeout_s) as client:
            try:
                if known.get("digest") != digest:
                    if not self.budget.reserve(most):
                        self.stopped = (
                            f"the batch may cost {most:.4g}, more than is left of the budget of {self.budget.limit:g}"
                        )
                        return {}
                    file = await client.files.create(file=("questions.jsonl", data), purpose="batch")
                    batch = await client.batches.create(
                        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                    )
                    known = {"batch": batch.id, "digest": digest}
                    self._state.parent.mkdir(parents=True, exist_ok=True)
                    self._state.write_text(json.dumps(known), "utf-8")
                    self.budget.reserved -= most
                batch = await client.batches.retrieve(known["batch"])
                while batch.status not in _ENDED:
                    logger.info("judge: batch %s is %s; looking again in %g s", batch.id, batch.status, self._poll_s)
                    await self._clock.sleep(self._poll_s)
                    batch = await client.batches.retrieve(batch.id)
                self.n_calls += len(bodies)
                answered: dict[str, Answer | Unanswered] = {}
                for file_id in (batch.output_file_id, batch.error_file_id):
                    if file_id:
                        text = (await client.files.content(file_id)).text
                        answered |= dict(self._read_line(line) for line in text.splitlines() if line.strip())
            except OpenAIError as error:
                self.stopped = f"the batch could not be had: {without_key(error, self._key)}"
                return {}
        self._state.unlink()  # all that came of it is read; what did not is asked anew
        if batch.status != "completed":
            logger.warning("judge: batch %s %s; what it did not answer is unscored", batch.id, batch.status)
        return answered

    def _read_line(self, line: str) -> tuple[str, Answer | Unanswered]:
        from openai.types.chat import ChatCompletion

        entry = json.loads(line)
        response = entry.get("response") or {}
        if response.get("status_code") != 200:
            reason = without_key(entry.get("error") or response.get("body"), self._key)
            return entry["custom_id"], Unanswered(Status.FAILED, reason)
        completion = ChatCompletion.construct(**response["body"])
        used = usage_of(completion)
        self.budget.settle(0.0, *(0 if count is None else count for count in used))
        read = read_completion(completion, used, lambda error: without_key(error, self._key))
        if isinstance(read, Answer):
            return entry["custom_id"], read
        return entry["custom_id"], Unanswered(read.status, read.reason, read.usage)


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
        self, settings: OpenAISettings, key: str, budget: Any, clock: Clock, answered: Mapping[str, Answer | Unanswered]
    ) -> None:
        super().__init__(settings, key, budget, clock)
        self._answered = answered

    async def ask(self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]) -> Answer:
        body = request_body(self._settings, chat, name, None if self._settings.structured == "none" else schema)
        found = self._answered.get(_id(body))
        if isinstance(found, Answer):
            return found
        raise found or Unanswered(Status.FAILED, "the batch has no answer to it")
