"""What all judges behind an endpoint have: rubrics, settings, a key, a budget, a cache."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence

from evaluation.endpoint.breaker import Stop
from evaluation.endpoint.cache import JudgmentCache
from evaluation.endpoint.calls import Caller
from evaluation.endpoint.dialect import Dialect
from evaluation.endpoint.limits import Budget, Clock
from evaluation.endpoint.rubrics import Rubric
from evaluation.endpoint.settings import OpenAISettings, base_url_of, key_of


class EndpointJudge:
    """A judge by rubrics.

    Args:
        rubrics: of every attribute it is to know.
        settings: of the endpoint and its calls.
        cache: answers kept between runs; ``None``: none are.
        clock: how time passes.

    Attributes:
        ended: why the last run left texts unasked, if it did.
        first_error: the server's first words, since the judge was made, about a call that it did not answer.
        unanswered: how many texts got no answer, by whether the same question may be answered another time.

    Raises:
        JudgeSetupError: no key in the environment, or an address that is none.
    """

    name = ""  # see :class:`evaluation.items.Judge`
    asked = ""  # what of the question is not in the rubrics
    asks_again = True  # about what it left unscored, by its next run

    def __init__(
        self,
        rubrics: Sequence[Rubric],
        settings: OpenAISettings,
        *,
        cache: JudgmentCache | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._rubrics = {rubric.attribute: rubric for rubric in rubrics}
        self._settings, self._cache, self._clock = settings, cache, clock or Clock()
        self._key = key_of(settings)
        self.dialect = Dialect(settings, base_url_of(settings) or "", cache)
        self.budget = Budget(settings.budget, settings.prompt_price, settings.completion_price)
        self.n_calls = 0
        self.ended: Stop | None = None
        self.first_error: str | None = None
        self.unanswered: Counter[bool] = Counter()
        self.stop: Callable[[], bool] | None = None  # once it says yes, no further text is asked about

    @property
    def settings(self) -> OpenAISettings:
        """How its endpoint is asked."""
        return self._settings

    @property
    def stopped(self) -> str | None:
        """Why the last run left texts unasked, in words; ``None``: it did not."""
        return None if self.ended is None else self.ended.reason

    @property
    def incurable(self) -> bool:
        """Whether the last run ended for a reason that no later call cures."""
        return self.ended is not None and self.ended.incurable

    @property
    def out_of_budget(self) -> bool:
        """Whether the last run ended because its budget was spent."""
        return self.ended is not None and self.ended.of_budget

    @property
    def version(self) -> str:
        """Model, parameters and rubrics: another one of these, another judge."""
        rubrics = {name: rubric.version for name, rubric in self._rubrics.items()}
        identity = self._settings.answer_parameters | {"rubrics": rubrics, "asked": self.asked}
        return f"{self._settings.model}+{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]}"

    def knows(self, attribute: str) -> bool:
        """See :class:`evaluation.items.Judge`."""
        return attribute in self._rubrics

    def check_known(self, attributes: Sequence[str]) -> None:
        """Raise ValueError for an attribute without a rubric."""
        unknown = [name for name in attributes if name not in self._rubrics]
        if unknown:
            raise ValueError(f"the judge has no rubric of {unknown[0]!r}; it has {', '.join(self._rubrics) or 'none'}")

    def _caller(self) -> Caller:
        """The calls of one run."""
        return Caller(self._settings, self._key, self.budget, self._clock, self.dialect)

    def _book(self, caller: Caller) -> None:
        """What the calls of a run came to."""
        self.n_calls += caller.n_calls
        self.ended = caller.stop
        self.first_error = self.first_error or caller.first_error
