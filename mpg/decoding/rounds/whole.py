"""Whole responses, drafted from the reference and judged at their ends: baselines, approximate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpg.decoding.rounds.threshold import ThresholdRound
from mpg.decoding.rows import Rows
from mpg.laws.verify import resampled, whole_accepted
from mpg.models.lanes import BankSession


@dataclass(frozen=True)
class Response:
    """One drafted response: its tokens, ``log R`` under the target, and log-probabilities per branch.

    Attributes:
        token_log_probs: per token and branch, where they are asked for.
    """

    tokens: Tensor
    log_r: float
    log_probs: Tensor
    token_log_probs: Tensor | None = None


class WholeRound(ThresholdRound):
    """One response a row and round; ``choose`` says whether the row is done, and with which."""

    def __init__(self, *args: object, draft_len: int | None) -> None:
        super().__init__(*args, draft_len=draft_len)
        self.overhang = 1

    def step(self, session: BankSession, rows: Rows) -> None:
        chunk = self.draft(session, rows, rows.fresh_uniforms_of_responses())
        uniforms = rows.fresh_uniforms(2)  # a test, a choice
        lengths = self.lengths(rows, chunk.tokens)
        walk = self.walk(rows, chunk, self.longest(lengths, chunk), n_laws=0)
        log_r = self.log_prefix_ratios(chunk, walk, lengths)[:, -1]
        log_probs = walk.log_probs[lengths, rows.every]  # [rows, branches]
        bounds = [window.bound for window in rows.windows]
        self.record(rows, log_r.exp().tolist())
        for slot in range(len(rows)):  # once a response, not once a token
            length, terms = int(lengths[slot]), walk.token_log_probs
            by_token = None if terms is None else terms[:length, slot]
            response = Response(chunk.tokens[slot, :length], float(log_r[slot]), log_probs[slot], by_token)
            rows.responses[slot].append(response)
            chosen = self.choose(rows, slot, bounds[slot], uniforms[slot])
            if chosen is not None:
                self._take(rows, slot, rows.responses[slot][chosen])

    def choose(self, rows: Rows, slot: int, bound: float, uniforms: Tensor) -> int | None:
        """Which of the row's responses it keeps; ``None``: draft another.

        Args:
            bound: M that the last response is tested against.
            uniforms: of the test and of the choice, ``[2]``.
        """
        raise NotImplementedError

    def _take(self, rows: Rows, slot: int, response: Response) -> None:
        start, length = int(rows.n_prompt[slot]), len(response.tokens)
        rows.tokens[slot, start : start + length] = response.tokens
        rows.n_new[slot] = length
        rows.stopped[slot] = torch.isin(response.tokens[-1], self.eos_ids)
        rows.log_probs[slot] = response.log_probs
        if rows.token_log_probs is not None and response.token_log_probs is not None:
            rows.token_log_probs[slot, :length] = response.token_log_probs


class SequenceRejection(WholeRound):
    """Rejection sampling of whole responses: kept with probability ``min(1, R / M)``.

    After ``max_tries`` one of them is picked in proportion to R (sampling-importance resampling).
    """

    def choose(self, rows: Rows, slot: int, bound: float, uniforms: Tensor) -> int | None:
        tried = rows.responses[slot]
        rows.n_tested[slot] += 1
        if whole_accepted(tried[-1].log_r, bound, float(uniforms[0])):
            rows.n_accepted[slot] += 1
            return len(tried) - 1
        if len(tried) < self.settings.max_tries:
            return None
        rows.n_fallbacks[slot] += 1
        log_r = torch.tensor([response.log_r for response in tried], dtype=torch.float64)
        return resampled(log_r, uniforms[1:].cpu())


class BestOfN(WholeRound):
    """Of ``n_candidates`` responses the one with the highest ``sum_i alpha_i lambda_i log r_i``."""

    def choose(self, rows: Rows, slot: int, bound: float, uniforms: Tensor) -> int | None:
        tried = rows.responses[slot]
        if len(tried) < self.settings.n_candidates:
            return None
        scores = [self._score(rows, slot, response) for response in tried]
        return max(range(len(tried)), key=scores.__getitem__)

    def _score(self, rows: Rows, slot: int, response: Response) -> float:
        ratios = self.bank.layout.log_ratios(response.log_probs.cpu()).tolist()
        alphas = rows.alphas[slot].tolist()
        strengths = [rows.settings_of[slot].strength_of(name) for name in self.bank.attributes]
        return sum(a * s * r for a, s, r in zip(alphas, strengths, ratios, strict=True) if a)
