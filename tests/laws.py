"""Statistics of the law tests: one joint chi-square, with its false-alarm probability stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import chi2

# Cells expected fewer times than this are pooled, as Pearson's approximation asks.
MIN_EXPECTED = 5.0


def chi_square_p_value(samples: Iterable[tuple[int, ...]], law: Mapping[tuple[int, ...], float]) -> float:
    """p-value of the samples under the law; 0.0 if a sample has probability zero there."""
    counts = Counter(samples)
    n = sum(counts.values())
    if any(law.get(outcome, 0.0) <= 0.0 for outcome in counts):
        return 0.0
    statistic, cells, pooled_observed, pooled_expected = 0.0, 0, 0.0, 0.0
    for outcome, probability in law.items():
        expected, observed = n * probability, counts[outcome]
        if expected < MIN_EXPECTED:
            pooled_observed += observed
            pooled_expected += expected
            continue
        statistic += (observed - expected) ** 2 / expected
        cells += 1
    if pooled_expected > 0:
        statistic += (pooled_observed - pooled_expected) ** 2 / pooled_expected
        cells += 1
    return float(chi2.sf(statistic, cells - 1))


def total_variation(left: Mapping[tuple[int, ...], float], right: Mapping[tuple[int, ...], float]) -> float:
    """Half the L1 distance between two laws."""
    return 0.5 * sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in {*left, *right})


def direct_law(
    models: Sequence[Callable[[tuple[int, ...]], np.ndarray]],
    layout: Sequence[tuple[int, int]],
    prompt: tuple[int, ...],
    alphas: Sequence[float],
    strengths: Sequence[float],
    *,
    target: str,
    horizon: int | None,
    temperature: float,
    top_k: int,
    top_p: float,
    max_new_tokens: int,
    eos_id: int,
) -> dict[tuple[int, ...], float]:
    """The target's law straight from its definition, sharing no code with the package.

    The mixture's weights are computed anew at every position, from the tokens since the last multiple of
    the horizon: ``w_i ∝ alpha_i prod_t q_i(t)``.

    Args:
        models: token ids -> logits ``[vocab]``; the reference first.
        layout: (policy, own reference) as indices into ``models``, one pair an attribute.
        target: ``reference``, ``sum``, ``product``, ``pad`` (the product over the reference's truncated
            candidates) or ``routed`` (the sum of truncated components).
    """

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    def components(tokens: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        pi = [softmax(model(tokens) / (temperature or 1.0)) for model in models]
        ratios = [pi[policy] / pi[rho] for policy, rho in layout]
        tilted = [pi[0] * ratio**strength for ratio, strength in zip(ratios, strengths, strict=True)]
        normalised = [q / q.sum() for q in tilted]
        return pi[0], ratios, [cut(q) for q in normalised] if target == "routed" else normalised

    def cut(law: np.ndarray) -> np.ndarray:
        order = np.argsort(-law)
        if top_k:
            law = np.where(np.isin(np.arange(len(law)), order[:top_k]), law, 0.0)
            law = law / law.sum()
        if top_p < 1:
            kept, mass = [], 0.0
            for token in order:
                if mass < top_p:
                    kept.append(token)
                mass += law[token]
            law = np.where(np.isin(np.arange(len(law)), kept), law, 0.0)
        return law / law.sum()

    def next_token(response: tuple[int, ...]) -> np.ndarray:
        reference, ratios, q_here = components(prompt + response)
        if target == "reference":
            return cut(reference)
        if target in ("product", "pad"):
            tilt = np.prod([r ** (a * s) for r, a, s in zip(ratios, alphas, strengths, strict=True)], axis=0)
            law = (cut(reference) if target == "pad" else reference) * tilt
            return law / law.sum() if target == "pad" else cut(law / law.sum())
        weights = np.array(alphas, dtype=float)
        start = 0 if horizon is None else len(response) - len(response) % horizon
        for t in range(start, len(response)):
            weights *= [q[response[t]] for q in components(prompt + response[:t])[2]]
        law = sum(w * q for w, q in zip(weights / weights.sum(), q_here, strict=True))
        return law if target == "routed" else cut(law)

    def drawn_from(response: tuple[int, ...]) -> np.ndarray:
        law = next_token(response)
        return np.eye(len(law))[int(np.argmax(law))] if temperature == 0 else law

    out: dict[tuple[int, ...], float] = {}
    open_prefixes = [((), 1.0)]
    while open_prefixes:
        response, probability = open_prefixes.pop()
        if len(response) == max_new_tokens or response[-1:] == (eos_id,):
            out[response] = probability
            continue
        law = drawn_from(response)
        open_prefixes += [((*response, token), probability * p) for token, p in enumerate(law) if p > 0]
    return out
