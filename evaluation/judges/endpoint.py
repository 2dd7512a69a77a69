"""What all judges behind an endpoint have: rubrics, settings, a key, a budget, a cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from evaluation.endpoint.cache import JudgmentCache
from evaluation.endpoint.limits import Budget, Clock
from evaluation.endpoint.rubrics import Rubric
from evaluation.endpoint.settings import OpenAISettings, key_of


class EndpointJudge:
    """A judge by rubrics.

    Args:
        rubrics: of every attribute it is to know.
        settings: of the endpoint and its calls.
        cache: answers kept between runs; ``None``: none are.
        clock: how time passes.

    Raises:
        JudgeSetupError: no key in the environment.
    """

    name = ""  # see :class:`evaluation.items.Judge`
    asked = ""  # what of the question is not in the rubrics

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
        self.budget = Budget(settings.budget, settings.prompt_price, settings.completion_price)
        self.n_calls = 0
        self.stopped: str | None = None  # why the last run left texts unasked, if it did
        self.stop: Callable[[], bool] | None = None  # once it says yes, no further text is asked about

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
