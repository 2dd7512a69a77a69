"""The endpoint's Batch API: questions go up as a file, answers come down as one.

Which batch is under way is written down before it is waited for, so that a run that is stopped waits for the same one
again and pays once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from evaluation.endpoint.breaker import Stop
from evaluation.endpoint.chat import Answer, Unanswered, most_tokens, read_completion
from evaluation.endpoint.dialect import Dialect
from evaluation.endpoint.limits import FIRST_PAUSE_S, LONGEST_PAUSE_S, Budget, Clock
from evaluation.endpoint.replies import Next, Refusal, read_exception, read_reply
from evaluation.endpoint.settings import OpenAISettings, base_url_of
from evaluation.scores import Status
from personas.secrets import without_key

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

logger = logging.getLogger(__name__)

# A batch's own limits (OpenAI: 50,000 requests, 200 MB); smaller ones come back sooner.
REQUESTS_A_BATCH = 10_000
POLL_S = 30.0
# Files of up to 200 MB travel: they may take so many times what a call may.
_FILES_TAKE = 20
_ENDED = ("completed", "failed", "expired", "cancelled")
_URL: Final = "/v1/chat/completions"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Question:
    """What is asked, whatever parameters the endpoint takes."""

    chat: Sequence[Mapping[str, str]]
    name: str
    schema: Mapping[str, Any]


class _NotHad(Exception):
    """A batch that can't be had."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


class Batches:
    """Asks by batch, one batch after another.

    Args:
        key: of the API.
        budget: shared by all runs of a judge.
        clock: how time passes.
        dialect: what the endpoint takes.
        state: file that remembers the batch under way.
        poll_s: between two looks at it.
    """

    def __init__(
        self,
        settings: OpenAISettings,
        key: str,
        budget: Budget,
        clock: Clock,
        dialect: Dialect,
        *,
        state: Path,
        poll_s: float = POLL_S,
    ) -> None:
        self._settings, self._key, self._budget, self._clock, self._dialect = settings, key, budget, clock, dialect
        self._state, self._poll_s = state, poll_s
        self.n_calls = 0
        self.stop: Stop | None = None  # why it asks no more, once it does not
        self.first_error: str | None = None

    async def answers(self, questions: Mapping[str, Question]) -> dict[str, Answer | Unanswered]:
        """What came of each question, by its id; a question that is missing was not asked, or not answered."""
        answered: dict[str, Answer | Unanswered] = {}
        entries = list(questions.items())
        for first in range(0, len(entries), REQUESTS_A_BATCH):
            left = dict(entries[first : first + REQUESTS_A_BATCH])
            while left and self.stop is None:  # once more where a parameter was refused
                bodies = {key: self._dialect.body(each.chat, each.name, each.schema) for key, each in left.items()}
                found = await self._batch(bodies)
                again = self._refused_for_form(found, bodies)
                for key, each in found.items():
                    if isinstance(each, Answer):
                        self._dialect.took(bodies[key])
                        answered[key] = each
                    elif key not in again:
                        curable = each.next in (Next.PAUSE, Next.UNREACHABLE, Next.RETRY)
                        answered[key] = Unanswered(each.status, each.words, each.usage, curable=curable)
                left = {key: left[key] for key in again}
        return answered

    def _refused_for_form(
        self, found: Mapping[str, Answer | Refusal], bodies: Mapping[str, Mapping[str, Any]]
    ) -> set[str]:
        """Ids of the questions to be asked anew, without a parameter that was refused."""
        refusals = {key: each for key, each in found.items() if isinstance(each, Refusal)}
        again = set()
        for key, each in refusals.items():
            if each.next is Next.OTHERWISE and each.parameter is not None:
                why = self._dialect.refuse(each.parameter, bodies[key], each.words)
                if why is None:
                    again.add(key)
                elif self.stop is None:
                    self.stop = Stop(f"{why} ({each.words})", incurable=True)
        if found and len(refusals) == len(found) and not again:
            first = next(iter(refusals.values()))
            if all(each.next is Next.STOP for each in refusals.values()):
                self.stop = Stop(first.words, incurable=True)
            sent = all("response_format" in bodies[key] for key in refusals) and self._settings.structured == "auto"
            if sent and all(each.next is Next.NEVER and not each.explained for each in refusals.values()):
                again = set(refusals) if self._dialect.refuse("response_format", {}, first.words) is None else again
        return again

    async def _batch(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Answer | Refusal]:
        from openai import AsyncOpenAI

        s = self._settings
        files_s = s.timeout_s * _FILES_TAKE
        async with AsyncOpenAI(api_key=self._key, base_url=base_url_of(s), timeout=files_s, max_retries=0) as client:
            try:
                begun = await self._begun(client, bodies)
                if begun is None:
                    return {}
                ended = await self._ended(client, begun)
                self.n_calls += len(bodies)
                answered = await self._read(client, ended, bodies)
            except _NotHad as error:
                self.stop = error.stop
                return {}
        self._state.unlink(missing_ok=True)  # all that came of it is read; what did not is asked anew
        if ended.status != "completed":
            why = "; ".join(each.message or "" for each in (ended.errors.data or [])) if ended.errors else ""
            said = self._clean(why)
            self.first_error = self.first_error or said or None
            logger.warning("judge: batch %s %s%s; what it did not answer is unscored", ended.id, ended.status,
                           f" ({said})" if said else "")  # fmt: skip
        return answered

    async def _begun(self, client: AsyncOpenAI, bodies: Mapping[str, dict[str, Any]]) -> str | None:
        """Id of the batch with these questions: the one under way, or a new one; ``None``: it can't be paid for."""
        lines = [
            json.dumps({"custom_id": key, "method": "POST", "url": _URL, "body": body}) + "\n"
            for key, body in bodies.items()
        ]
        data = "".join(lines).encode()
        digest = hashlib.sha256(data).hexdigest()
        known = self._under_way()
        if known.get("digest") == digest:
            return str(known["batch"])
        longest = self._settings.max_tokens
        most = sum(self._budget.cost(most_tokens(body["messages"]), longest) for body in bodies.values())
        if not self._budget.reserve(most):
            left = f"more than is left of the budget of {self._budget.limit:g}"
            self.stop = Stop(f"the batch may cost {most:.4g}, {left}", of_budget=True)
            return None
        try:
            file = await self._had(
                lambda: client.files.create(file=("questions.jsonl", data), purpose="batch"), takes=_FILES_TAKE
            )
            batch = await self._had(
                lambda: client.batches.create(input_file_id=file.id, endpoint=_URL, completion_window="24h"), once=True
            )
        finally:
            self._budget.reserved -= most  # what it did cost is booked answer by answer
        self._state.parent.mkdir(parents=True, exist_ok=True)
        self._state.write_text(json.dumps({"batch": batch.id, "digest": digest}), "utf-8")
        return batch.id

    def _under_way(self) -> dict[str, Any]:
        try:
            known = json.loads(self._state.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) and "batch" in known else {}

    async def _ended(self, client: AsyncOpenAI, begun: str) -> Batch:
        while True:
            batch = await self._had(lambda: client.batches.retrieve(begun), patient=True)
            if batch.status in _ENDED:
                return batch
            logger.info("judge: batch %s is %s; looking again in %g s", batch.id, batch.status, self._poll_s)
            await self._clock.sleep(self._poll_s)

    async def _read(
        self, client: AsyncOpenAI, ended: Batch, bodies: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Answer | Refusal]:
        answered: dict[str, Answer | Refusal] = {}
        for file_id in (ended.output_file_id, ended.error_file_id):
            if file_id:
                content = await self._had(lambda place=file_id: client.files.content(place), takes=_FILES_TAKE)  # type: ignore[misc]
                for line in content.content.decode("utf-8", "replace").splitlines():
                    entry = _object(line)
                    if entry.get("custom_id") in bodies:
                        answered[entry["custom_id"]] = self._read_entry(entry, bodies[entry["custom_id"]])
        return answered

    def _read_entry(self, entry: Mapping[str, Any], body: Mapping[str, Any]) -> Answer | Refusal:
        response = entry.get("response")
        if not isinstance(response, Mapping):
            response = {"status_code": 200, "body": {"error": entry.get("error") or "no answer and no reason"}}
        status = response.get("status_code")
        content = json.dumps(response.get("body")).encode()
        found = read_reply(status if isinstance(status, int) else 500, {}, content, list(body))
        result = found if isinstance(found, Refusal) else read_completion(found)
        self._budget.settle(0.0, *(count or 0 for count in result.usage))
        if isinstance(result, Refusal):
            result = replace(result, words=self._clean(result.words))
            self.first_error = self.first_error or result.words
        return result

    async def _had(
        self,
        make: Callable[[], Awaitable[_T]],
        *,
        takes: float = 1.0,
        once: bool = False,
        patient: bool = False,
    ) -> _T:
        """What a call gives, tried again while that may help.

        Args:
            takes: how many times as long as a call it may take.
            once: a call that may have been heard is not made again, or it would be paid twice.
            patient: for as long as ``patience_s``, not ``max_retries`` times.
        """
        import openai

        failures, began = 0, self._clock.now()
        while True:
            try:
                async with asyncio.timeout(self._settings.timeout_s * takes):
                    return await make()
            except openai.APIStatusError as error:
                headers = {name.lower(): value for name, value in error.response.headers.items()}
                found = read_reply(error.status_code, headers, error.response.content, ())
                refusal = found if isinstance(found, Refusal) else Refusal(Next.RETRY, str(error))
            except (openai.APIError, TimeoutError, OSError) as error:
                refusal = read_exception(error)
            words = self._clean(refusal.words)
            self.first_error = self.first_error or words
            failures += 1
            may_help = refusal.next in (Next.PAUSE, Next.UNREACHABLE) or (refusal.next is Next.RETRY and not once)
            late = self._clock.now() - began > self._settings.patience_s
            if not may_help or late or (failures > self._settings.max_retries and not patient):
                throttled = refusal.status is Status.THROTTLED
                status = Status.THROTTLED if throttled else Status.FAILED
                incurable = refusal.next in (Next.STOP, Next.NEVER, Next.OTHERWISE)
                raise _NotHad(Stop(f"the batch could not be had: {words}", status, incurable))
            pause = min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)
            await self._clock.sleep(min(refusal.retry_after_s or pause, self._settings.patience_s))

    def _clean(self, text: object) -> str:
        return without_key(text, self._key)


def _object(line: str) -> dict[str, Any]:
    """The JSON object of a line; an empty one where it holds none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
