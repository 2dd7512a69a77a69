"""Calls to an OpenAI-compatible endpoint: bounded, retried, paid for, and never louder than a log line.

Used by every judge that asks a model (:mod:`evaluation.judges.openai`, :mod:`evaluation.judges.pairwise`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from evaluation.endpoint.chat import (
    Answer,
    Failure,
    Unanswered,
    Usage,
    most_tokens,
    read_completion,
    request_body,
    usage_of,
    without_key,
)
from evaluation.endpoint.limits import FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker, Budget, Clock, Throttle
from evaluation.endpoint.settings import OpenAISettings
from evaluation.scores import Status

logger = logging.getLogger(__name__)


class Caller:
    """All calls of one run, in one event loop: ``async with Caller(settings, key, budget) as caller``.

    Args:
        key: of the API, see :func:`evaluation.endpoint.settings.key_of`.
        budget: shared by all runs of a judge.
        clock: how time passes.
    """

    def __init__(self, settings: OpenAISettings, key: str, budget: Budget, clock: Clock) -> None:
        self._settings, self._key, self._budget, self._clock = settings, key, budget, clock
        self._throttle = Throttle(settings.in_flight, settings.per_minute, clock)
        self._breaker = Breaker(settings.patience_s, clock)
        self._schema_refused = False
        self.n_calls = 0
        self.stopped: str | None = None  # why it asks no more, once it does not

    async def __aenter__(self) -> Caller:
        from openai import AsyncOpenAI

        s = self._settings
        # Retries are ours: one refused call has to hold back all others, too.
        self._client = AsyncOpenAI(api_key=self._key, base_url=s.base_url, timeout=s.timeout_s, max_retries=0)
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
        most = self._budget.cost(most_tokens(chat), self._settings.max_tokens)
        failures = 0
        while True:
            if not await self._breaker.wait():
                self.stopped = f"the server refused all calls for {self._settings.patience_s:g} s"
                raise Unanswered(Status.THROTTLED, self.stopped)
            async with self._throttle.call():
                if not self._budget.reserve(most):
                    self._breaker.abandoned()
                    if self.stopped is None:
                        self.stopped = f"the budget of {self._budget.limit:g} is spent"
                        logger.warning("judge: %s (%.4g); the rest is unscored", self.stopped, self._budget.spent)
                    raise Unanswered(Status.FAILED, self.stopped)
                result = await self._call(chat, name, schema, most)
            if isinstance(result, Answer):
                return result
            if result.again is None:
                raise Unanswered(result.status, result.reason, result.usage)
            failures += result.again == "retry"
            if failures > self._settings.max_retries:
                raise Unanswered(result.status, f"{result.reason} ({failures} times)", result.usage)
            if result.again == "retry":
                await self._clock.sleep(min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S))

    async def _call(
        self, chat: Sequence[Mapping[str, str]], name: str, schema: Mapping[str, Any], most: float
    ) -> Answer | Failure:
        import openai

        s = self._settings
        structured = s.structured == "json_schema" or (s.structured == "auto" and not self._schema_refused)
        self.n_calls += 1
        used: Usage = (0, 0)
        try:
            body = request_body(s, chat, name, schema if structured else None)
            completion = await self._client.chat.completions.create(**body)
            used = usage_of(completion)
        except openai.RateLimitError as error:
            self._breaker.throttled(_retry_after_s(error), "the server says 429, too many requests")
            return Failure(Status.THROTTLED, self.clean(error), "pause")
        except openai.BadRequestError as error:
            self._breaker.abandoned()
            if not structured or s.structured != "auto":
                return Failure(Status.FAILED, self.clean(error), None)
            if not self._schema_refused:
                logger.warning("judge: the endpoint takes no JSON schema; the form is asked for in words")
            self._schema_refused = True
            return Failure(Status.FAILED, self.clean(error), "now")
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            self._breaker.abandoned()
            return Failure(Status.FAILED, self.clean(error), None)
        except openai.APIConnectionError as error:  # time-outs too; such a call may have been answered, and billed
            self._breaker.abandoned()
            used = (None, None)
            return Failure(Status.FAILED, self.clean(error), "retry")
        except (openai.APIError, ValueError) as error:  # 5xx; a body that is no answer
            self._breaker.abandoned()
            return Failure(Status.FAILED, self.clean(error), "retry")
        finally:
            self._budget.settle(most, *used)
        self._breaker.answered()
        return read_completion(completion, used, self.clean)

    def clean(self, error: object) -> str:
        """An error's text on one line, without the key."""
        return without_key(error, self._key)


def _retry_after_s(error: Any) -> float | None:
    """What the server asks for, if it is a number of seconds."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
