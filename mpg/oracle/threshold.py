"""The law of ``scr`` itself over complete responses, by enumeration: what a bound, chunks and salvage cost.

``law`` of :mod:`mpg.oracle.law` says what ``scr`` approximates; here is what it samples. It follows from two laws over
responses alone, the target's and the reference's: a chunk's ratio is ``R = T(c | s) / pi_0(c | s)``. The engine's draws
are held against it. Only for toys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mpg.laws.bound import BOUND_FLOOR

Response = tuple[int, ...]


@dataclass(frozen=True)
class ThresholdLaw:
    """What ``scr`` samples, and what it takes.

    Attributes:
        law: probability of every complete response.
        acceptance: chunks kept whole over chunks drafted, both expected.
        chunks: drafted for a response, expected.
        lost_mass: ``E[(R - M)+]`` of a drafted chunk, as rows' ``tv_bound`` estimates it.
    """

    law: dict[Response, float]
    acceptance: float
    chunks: float
    lost_mass: float


def threshold_law(
    target: Mapping[Response, float],
    reference: Mapping[Response, float],
    *,
    chunk_len: int,
    bound: float | None = None,
    salvage: bool = True,
    max_tries: int | None = 8,
) -> ThresholdLaw:
    """Enumerate every chunk, test, salvage and fallback.

    Args:
        target: law over responses, as :func:`mpg.oracle.law.law` gives it.
        reference: the reference's, at the target's temperature, not truncated.
        bound: a fixed M; ``None``: the online one, the largest ratio that the text has seen, at least ``BOUND_FLOOR``,
            as long as ``window`` holds all its chunks.
        max_tries: chunks rejected in a row after which one token is drawn from the target; ``None``: never, with a
            fixed bound.

    Raises:
        ValueError: an online bound without ``max_tries``, whose rejections have no end.
    """
    if bound is None and max_tries is None:
        raise ValueError("max_tries: None has no end with an online bound; give a number, or a fixed bound")
    under = {"target": _of_prefixes(target), "reference": _of_prefixes(reference)}
    following = _tokens_after(reference)
    law: dict[Response, float] = defaultdict(float)
    drafted = accepted = lost = 0.0
    # By length and tries: what is kept makes a text longer, what is not makes it one more try.
    waiting: dict[tuple[int, int], dict[tuple[Response, float], float]] = defaultdict(lambda: defaultdict(float))
    waiting[0, 0][(), BOUND_FLOOR if bound is None else bound] = 1.0
    while waiting:
        place = min(waiting)
        for (text, m), mass in waiting.pop(place).items():
            if text not in following:
                law[text] += mass
                continue
            outcomes = list(_round(text, m, under, following, chunk_len, salvage))
            if max_tries is None:  # again and again: what is kept in the end
                mass /= sum(p for kept, p, _, _ in outcomes if kept)
            for kept, p, ratio, whole in outcomes:
                drafted += mass * p
                accepted += mass * p * whole
                lost += mass * p * max(0.0, ratio - m)
                if not kept and max_tries is None:
                    continue
                raised = max(m, ratio) if bound is None else m
                if kept or place[1] + 1 < (max_tries or 0):
                    where = (len(text) + len(kept), 0 if kept else place[1] + 1)
                    waiting[where][text + kept, raised] += mass * p
                    continue
                for token in following[text]:  # one of the target's own
                    share = under["target"].get((*text, token), 0.0) / under["target"][text]
                    if share:
                        waiting[len(text) + 1, 0][(*text, token), raised] += mass * p * share
    return ThresholdLaw(dict(law), accepted / drafted, drafted, lost / drafted)


def _round(
    text: Response,
    bound: float,
    under: Mapping[str, Mapping[Response, float]],
    following: Mapping[Response, list[int]],
    chunk_len: int,
    salvage: bool,
) -> Iterator[tuple[Response, float, float, bool]]:
    """One chunk after a text: (what is kept of it, probability, the chunk's R, whether it is kept whole)."""
    chunks: list[Response] = [()]
    for _ in range(chunk_len):
        chunks = [(*c, x) for c in chunks for x in following.get(text + c, [])] + [
            c for c in chunks if text + c not in following
        ]
    for chunk in chunks:
        ratios = [
            under["target"].get(text + chunk[:n], 0.0)
            / under["target"][text]
            / (under["reference"][text + chunk[:n]] / under["reference"][text])
            for n in range(1, len(chunk) + 1)
        ]
        drawn = under["reference"][text + chunk] / under["reference"][text]
        passes = [min(1.0, ratio / bound) for ratio in ratios]
        if not salvage:
            passes = [0.0] * (len(chunk) - 1) + passes[-1:]
        above = 0.0  # probability that more is kept: one uniform tests all prefixes, and the longest is kept
        for n in range(len(chunk), 0, -1):
            if passes[n - 1] > above:
                yield chunk[:n], drawn * (passes[n - 1] - above), ratios[-1], n == len(chunk)
                above = passes[n - 1]
        if above < 1.0:
            yield (), drawn * (1.0 - above), ratios[-1], False


def _of_prefixes(law: Mapping[Response, float]) -> dict[Response, float]:
    """Probability that a response begins so, for every beginning."""
    found: dict[Response, float] = defaultdict(float)
    for response, p in law.items():
        for n in range(len(response) + 1):
            found[response[:n]] += p
    return dict(found)


def _tokens_after(law: Mapping[Response, float]) -> dict[Response, list[int]]:
    """The tokens that may follow each text that has not ended."""
    found: dict[Response, list[int]] = defaultdict(list)
    for text in _of_prefixes(law):
        if text:
            found[text[:-1]].append(text[-1])
    return dict(found)
