"""A judge behind any OpenAI-compatible endpoint: several attributes a call, all of it bounded, cached and resumable.

One call grades one text under every rubric that is not answered yet. Answers are kept on disk as they come, so that
a run that is stopped asks again only for what had not been answered. Nothing but a well-formed answer becomes a
score; everything else is unscored with its reason and asked again by the next run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from evaluation.endpoint.cache import cache_key
from evaluation.endpoint.calls import Caller
from evaluation.endpoint.chat import Unanswered
from evaluation.endpoint.parse import AnswerError, parse_answer
from evaluation.endpoint.replies import Usage
from evaluation.endpoint.rubrics import FLUENCY, Rubric, answer_schema, messages
from evaluation.items import Item, unsendable
from evaluation.judges.endpoint import EndpointJudge
from evaluation.scores import Score, Status

# How long calls in flight may take once a stop is asked for, and how often that is looked for, in seconds.
GRACE_S, _LOOK_EVERY_S = 10.0, 0.5
# Called with an item's index and its scores as soon as they are known.
OnScored = Callable[[int, Mapping[str, Score]], None]


class OpenAIJudge(EndpointJudge):
    """Scores attributes by their rubrics, and fluency with them."""

    name = "openai"
    adds = (FLUENCY,)  # judged with whatever is asked for

    def judge(self, items: Sequence[Item], attributes: Sequence[str]) -> dict[str, list[Score]]:
        """See :class:`evaluation.items.Judge`; fluency comes as one attribute more.

        Raises:
            ValueError: an attribute without a rubric.
        """
        found: list[Mapping[str, Score]] = [{} for _ in items]
        self.judge_each(items, attributes, found.__setitem__)
        unasked = Score(None, Status.FAILED, "stopped before it was asked about")
        return {name: [scores.get(name, unasked) for scores in found] for name in _with_fluency(attributes)}

    def judge_each(self, items: Iterable[Item], attributes: Sequence[str], on_scored: OnScored) -> None:
        """The same as one run over any number of items, of which those alone are held that are in flight.

        Args:
            items: each is made when its turn comes. on_scored: is not told of those that a stop has left unasked.

        Raises:
            ValueError: as :meth:`judge`. What ``items`` or ``on_scored`` raise ends the run.
        """
        self.check_known([name for name in attributes if name != FLUENCY])
        try:
            asyncio.run(self._judge_all(items, _with_fluency(attributes), on_scored))
        except ExceptionGroup as group:  # of the calls in flight: the first says what happened
            raise group.exceptions[0] from None

    def unjudgeable(self, item: Item, attributes: Sequence[str]) -> dict[str, str]:
        """Attribute -> why no call is made about it, of those that nobody could judge the item on."""
        cant_be_sent = unsendable(item)
        found = {name: why for name in attributes if (why := cant_be_sent or self._nothing_to_judge(item, name))}
        if all(name in found for name in attributes if name != FLUENCY):  # fluency alone is worth no call
            found.setdefault(FLUENCY, "no attribute of the row can be judged")
        return found

    async def _judge_all(self, items: Iterable[Item], attributes: Sequence[str], on_scored: OnScored) -> None:
        queue = iter(enumerate(items))
        caller = self._caller()

        async def worker() -> None:  # a task for each call in flight, not for each of a million texts
            for index, item in queue:
                if self.stop is not None and self.stop():
                    return
                on_scored(index, await self._judge_one(caller, item, attributes))

        try:
            async with caller, asyncio.TaskGroup() as group:
                tasks = [group.create_task(worker()) for _ in range(self._settings.in_flight)]
                if self.stop is not None:
                    await _let_end(tasks, self.stop)
        finally:
            self._book(caller)

    async def _judge_one(
        self, caller: Caller, item: Item, attributes: Sequence[str], *, keep: bool = True
    ) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        keys, nothing = {name: self._cache_key(item, name) for name in attributes}, self.unjudgeable(item, attributes)
        for name in attributes:
            kept = self._cache.get(keys[name]) if self._cache is not None else None
            if kept is not None:
                scores[name] = kept
            elif name in nothing:
                scores[name] = Score(None, Status.FAILED, nothing[name])
        missing = [name for name in attributes if name not in scores]
        if missing:
            fresh, usage = await self._ask(caller, item, missing)
            first = fresh[missing[0]]  # the call's tokens are booked once
            fresh[missing[0]] = Score(first.score, first.status, first.rationale, *usage)
            if self._cache is not None and keep:
                self._cache.put({keys[name]: score for name, score in fresh.items()})
            scores |= fresh
        return {name: scores[name] for name in attributes}

    def _nothing_to_judge(self, item: Item, name: str) -> str | None:
        """Why no call is to be made about an attribute of an item."""
        if not any(map(str.isalnum, item.text)):
            return "the text has no words"
        if name != FLUENCY and not self._rubrics[name].applies_to(item):
            return f"the row lacks the text that {name} is about"
        return None

    async def _ask(self, caller: Caller, item: Item, names: Sequence[str]) -> tuple[dict[str, Score], Usage]:
        rubrics = [self._rubrics[name] for name in names if name != FLUENCY]
        try:
            answer = await caller.ask(messages(item, rubrics), "grades", answer_schema(rubrics))
        except Unanswered as error:
            self.unanswered[error.curable] += 1
            return {name: Score(None, error.status, str(error)) for name in names}, error.usage
        try:
            scores = parse_answer(answer.content, [rubric.attribute for rubric in rubrics])
        except AnswerError as error:
            cut = f", cut off at {self._settings.max_tokens} tokens" if answer.cut_off else ""
            why = caller.clean(f"{error}{cut}")
            self.unanswered[False] += 1
            return {name: Score(None, Status.PARSE_ERROR, why) for name in names}, answer.usage
        told = {
            name: replace(each, rationale=caller.hide(each.rationale or "") or None) for name, each in scores.items()
        }
        return {name: told[name] for name in names}, answer.usage

    def _cache_key(self, item: Item, attribute: str) -> str:
        rubric = Rubric(FLUENCY, "", "") if attribute == FLUENCY else self._rubrics[attribute]
        return cache_key(
            attribute=attribute,
            rubric=rubric.version,
            asked=rubric.for_item(item),
            text=item.text,
            prompt=item.prompt,
            parameters=self._settings.answer_parameters,
        )


def _with_fluency(attributes: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*attributes, FLUENCY)))


async def _let_end(tasks: Sequence[asyncio.Task[None]], stop: Callable[[], bool]) -> None:
    """Wait for tasks; once a stop is asked for, the calls in flight have a while to be answered."""
    while True:
        _, left = await asyncio.wait(tasks, timeout=_LOOK_EVERY_S)
        if not left:
            return
        if stop():
            _, late = await asyncio.wait(left, timeout=GRACE_S)
            for task in late:  # a server that refuses or hangs: asked again by the next run
                task.cancel()
            return
