"""Calls to an OpenAI-compatible endpoint: bounded, retried, paid for, and never louder than a log line.

Used by every judge that asks a model (:mod:`evaluation.judges.openai`, :mod:`evaluation.judges.pairwise`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from evaluation.endpoint.breaker import Breaker, Stop
from evaluation.endpoint.chat import Answer, Unanswered, most_tokens, read_completion
from evaluation.endpoint.dialect import Dialect
from evaluation.endpoint.limits import FIRST_PAUSE_S, LONGEST_PAUSE_S, Budget, Clock, Throttle
from evaluation.endpoint.replies import Next, Refusal, read_exception, read_reply
from evaluation.endpoint.settings import OpenAISettings, base_url_of
from evaluation.scores import Status
from personas.secrets import hidden, without_key

logger = logging.getLogger(__name__)

# What bounds an answer, and so what it may cost.
_LENGTHS = {"max_tokens", "max_completion_tokens"}
_NO_LENGTH = "the endpoint takes no max_tokens, without which no budget can be kept; leave the budget out"
# Texts that are asked about without a JSON schema because they were refused without a reason, for nothing.
_MOST_IN_VAIN = 2


class Caller:
    """All calls of one run, in one event loop: ``async with Caller(settings, key, budget, clock, dialect) as caller``.

    Args:
        key: of the API, see :func:`evaluation.endpoint.settings.key_of`.
        budget: shared by all runs of a judge.
        clock: how time passes.
        dialect: what the endpoint takes, shared by all runs of a judge.

    Attributes:
        n_calls: that were sent.
        first_error: the server's first words about a call that it did not answer.
    """

    def __init__(self, settings: OpenAISettings, key: str, budget: Budget, clock: Clock, dialect: Dialect) -> None:
        self._settings, self._key, self._budget, self._clock, self._dialect = settings, key, budget, clock, dialect
        self._throttle = Throttle(settings.in_flight, settings.per_minute, clock)
        tries = settings.max_retries
        self._breaker = Breaker(settings.patience_s, tries, settings.in_flight, clock, answered=dialect.answered)
        self._form_in_vain = 0  # refusals without a reason that came without a JSON schema, too
        self.n_calls = 0
        self.first_error: str | None = None

    @property
    def stop(self) -> Stop | None:
        """Why it asks no more, once it does not."""
        return self._breaker.stop

    async def __aenter__(self) -> Caller:
        from openai import AsyncOpenAI

        s = self._settings
        # Retries are ours: one refused call has to hold back all others, too.
        self._client = AsyncOpenAI(api_key=self._key, base_url=base_url_of(s), timeout=s.timeout_s, max_retries=0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]) -> Answer:
        """One answer.

        Args:
            chat: messages.
            name, schema: the form of the answer, for endpoints that hold a model to one.

        Raises:
            Unanswered: none, after all retries.
        """
        call = object()
        try:
            return await self._ask(call, chat, name, schema)
        finally:
            self._breaker.leave(call)

    async def _ask(
        self, call: object, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any]
    ) -> Answer:
        most = self._budget.cost(most_tokens(chat), self._settings.max_tokens)
        failures, without = 0, tuple[str, ...]()
        last: Refusal | None = None
        while True:
            stop = await self._breaker.wait(call)
            async with self._throttle.call():
                body = self._dialect.body(chat, name, schema, without=without)
                if self._budget.limit is not None and _LENGTHS.isdisjoint(body):
                    self._breaker.end(Stop(_NO_LENGTH, incurable=True))
                stop = stop or self._breaker.stop  # found out while it waited for its place
                if stop is None and not self._budget.reserve(most):
                    stop = self._spent()
                if stop is not None:
                    raise _unasked(stop, last)
                result = await self._call(body, most)
            if isinstance(result, Answer):
                self._breaker.answered()
                if without:  # of all that was sent before, this alone was too much
                    self._dialect.refuse(without[0], body, last.words if last is not None else "it answers without")
                self._dialect.took(body)
                return result
            last = result
            match result.next:
                case Next.PAUSE:
                    self._breaker.throttled(result.retry_after_s, result.words)
                case Next.UNREACHABLE:
                    self._breaker.unreachable(result.words)
                case Next.OTHERWISE if result.parameter is None or self._dialect.is_taken(result.parameter):
                    # Others were answered with it: it is about this text.
                    self._give_up(replace(result, next=Next.NEVER, explained=True))
                case Next.OTHERWISE if not result.explained:  # its value, of all texts, if it goes on so
                    self._give_up(replace(result, next=Next.NEVER))
                case Next.OTHERWISE:
                    assert result.parameter is not None
                    why = self._dialect.refuse(result.parameter, body, result.words)
                    if why is not None:
                        self.first_error = self.first_error or result.words
                        self._give_up(replace(result, next=Next.STOP, words=f"{why} ({result.words})"))
                case Next.RETRY:
                    failures += 1
                    if failures > self._settings.max_retries or self._breaker.gives_texts_one_try:
                        self._breaker.fruitless(result.words, incurable=False)
                        raise _unanswered(result, f"{result.words} ({failures} times)", curable=True)
                    await self._clock.sleep(min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S))
                case Next.NEVER if self._may_be_the_form(result, body, without):
                    without = ("response_format",)
                case _:
                    self._give_up(result, without)

    def _give_up(self, refusal: Refusal, without: Sequence[str] = ()) -> None:
        """Raise Unanswered, and let the breaker know for the others."""
        if refusal.next is Next.STOP:
            self._breaker.refused(refusal.words, final=refusal.final)
        elif refusal.explained:
            self._breaker.lives()
        else:
            self._form_in_vain += bool(without)
            self._breaker.fruitless(refusal.words, incurable=True)
        raise _unanswered(refusal, refusal.words, curable=False)

    def _may_be_the_form(self, refusal: Refusal, body: Mapping[str, Any], without: Sequence[str]) -> bool:
        """Whether a refusal without a reason may mean that the endpoint takes no JSON schema."""
        asked = "response_format" in body and self._settings.structured == "auto"
        known = self._dialect.is_taken("response_format") or self._form_in_vain >= _MOST_IN_VAIN
        return asked and not (refusal.explained or without or known)

    def _spent(self) -> Stop:
        if self._breaker.stop is None:
            stop = Stop(f"the budget of {self._budget.limit:g} is spent", of_budget=True)
            self._breaker.end(stop)
            logger.warning("judge: %s (%.4g); the rest is unscored", stop.reason, self._budget.spent)
        assert self._breaker.stop is not None
        return self._breaker.stop

    async def _call(self, body: dict[str, Any], most: float) -> Answer | Refusal:
        """Send it once, within the time limit, and read what comes; its cost is booked."""
        import openai

        self.n_calls += 1
        result: Answer | Refusal = Refusal(Next.RETRY, "cut short", usage=(None, None))
        try:
            async with asyncio.timeout(self._settings.timeout_s):  # of the whole call, however it trickles
                response = await self._client.chat.completions.with_raw_response.create(
                    model=body["model"],
                    messages=body["messages"],
                    extra_body={name: value for name, value in body.items() if name not in ("model", "messages")},
                )
            reply = response.status_code, response.headers, response.http_response.content
            result = self._read(*reply, body)
        except openai.APIStatusError as error:
            result = self._read(error.status_code, error.response.headers, error.response.content, body)
        except Exception as error:
            known = isinstance(error, openai.APIError | TimeoutError | UnicodeError | OSError)
            if not known and type(error).__name__ != "InvalidURL":  # which each version of httpx has for itself
                raise
            result = read_exception(error)
        finally:
            self._budget.settle(most, *result.usage)
        if isinstance(result, Refusal):
            result = replace(result, words=self.clean(result.words))
            if self.first_error is None and result.next is not Next.OTHERWISE:
                self.first_error = result.words
        return result

    def _read(
        self, status: int, headers: Mapping[str, str], content: bytes, body: Mapping[str, Any]
    ) -> Answer | Refusal:
        sent = [name for name in body if name not in ("model", "messages")]
        found = read_reply(status, {name.lower(): value for name, value in headers.items()}, content, sent)
        return found if isinstance(found, Refusal) else read_completion(found)

    def clean(self, error: object) -> str:
        """An error's text on one line, without the key."""
        return without_key(error, self._key)

    def hide(self, text: str) -> str:
        """A model's text as it is, but for the key."""
        return hidden(text, self._key)


def _unasked(stop: Stop, last: Refusal | None) -> Unanswered:
    """What a call says that does not go out any more: what came of it before, or that it was not asked."""
    if last is not None:
        return _unanswered(last, last.words, curable=not stop.incurable)
    reason = stop.reason if stop.of_budget or stop.status is Status.THROTTLED else f"not asked: {stop.reason}"
    return Unanswered(stop.status, reason, (None, None), curable=not stop.incurable)


def _unanswered(refusal: Refusal, words: str, *, curable: bool) -> Unanswered:
    usage = refusal.usage if any(refusal.usage) else (None, None)  # a call that cost nothing is booked on no score
    return Unanswered(refusal.status, words, usage, curable=curable)
