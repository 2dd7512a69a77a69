"""What a decoder is told and what it gives back: settings, requests, completions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

# Raised when the same settings and seed come to draw another text of the same law: part of a row's identity.
SAMPLER_VERSION = 2
# Samples its target exactly -> True. What each one's target is: `mpg.laws.target`, and the README's table.
_EXACT: dict[str, bool] = {
    "reference": True,
    "single": True,
    "prompting": True,
    "scr": False,
    "scr-exact": True,
    "routing": True,
    "mod": True,
    "soup": True,
    "pad": True,
    "drift": True,
    "sequence-rejection": False,
    "best-of-n": False,
}
DECODERS: tuple[str, ...] = tuple(_EXACT)
EXACT_DECODERS: tuple[str, ...] = tuple(name for name, exact in _EXACT.items() if exact)
VERIFICATIONS: tuple[str, ...] = ("token", "block")
DRAFTERS: tuple[str, ...] = ("mixture", "reference")
AGGREGATES: tuple[str, ...] = ("sum", "product")
# How far from 1 a row of weights may sum (they are renormalised in float64 after the check).
WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """How to decode. Immutable, checked at once; lengths are in tokens.

    Attributes:
        name: one of ``DECODERS``.
        aggregate: ``sum`` (mixture of components) or ``product`` (token-normalised geometric one); of
            ``scr``, ``scr-exact``, ``sequence-rejection`` and ``best-of-n``, the others name their own.
        horizon: positions after which the sum's weights are reset; ``None`` = never. Part of the
            target, not a speed knob.
        chunk_len: drafted tokens a round, of ``scr`` and of block verification; for ``scr-exact``
            with token verification the most the engine may draft: there it never changes a text.
        max_new_tokens: longest response, its EOS included.
        strength: exponent of the density ratios, one for all or one per attribute.
        temperature: divides every policy's logits before its log-softmax.
        top_k, top_p: truncate the *target's* token law (0 and 1.0: off); ``routing`` truncates each
            component, ``pad`` the reference, whose candidates it reweights.
        window: number of recent chunk ratios whose maximum is ``scr``'s bound M.
        max_tries: rejected chunks in a row after which ``scr`` draws one token from the target;
            responses drawn by ``sequence-rejection`` before one of them is picked in proportion to R.
        salvage: whether ``scr`` keeps the longest accepted prefix of a rejected chunk.
        drafter: of ``scr-exact``. ``mixture``: a component drawn from the mixture's weights drafts, so
            that drafts follow the sum itself and only truncation rejects any; the product has no
            components and drafts from the reference. ``reference``: ``pi_0``, as the paper's ``scr``.
            ``None``: the mixture where nothing is truncated, which is faster there, else the reference.
        verification: of ``scr-exact``: ``token`` by token, or a drafted ``block`` at a time (Sun et al.
            2024), which keeps more of the reference's drafts a round. All of these are lossless.
        n_candidates: responses of which ``best-of-n`` keeps one.
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
    drafter: str | None = None
    verification: str = "token"
    n_candidates: int = 8

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
        check(self.verification in VERIFICATIONS, "verification", "is not a verification; choose token or block")
        check(
            self.drafter is None or self.drafter in DRAFTERS, "drafter", "is not a drafter; choose mixture or reference"
        )
        check(self.n_candidates >= 1, "n_candidates", "must be at least 1")

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

    Attributes:
        prompts: what an attribute's own models read instead of ``prompt_ids``: ``pi_i``, and ``rho_i`` where
            the attribute has one of its own. Where it has none, ``pi_0`` under ``prompt_ids`` is the
            denominator: the ratio's is then the proposal itself, so that ``E_{pi_0}[r_i] = 1`` holds whatever
            ``pi_i`` reads, and ``q_i`` at strength 1 is ``pi_i`` under its own prompt.
    """

    prompt_ids: Sequence[int]
    weights: Mapping[str, float]
    seed: int
    prompts: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def prompt_of(self, attribute: str | None) -> Sequence[int]:
        """What the models of an attribute read; ``None``: the reference."""
        return self.prompt_ids if attribute is None else self.prompts.get(attribute, self.prompt_ids)


@dataclass(frozen=True)
class Completion:
    """One text, and the decoder's books about it.

    Attributes:
        token_ids: the response; its EOS is the last token where it stopped by itself.
        finish_reason: ``stop`` (EOS) or ``length``.
        log_ratios: per attribute of the request ``sum_t log pi_i(t) - log rho_i(t)`` in nats, at the
            decoder's temperature, without strength or truncation.
        log_prob_reference: ``sum_t log pi_0(t)``, likewise.
        exact: whether the decoder samples its target exactly.
        acceptance_rate: ``scr-exact``: accepted over tested draft tokens; ``scr`` and
            ``sequence-rejection``: accepted over drafted chunks; ``None`` where nothing was verified.
        n_chunks: drafted chunks. ``scr-exact``: as many as ``chunk_len`` drafts a round take for this
            text, however the engine scheduled them; token by token decoders: 0.
        n_clipped: ``scr``, ``sequence-rejection``: chunks whose ratio R exceeded the bound M.
        n_salvaged: ``scr``: rejected chunks of which a prefix was kept.
        n_fallbacks: ``scr``: tokens drawn from the target after ``max_tries`` rejections;
            ``sequence-rejection``: 1 if none of ``max_tries`` responses was accepted.
        tv_bound: estimated bound on the total variation between a chunk's law and its target,
            ``mean (R - M)+``; 0 for exact decoders; ``None`` where there is no such bound: a salvaged
            prefix, a fallback among whole responses, ``best-of-n``.
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


def drafter_of(settings: DecoderSettings) -> str:
    """Who drafts for ``scr-exact``: ``mixture`` or ``reference``."""
    if settings.aggregate != "sum" or settings.verification != "token":
        return "reference"
    return settings.drafter or ("reference" if settings.truncates else "mixture")


def check_request(request: Request, attributes: Sequence[str], settings: DecoderSettings) -> None:
    """Raise ValueError, naming field, value and remedy, where a request can't be decoded."""
    if not request.prompt_ids:
        raise ValueError("prompt_ids: an empty prompt; give at least one token")
    for name, prompt in request.prompts.items():
        if name not in attributes:
            raise ValueError(f"prompts: {name!r} is not an attribute of the bank ({', '.join(attributes)})")
        if not prompt:
            raise ValueError(f"prompts.{name}: an empty prompt; give at least one token, or leave it out")
    if request.prompts and settings.name == "soup":
        raise ValueError("prompts: decoder 'soup' is one model and reads one prompt; use 'mod' or 'scr-exact'")
    if settings.name == "reference":
        return
    if not request.weights:
        raise ValueError(f"weights: none given, which decoder {settings.name!r} needs; use decoder 'reference'")
    signed = settings.name == "drift"  # its weights are inferred, not a division of 1
    for name, weight in request.weights.items():
        if name not in attributes:
            raise ValueError(f"weights: {name!r} is not an attribute of the bank ({', '.join(attributes)})")
        if not (math.isfinite(weight) and (weight >= 0 or signed)):
            raise ValueError(f"weights.{name}: {weight!r} must be {'finite' if signed else '0 or more'}")
    total = math.fsum(request.weights.values())
    if not signed and abs(total - 1) > WEIGHT_TOLERANCE:
        raise ValueError(f"weights: they sum to {total:.6g}, not to 1; divide each by {total:.6g}")
    active = [name for name, weight in request.weights.items() if weight > 0]
    if settings.name == "single" and len(active) != 1:
        raise ValueError(f"weights: decoder 'single' takes one attribute, not {', '.join(active)}; use 'scr-exact'")
