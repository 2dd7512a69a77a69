"""What arms are compared on: the personas and prompts that all of them have texts of.

Without ``accept`` these are all but those whose texts are rejected or unscored. With it, prompts of which no text has
passed have none, and these are the hard ones: an arm is not to gain by what it has left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from evaluation.statistics.aggregate import clustered_mean
from evaluation.statistics.joint import share
from pipeline.compare.measures import bare_perplexity
from pipeline.compare.texts import Found, Unit, by_unit

# Share of another arm's units (of the largest arm's, in a screening) that one needs, to be compared at all.
LEAST_SHARE = 0.5


def units_of(found: Found) -> set[Unit]:
    """Those with a scored text."""
    return set(by_unit(found.written.texts))


def on(found: Found, units: Collection[Unit]) -> Found:
    """An arm with its measures over the texts of some units only."""
    texts = tuple(text for text in found.written.texts if (text.persona, text.prompt) in units)
    if len(texts) == len(found.written.texts):
        return found
    clusters = [text.prompt for text in texts]
    return replace(
        found,
        written=replace(found.written, texts=texts),
        score=clustered_mean([text.score for text in texts], clusters).value,
        joint=share([text.carried for text in texts], clusters).value,
        perplexity=bare_perplexity(texts),
    )


def comparable(mine: Found, others: Sequence[Found]) -> tuple[Found, list[Found]]:
    """An arm and others on the units that all have; without those others that have too few of its units."""
    units = units_of(mine)
    kept = [(each, own) for each in others if len(own := units_of(each) & units) >= max(1, LEAST_SHARE * len(units))]
    for _, own in kept:
        units &= own
    return on(mine, units), [on(each, units) for each, _ in kept]


def in_common(arms: Sequence[Found]) -> list[Found]:
    """A task's arms on the units that all have; without those that have far fewer than the largest."""
    units = [units_of(each) for each in arms]
    most = max(map(len, units), default=0)
    kept = [i for i, own in enumerate(units) if own and len(own) >= LEAST_SHARE * most]
    shared = set.intersection(*(units[i] for i in kept)) if kept else set[Unit]()
    return [on(arms[i], shared) for i in kept]
