"""One text to write, and what became of it: requests, completions, and what a request must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mpg.settings import UNTOLD, DecoderSettings

# How far from 1 a row of weights may sum (they are renormalised in float64 after the check).
WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Request:
    """One text to write: prompt tokens, attribute weights, and the seed of its random stream.

    Empty weights stand for the reference alone and go with the ``reference`` decoder.

    Attributes:
        prompts: what an attribute's own models read instead of ``prompt_ids``: ``pi_i``, and ``rho_i`` where
            the attribute has one of its own. Where it has none, ``pi_0`` under ``prompt_ids`` is the
            denominator: the ratio's is then the proposal itself, so that ``E_{pi_0}[r_i] = 1`` holds whatever
            ``pi_i`` reads, and ``q_i`` at strength 1 is ``pi_i`` under its own prompt. Under ``UNTOLD``: what the
            reference would read if ``prompt_ids`` did not tell it what the attributes are like. With
            :attr:`mpg.settings.DecoderSettings.tell` ``reference``, ``pi_0`` under that is the denominator, and the
            told ``pi_0`` the proposal: ``q_i ∝ pi_0(told) r_i^lambda_i``, normalised over the vocabulary as ever.
    """

    prompt_ids: Sequence[int]
    weights: Mapping[str, float]
    seed: int
    prompts: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def prompt_of(self, attribute: str | None) -> Sequence[int]:
        """What the models of an attribute read, or the reference told nothing (``UNTOLD``); ``None``: the reference."""
        return self.prompt_ids if attribute is None else self.prompts.get(attribute, self.prompt_ids)


@dataclass(frozen=True)
class Completion:
    """One text, and the decoder's books about it.

    Attributes:
        token_ids: the response; its EOS is the last token where it stopped by itself.
        finish_reason: ``stop`` (EOS) or ``length``.
        log_ratios: per attribute of the request ``sum_t log pi_i(t) - log rho_i(t)`` in nats, at the
            decoder's temperature, without strength or truncation.
        log_prob_reference: ``sum_t log pi_0(t)``, likewise; of a reference that is told, as it is told.
        log_prob_untold: the same of the reference told nothing, where the request brings that prompt and the decoder
            tells; ``None``: ``log_prob_reference`` is that.
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
            ``1 - mean min(R, M)``; 0 for exact decoders; ``None`` where there is no such bound: a salvaged
            prefix, a fallback among whole responses, ``best-of-n``.
        token_log_ratios: the terms of ``log_ratios``, one a token of ``token_ids``; ``None``: the settings did not ask
            for them.
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
    log_prob_untold: float | None = None
    token_log_ratios: dict[str, tuple[float, ...]] | None = None


def stranger_in(ids: Sequence[int], n_embeddings: int | None) -> str | None:
    """The first token that a model can't read, in words; ``None``: it can read all (or nobody knows)."""
    if n_embeddings is None:
        return None
    found = next((i for i in ids if not 0 <= i < n_embeddings), None)
    return None if found is None else f"token {found}, and the model has embeddings for 0 to {n_embeddings - 1}"


def check_request(
    request: Request, attributes: Sequence[str], settings: DecoderSettings, n_embeddings: int | None = None
) -> None:
    """Raise ValueError, naming field, value and remedy, where a request can't be decoded.

    Args:
        n_embeddings: tokens that the models can read, from 0 on; ``None``: not looked at.
    """
    if not request.prompt_ids:
        raise ValueError("prompt_ids: an empty prompt; give at least one token")
    prompts = {"prompt_ids": request.prompt_ids, **{f"prompts.{name}": ids for name, ids in request.prompts.items()}}
    for where, ids in prompts.items():
        stranger = stranger_in(ids, n_embeddings)
        if stranger is not None:
            raise ValueError(f"{where}: {stranger}; leave it out, or resize the model's embeddings")
    for name, prompt in request.prompts.items():
        if name == UNTOLD and not settings.tells:
            raise ValueError(f"prompts: one for a reference told nothing, and decoder {settings.name!r} tells nobody "
                             "here; set tell, or leave it out")  # fmt: skip
        if name != UNTOLD and name not in attributes:
            raise ValueError(f"prompts: {name!r} is not an attribute of the bank ({', '.join(attributes)})")
        if not prompt:
            raise ValueError(f"prompts.{name}: an empty prompt; give at least one token, or leave it out")
    if settings.facts.soup and any(name != UNTOLD for name in request.prompts):
        raise ValueError(
            f"prompts: decoder {settings.name!r} is one model and reads one prompt; use 'mod' or 'scr-exact'"
        )
    if not settings.facts.weighted:
        return
    if settings.tell == "reference" and UNTOLD not in request.prompts:
        raise ValueError("prompts: none for the reference told nothing (mpg.UNTOLD), which tell 'reference' takes the "
                         "attributes' ratios to; give it")  # fmt: skip
    if not request.weights:
        raise ValueError(f"weights: none given, which decoder {settings.name!r} needs; use decoder 'reference'")
    signed = settings.facts.signed
    for name, weight in request.weights.items():
        if name not in attributes:
            raise ValueError(f"weights: {name!r} is not an attribute of the bank ({', '.join(attributes)})")
        if not (math.isfinite(weight) and (weight >= 0 or signed)):
            raise ValueError(f"weights.{name}: {weight!r} must be {'finite' if signed else '0 or more'}")
    total = math.fsum(request.weights.values())
    if not signed and abs(total - 1) > WEIGHT_TOLERANCE:
        raise ValueError(f"weights: they sum to {total:.6g}, not to 1; divide each by {total:.6g}")
    active = [name for name, weight in request.weights.items() if weight > 0]
    if settings.facts.one_attribute and len(active) != 1:
        raise ValueError(
            f"weights: decoder {settings.name!r} takes one attribute, not {', '.join(active)}; use 'scr-exact'"
        )
