"""Weights from examples: which mixture of the attributes would a user who likes these texts want?

- **pairs** of a preferred and another answer to one prompt: the Bradley-Terry model over the
  preference models' log-ratios, ``P(y > y') = sigmoid(sum_i w_i [log r_i(y) - log r_i(y')])`` with
  ``w_i >= 0`` (Drift, Kim et al. 2025, infers attribute weights this way; DPO's implicit reward,
  Rafailov et al. 2023, is the same log-ratio). The weights are ``w`` divided by its sum; the prior on
  ``w`` holds few pairs near equal weights;
- **texts** alone: their law under the sum itself. Between two resets of its weights (a horizon) the sum's
  law is the mixture ``sum_i alpha_i q_i(segment | what came before)``, alpha uniform on the simplex a priori.

Both give draws from the posterior; a weight is their mean, its interval their quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mpg.models.bank import ModelBank
from mpg.score.texts import component_log_probs
from mpg.settings import DecoderSettings

Array = NDArray[np.float64]
Tokens = Sequence[int]

# Gaussian prior on every w_i, in units of one over the typical log-ratio difference. Of the values tried
# (mean 0 to 2, sd 0.5 to 2) these had the least error on simulated users.
PRIOR_MEAN, PRIOR_SD = 1.0, 1.0
COVERAGE = 0.95
_CHAINS, _BURN_IN, _DRAWS = 32, 500, 500  # of each chain


@dataclass(frozen=True)
class InferredWeights:
    """Weights that sum to 1, and how sure they are.

    Attributes:
        weights, low, high: per attribute; posterior mean and 95 % credible interval.
        n: pairs or texts that they were inferred from.
        fit: pairs: share that the weights order as the user did; texts: gain in log-likelihood per token
            over equal weights, in nats.
    """

    weights: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    n: int
    fit: float


def from_pairs(
    bank: ModelBank, pairs: Sequence[tuple[Tokens, Tokens, Tokens]], *, batch_size: int = 8, seed: int = 0
) -> InferredWeights:
    """Weights from (prompt, preferred, other) token sequences.

    Raises:
        ValueError: no pairs, an empty part of one, or pairs of which the weights order less than half.
    """
    if not pairs:
        raise ValueError("pairs: none given; give at least one, 50 to 100 for a narrow interval")
    texts = [(prompt, side) for prompt, *sides in pairs for side in sides]
    scored = component_log_probs(bank, texts, batch_size=batch_size)
    totals = torch.stack([log_probs.sum(0) for _, log_probs in scored])  # [texts, branches]
    ratios = bank.layout.log_ratios(totals)
    differences = (ratios[::2] - ratios[1::2]).numpy()  # [pairs, attributes]
    draws = draws_from_pairs(differences, seed=seed)
    ordered = float((differences @ draws.mean(axis=0) > 0).mean())
    if ordered < 0.5:
        raise ValueError(
            f"pairs: no weights of {', '.join(bank.attributes)} order more than {ordered:.0%} of these {len(pairs)} as "
            "they are given; are chosen and rejected exchanged, or is the attribute they differ in missing?"
        )
    return _summary(bank, draws, len(pairs), ordered)


def from_texts(
    bank: ModelBank,
    texts: Sequence[tuple[Tokens, Tokens]],
    settings: DecoderSettings,
    *,
    batch_size: int = 8,
    seed: int = 0,
) -> InferredWeights:
    """Weights from (prompt, response) token sequences, under the sum with ``settings``' horizon and strength.

    Raises:
        ValueError: no texts, or an empty part of one.
    """
    if not texts:
        raise ValueError("texts: none given; give at least one")
    strengths = [settings.strength_of(name) for name in bank.attributes]
    scored = component_log_probs(bank, texts, strengths=strengths, batch_size=batch_size)
    segments = np.concatenate([segment_sums(log_q.numpy(), settings.horizon) for log_q, _ in scored])
    draws = draws_from_segments(segments, seed=seed)
    equal = np.full(len(bank.attributes), 1 / len(bank.attributes))
    gain = log_likelihood(segments, draws.mean(axis=0)) - log_likelihood(segments, equal)
    return _summary(bank, draws, len(texts), gain / sum(len(log_q) for log_q, _ in scored))


def draws_from_pairs(differences: Array, *, seed: int = 0) -> Array:
    """Posterior draws of Bradley-Terry weights, each summing to 1, ``[draws, attributes]``.

    Random-walk Metropolis on ``w >= 0``, many chains at once, with steps shaped by the curvature at the
    posterior's mode (Roberts, Gelman & Gilks 1997); the posterior is log-concave.

    Args:
        differences: ``log r_i(preferred) - log r_i(other)``, ``[pairs, attributes]``, in nats.
    """
    from scipy.optimize import minimize

    d = differences / (float(np.sqrt(np.mean(differences**2))) or 1.0)
    k = d.shape[1]

    def energy(w: Array) -> Array:  # minus the log-posterior, of [..., attributes]
        away = (w - PRIOR_MEAN) / PRIOR_SD
        return np.asarray(np.logaddexp(0.0, -(w @ d.T)).sum(-1) + (away**2).sum(-1) / 2)

    mode = minimize(lambda w: float(energy(w)), np.full(k, 1.0), method="L-BFGS-B", bounds=[(0.0, None)] * k).x
    chance = 1 / (1 + np.exp(-np.clip(d @ mode, -700, 700)))
    curvature = (d * (chance * (1 - chance))[:, None]).T @ d + np.eye(k) / PRIOR_SD**2
    step = 2.4 / np.sqrt(k) * np.linalg.cholesky(np.linalg.inv(curvature))
    generator = np.random.default_rng(seed)
    w = np.tile(mode, (_CHAINS, 1))
    at, draws = energy(w), []
    for i in range(_BURN_IN + _DRAWS):
        proposal = w + generator.standard_normal(w.shape) @ step.T
        there = np.where((proposal >= 0).all(-1), energy(proposal), np.inf)
        taken = np.log(generator.random(_CHAINS)) < at - there
        w, at = np.where(taken[:, None], proposal, w), np.where(taken, there, at)
        if i >= _BURN_IN:
            draws.append(w)
    stacked = np.concatenate(draws)
    return np.asarray(stacked / stacked.sum(axis=1, keepdims=True))


def segment_sums(log_q: Array, horizon: int | None) -> Array:
    """``log q_i`` summed between resets, ``[segments, attributes]``, of ``[tokens, attributes]``."""
    starts = [0] if horizon is None else list(range(0, len(log_q), horizon))
    return np.add.reduceat(log_q, starts, axis=0)


def draws_from_segments(segments: Array, *, seed: int = 0) -> Array:
    """Posterior draws of a mixture's weights, its components being known, ``[draws, attributes]``.

    Gibbs sampling (Diebolt & Robert 1994): a component for each segment given the weights, then the
    weights from a Dirichlet law given the components' counts.

    Args:
        segments: log-likelihood of each segment under each component, ``[segments, attributes]``.
    """
    generator = np.random.default_rng(seed)
    n, k = segments.shape
    alpha, draws = np.full(k, 1 / k), []
    for i in range(_BURN_IN + 4 * _DRAWS):
        log_joint = segments + _log(alpha)
        edges = np.cumsum(np.exp(log_joint - log_joint.max(axis=1, keepdims=True)), axis=1)
        component = (edges < generator.random((n, 1)) * edges[:, -1:]).sum(axis=1)
        alpha = generator.dirichlet(1 + np.bincount(component, minlength=k))
        if i >= _BURN_IN:
            draws.append(alpha)
    return np.stack(draws)


def log_likelihood(segments: Array, alpha: Array) -> float:
    """``sum_s log sum_i alpha_i exp(segments_si)``."""
    return float(np.logaddexp.reduce(segments + _log(alpha), axis=1).sum())


def _log(alpha: Array) -> Array:
    """Logarithms of weights, -inf for those of 0."""
    with np.errstate(divide="ignore"):
        return np.log(alpha)


def _summary(bank: ModelBank, draws: Array, n: int, fit: float) -> InferredWeights:
    def by_name(values: Array) -> dict[str, float]:
        return dict(zip(bank.attributes, map(float, values), strict=True))

    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return InferredWeights(by_name(draws.mean(axis=0)), by_name(low), by_name(high), n=n, fit=fit)
