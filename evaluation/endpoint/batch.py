"""The endpoint's Batch API: questions go up as a file, answers come down as one.

Which batch is under way is written down before it is waited for, so that a run that is stopped waits for the same one
again and pays once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from evaluation.endpoint.chat import Answer, Unanswered, most_tokens, read_completion, usage_of, without_key
from evaluation.endpoint.limits import Budget, Clock
from evaluation.endpoint.settings import OpenAISettings
from evaluation.scores import Status

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

logger = logging.getLogger(__name__)

# A batch's own limits (OpenAI: 50,000 requests, 200 MB); smaller ones come back sooner.
REQUESTS_A_BATCH = 10_000
POLL_S = 30.0
_ENDED = ("completed", "failed", "expired", "cancelled")
_URL: Final = "/v1/chat/completions"


class Batches:
    """Asks by batch, one batch after another.

    Args:
        key: of the API.
        budget: shared by all runs of a judge.
        clock: how time passes.
        state: file that remembers the batch under way.
        poll_s: between two looks at it.
    """

    def __init__(
        self, settings: OpenAISettings, key: str, budget: Budget, clock: Clock, *, state: Path, poll_s: float = POLL_S
    ) -> None:
        self._settings, self._key, self._budget, self._clock = settings, key, budget, clock
        self._state, self._poll_s = state, poll_s
        self.n_calls = 0
        self.stopped: str | None = None  # why it asks no more, once it does not

    async def answers(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Answer | Unanswered]:
        """What came of each question, by its id; a question that is missing was not asked, or not answered."""
        answered: dict[str, Answer | Unanswered] = {}
        entries = list(bodies.items())
        for first in range(0, len(entries), REQUESTS_A_BATCH):
            answered |= await self._batch(dict(entries[first : first + REQUESTS_A_BATCH]))
            if self.stopped is not None:
                break
        return answered

    async def _batch(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Answer | Unanswered]:
        from openai import AsyncOpenAI, OpenAIError

        s = self._settings
        async with AsyncOpenAI(api_key=self._key, base_url=s.base_url, timeout=s.timeout_s) as client:
            try:
                begun = await self._begun(client, bodies)
                if begun is None:
                    return {}
                ended = await self._ended(client, begun)
                self.n_calls += len(bodies)
                answered = await self._read(client, ended)
            except OpenAIError as error:
                self.stopped = f"the batch could not be had: {without_key(error, self._key)}"
                return {}
        self._state.unlink()  # all that came of it is read; what did not is asked anew
        if ended.status != "completed":
            logger.warning("judge: batch %s %s; what it did not answer is unscored", ended.id, ended.status)
        return answered

    async def _begun(self, client: AsyncOpenAI, bodies: Mapping[str, dict[str, Any]]) -> str | None:
        """Id of the batch with these questions: the one under way, or a new one; ``None``: it can't be paid for."""
        lines = [
            json.dumps({"custom_id": key, "method": "POST", "url": _URL, "body": body}) + "\n"
            for key, body in bodies.items()
        ]
        data = "".join(lines).encode()
        digest = hashlib.sha256(data).hexdigest()
        known = json.loads(self._state.read_text("utf-8")) if self._state.is_file() else {}
        if known.get("digest") == digest:
            return str(known["batch"])
        longest = self._settings.max_tokens
        most = sum(self._budget.cost(most_tokens(body["messages"]), longest) for body in bodies.values())
        if not self._budget.reserve(most):
            left = f"more than is left of the budget of {self._budget.limit:g}"
            self.stopped = f"the batch may cost {most:.4g}, {left}"
            return None
        try:
            file = await client.files.create(file=("questions.jsonl", data), purpose="batch")
            batch = await client.batches.create(input_file_id=file.id, endpoint=_URL, completion_window="24h")
        finally:
            self._budget.reserved -= most  # what it did cost is booked answer by answer
        self._state.parent.mkdir(parents=True, exist_ok=True)
        self._state.write_text(json.dumps({"batch": batch.id, "digest": digest}), "utf-8")
        return batch.id

    async def _ended(self, client: AsyncOpenAI, begun: str) -> Batch:
        batch = await client.batches.retrieve(begun)
        while batch.status not in _ENDED:
            logger.info("judge: batch %s is %s; looking again in %g s", batch.id, batch.status, self._poll_s)
            await self._clock.sleep(self._poll_s)
            batch = await client.batches.retrieve(batch.id)
        return batch

    async def _read(self, client: AsyncOpenAI, ended: Batch) -> dict[str, Answer | Unanswered]:
        answered: dict[str, Answer | Unanswered] = {}
        for file_id in (ended.output_file_id, ended.error_file_id):
            if file_id:
                text = (await client.files.content(file_id)).text
                answered |= dict(self._read_line(line) for line in text.splitlines() if line.strip())
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
        self._budget.settle(0.0, *(0 if count is None else count for count in used))
        read = read_completion(completion, used, lambda error: without_key(error, self._key))
        if isinstance(read, Answer):
            return entry["custom_id"], read
        return entry["custom_id"], Unanswered(read.status, read.reason, read.usage)
