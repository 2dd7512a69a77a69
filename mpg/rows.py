"""The running rows of an engine: their tokens, random streams, mixture weights and books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mpg.seeding import RowStream
from mpg.settings import EXACT_DECODERS, Completion, DecoderSettings, Request
from mpg.threshold import Window


@dataclass
class Row:
    """One text being written."""

    index: int
    request: Request
    stream: RowStream
    window: Window
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    tries: int = 0
    n_chunks: int = 0
    n_tested: int = 0
    n_accepted: int = 0
    n_salvaged: int = 0
    n_fallbacks: int = 0

    @property
    def last_token(self) -> int:
        return self.tokens[-1] if self.tokens else self.request.prompt_ids[-1]

    @property
    def n_cached(self) -> int:
        """Tokens whose keys and values are kept: all but the last one."""
        return len(self.request.prompt_ids) + len(self.tokens) - 1


class Rows:
    """The rows in the engine's slots, with what is kept of them in tensors.

    ``log_weights`` ``[rows, attributes]``: the mixture's weights at each row's next position;
    ``log_ratios`` ``[rows, attributes]`` and ``log_prob_reference`` ``[rows]``: sums over the response.
    """

    def __init__(self, settings: DecoderSettings, attributes: Sequence[str], device: torch.device) -> None:
        self.settings, self.attributes, self.device = settings, tuple(attributes), device
        self.rows: list[Row] = []
        n = len(self.attributes)
        self.alphas = torch.empty(0, n, device=device)
        self.log_weights = torch.empty(0, n, device=device)
        self.log_ratios = torch.empty(0, n, dtype=torch.float64, device=device)
        self.log_prob_reference = torch.empty(0, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def log_alphas(self) -> Tensor:
        return self.alphas.log()

    def add(self, index: int, request: Request) -> None:
        self.rows.append(Row(index, request, RowStream(request.seed), Window(self.settings.window)))
        alphas = torch.tensor([[float(request.weights.get(a, 0.0)) for a in self.attributes]], dtype=torch.float64)
        if request.weights:  # none: the reference decoder, which asks for none
            alphas = alphas / alphas.sum(-1, keepdim=True)
        alphas = alphas.float().to(self.device)
        self.alphas = torch.cat([self.alphas, alphas])
        self.log_weights = torch.cat([self.log_weights, alphas.log()])
        self.log_ratios = torch.cat([self.log_ratios, torch.zeros_like(alphas, dtype=torch.float64)])
        self.log_prob_reference = torch.cat([self.log_prob_reference, self.log_prob_reference.new_zeros(1)])

    def move(self, source: int, target: int) -> None:
        self.rows[target] = self.rows[source]
        for tensor in (self.alphas, self.log_weights, self.log_ratios, self.log_prob_reference):
            tensor[target] = tensor[source].clone()

    def drop_last(self) -> None:
        self.rows.pop()
        self.alphas, self.log_weights = self.alphas[:-1], self.log_weights[:-1]
        self.log_ratios, self.log_prob_reference = self.log_ratios[:-1], self.log_prob_reference[:-1]

    def last_tokens(self) -> Tensor:
        return torch.tensor([row.last_token for row in self.rows], device=self.device)

    def starts(self) -> Tensor:
        return torch.tensor([row.n_cached for row in self.rows], device=self.device)

    def offsets(self) -> Tensor:
        """Tokens written so far, ``[rows]``."""
        return torch.tensor([len(row.tokens) for row in self.rows], device=self.device)

    def uniforms(self, count: int) -> Tensor:
        """The next uniforms of each row's own stream, float64 ``[rows, count]``."""
        return torch.from_numpy(np.stack([row.stream.take(count) for row in self.rows])).to(self.device)

    def extend(self, row: Row, tokens: Sequence[int], eos_ids: frozenset[int]) -> None:
        row.tokens.extend(tokens)
        row.stopped = bool(row.tokens) and row.tokens[-1] in eos_ids

    def is_done(self, row: Row) -> bool:
        return row.stopped or len(row.tokens) >= self.settings.max_new_tokens

    def completion(self, slot: int) -> Completion:
        row, name = self.rows[slot], self.settings.name
        reason: Literal["stop", "length"] = "stop" if row.stopped else "length"
        scored = () if name == "reference" else self.attributes
        tv_bound: float | None = 0.0
        if name == "scr":
            tv_bound = None if row.n_salvaged else row.window.tv_bound
        return Completion(
            token_ids=tuple(row.tokens),
            finish_reason=reason,
            log_ratios={a: float(self.log_ratios[slot, i]) for i, a in enumerate(scored)},
            log_prob_reference=float(self.log_prob_reference[slot]),
            exact=name in EXACT_DECODERS,
            acceptance_rate=row.n_accepted / row.n_tested if row.n_tested else None,
            n_chunks=row.n_chunks,
            n_clipped=row.window.n_clipped,
            n_salvaged=row.n_salvaged,
            n_fallbacks=row.n_fallbacks,
            tv_bound=tv_bound,
        )
