"""What a decoder is told and what it gives back: settings, requests, completions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

DecoderName = Literal["reference", "scr", "scr-exact"]
Aggregate = Literal["sum", "product"]

DECODERS: tuple[str, ...] = ("reference", "scr", "scr-exact")
EXACT_DECODERS: tuple[str, ...] = ("reference", "scr-exact")
AGGREGATES: tuple[str, ...] = ("sum", "product")
# How far from 1 a row of weights may sum (they are renormalised in float64 after the check).
WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """How to decode. Immutable, checked at once; lengths are in tokens.

    Attributes:
        name: ``reference`` (pi_0 alone), ``scr`` (chunk-level rejection with an online bound,
            approximate) or ``scr-exact`` (the same drafts, lossless verification).
        aggregate: ``sum`` (mixture of components) or ``product`` (token-normalised geometric one).
        horizon: positions after which the sum's weights are reset; ``None`` = never. Part of the
            target, not a speed knob.
        chunk_len: drafted tokens a round.
        max_new_tokens: longest response, its EOS included.
        strength: exponent of the density ratios, one for all or one per attribute.
        temperature: divides every policy's logits before its log-softmax.
        top_k, top_p: truncate the *target's* token law (0 and 1.0: off).
        window: number of recent chunk ratios whose maximum is ``scr``'s bound M.
        max_tries: rejected chunks in a row after which ``scr`` draws one token from the target.
        salvage: whether ``scr`` keeps the longest accepted prefix of a rejected chunk.
    """

    name: str = "scr-exact"
    aggregate: str = "sum"
    horizon: int | None = 8
    chunk_len: int = 8
    max_new_tokens: int = 128
    strength: float | Mapping[str, float] = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    window: int = 64
    max_tries: int = 8
    salvage: bool = True

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, remedy: str) -> None:
            if not ok:
                raise ValueError(f"decoder.{name}: {getattr(self, name)!r} {remedy}")

        check(self.name in DECODERS, "name", f"is not a decoder; choose from {', '.join(DECODERS)}")
        check(self.aggregate in AGGREGATES, "aggregate", "is not an aggregate; choose sum or product")
        check(self.horizon is None or self.horizon >= 1, "horizon", "must be at least 1, or null: never reset")
        check(self.chunk_len >= 1, "chunk_len", "must be at least 1")
        check(self.max_new_tokens >= 1, "max_new_tokens", "must be at least 1")
        strengths = self.strength.values() if isinstance(self.strength, Mapping) else [self.strength]
        check(all(s > 0 and math.isfinite(s) for s in strengths), "strength", "must be above 0")
        check(self.temperature > 0, "temperature", "must be above 0")
        check(self.top_k >= 0, "top_k", "must be 0 (off) or more")
        check(0 < self.top_p <= 1, "top_p", "must be in (0, 1]")
        check(self.window >= 1, "window", "must be at least 1")
        check(self.max_tries >= 1, "max_tries", "must be at least 1")

    def strength_of(self, attribute: str) -> float:
        """The exponent lambda of one attribute; 1 where a mapping does not name it."""
        if isinstance(self.strength, Mapping):
            return float(self.strength.get(attribute, 1.0))
        return float(self.strength)

    @property
    def truncates(self) -> bool:
        """Whether top-k or top-p cut the target's token law."""
        return self.top_k > 0 or self.top_p < 1.0


@dataclass(frozen=True)
class Request:
    """One text to write: prompt tokens, attribute weights, and the seed of its random stream.

    Empty weights stand for the reference alone and go with the ``reference`` decoder.
    """

    prompt_ids: Sequence[int]
    weights: Mapping[str, float]
    seed: int


@dataclass(frozen=True)
class Completion:
    """One text, and the decoder's books about it.

    Attributes:
        token_ids: the response; its EOS is the last token where it stopped by itself.
        finish_reason: ``stop`` (EOS) or ``length``.
        log_ratios: per attribute ``sum_t log pi_i(t) - log rho_i(t)`` in nats, at the decoder's
            temperature, without strength or truncation.
        log_prob_reference: ``sum_t log pi_0(t)``, likewise.
        exact: whether the decoder samples its target exactly.
        acceptance_rate: ``scr-exact``: accepted over tested draft tokens; ``scr``: accepted over
            drafted chunks; ``None`` where nothing was verified.
        n_chunks: drafted chunks.
        n_clipped: ``scr``: chunks whose ratio R exceeded the bound M.
        n_salvaged: ``scr``: rejected chunks of which a prefix was kept.
        n_fallbacks: ``scr``: tokens drawn from the target after ``max_tries`` rejections.
        tv_bound: estimated bound on the total variation between a chunk's law and its target,
            ``mean (R - M)+``; 0 for exact decoders; ``None`` where a salvaged prefix voids it.
    """

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    log_ratios: dict[str, float]
    log_prob_reference: float
    exact: bool
    acceptance_rate: float | None
    n_chunks: int
    n_clipped: int = 0
    n_salvaged: int = 0
    n_fallbacks: int = 0
    tv_bound: float | None = field(default=0.0)


def check_request(request: Request, attributes: Sequence[str], settings: DecoderSettings) -> None:
    """Raise ValueError, naming field, value and remedy, where a request can't be decoded."""
    if not request.prompt_ids:
        raise ValueError("prompt_ids: an empty prompt; give at least one token")
    if settings.name == "reference":
        return
    if not request.weights:
        raise ValueError(f"weights: none given, which decoder {settings.name!r} needs; use decoder 'reference'")
    for name, weight in request.weights.items():
        if name not in attributes:
            raise ValueError(f"weights: {name!r} is not an attribute of the bank ({', '.join(attributes)})")
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"weights.{name}: {weight!r} must be 0 or more")
    total = math.fsum(request.weights.values())
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise ValueError(f"weights: they sum to {total:.6g}, not to 1; divide each by {total:.6g}")
