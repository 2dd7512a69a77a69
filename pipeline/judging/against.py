"""A corpus judged against one of its personas: every text beside that persona's, to the same prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.items import Item, unsendable
from evaluation.judges.pairwise import PairwiseJudge
from evaluation.scores import Score, Status
from pipeline.judging.corpus import Corpus

_NO_OTHER = "no other text to the same prompt"


def against_persona(judge: PairwiseJudge, persona: str, corpus: Corpus) -> Against:
    """The judge that compares with a persona's texts.

    Raises:
        ValueError: the corpus has no such persona.
    """
    theirs: dict[str, Item] = {}
    for item, cluster, group in zip(corpus.items, corpus.clusters, corpus.groups, strict=True):
        if group == persona:
            theirs.setdefault(cluster, item)
    if not theirs:
        known = ", ".join(dict.fromkeys(corpus.groups))
        raise ValueError(f"{persona}: the corpus has no such persona (it has {known})")
    others = {item.key: theirs[c] for item, c in zip(corpus.items, corpus.clusters, strict=True) if c in theirs}
    return Against(judge, persona, others)


class Against:
    """A pairwise judge as one that scores items: each against its counterpart."""

    name = "openai-pairwise"
    asks_again = True  # about what it left unscored, by its next run

    def __init__(self, inner: PairwiseJudge, persona: str, others: Mapping[str, Item]) -> None:
        self.inner, self._others = inner, others
        self.version = f"{inner.version}+against-{persona}"
        self.budget = inner.budget

    @property
    def stopped(self) -> str | None:
        """Why it asks no more."""
        return self.inner.stopped

    @property
    def n_calls(self) -> int:
        """Calls made."""
        return self.inner.n_calls

    @property
    def position_bias(self) -> float | None:
        """See :class:`evaluation.judges.pairwise.PairwiseJudge`."""
        return self.inner.position_bias

    def knows(self, attribute: str) -> bool:
        """See :class:`evaluation.items.Judge`."""
        return self.inner.knows(attribute)

    def unjudgeable(self, item: Item, attributes: Sequence[str]) -> dict[str, str]:
        """See :meth:`evaluation.judges.openai.OpenAIJudge.unjudgeable`."""
        other = self._others.get(item.key, item)
        why = _NO_OTHER if other.key == item.key else unsendable(item) or unsendable(other)
        return {} if why is None else dict.fromkeys(attributes, why)

    def judge(self, items: Sequence[Item], attributes: Sequence[str]) -> dict[str, list[Score]]:
        """See :class:`evaluation.items.Judge`; a text without a counterpart, or that is it, is unscored."""
        missing = Score(None, Status.FAILED, _NO_OTHER)
        found = {name: [missing] * len(items) for name in attributes}
        asked = [i for i, item in enumerate(items) if self._others.get(item.key, item).key != item.key]
        if self.inner.ended is not None:
            left = Score(None, self.inner.ended.status, f"not asked: {self.inner.ended.reason}")
            return {name: [left if i in set(asked) else missing for i in range(len(items))] for name in attributes}
        mine, others = [items[i] for i in asked], [self._others[items[i].key] for i in asked]
        for name, scores in self.inner.compare(mine, others, attributes).items():
            for i, score in zip(asked, scores, strict=True):
                found[name][i] = score
        return found
