"""Enumerates the decision tree of the real engine: every path of its random choices, with its probability.

The engine turns uniforms into choices in two functions only: ``draw`` (a token from a law) and ``passes``
(an event of some probability). Here each uniform carries which path, position and choice it stands for;
both functions are replaced by ones that make that choice and write down its probability. All paths run as
rows of one batch, through the engine's own batching, caches, chunks and rollbacks.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import mpg.decoding.rounds
import mpg.decoding.rows
import mpg.laws.verify
from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.settings import drafter_of

_ROUNDS = [
    importlib.import_module(f"mpg.decoding.rounds.{found.name}")
    for found in pkgutil.iter_modules(mpg.decoding.rounds.__path__)
]
# Where the engine draws: all of it is scripted.
DRAWING = [module for module in (*_ROUNDS, mpg.laws.verify) if hasattr(module, "draw")]

# A uniform is n / 2**46 with n = 1 + ((path * _PLACES + place) * _CHOICES + choice); 0 is no place.
_PLACES, _CHOICES, _SCALE = 64, 8, 2.0**46


class _Tree:
    """Paths and, for each, the probability of the latest choice made at each place."""

    def __init__(self, paths: Sequence[Sequence[int]]) -> None:
        self.paths = np.array(paths)  # [paths, places]
        self.probability = np.full(self.paths.shape, np.nan)

    def uniforms(self, path: int, first: int, count: int) -> np.ndarray:
        places = np.arange(first, first + count)
        chosen = np.array([self.paths[path, p] if p < self.paths.shape[1] else 0 for p in places])
        return (1 + (path * _PLACES + places) * _CHOICES + chosen) / _SCALE

    def _decode(self, uniforms: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number = np.rint(uniforms.cpu().numpy() * _SCALE).astype(np.int64) - 1
        return number // _CHOICES // _PLACES, number // _CHOICES % _PLACES, number % _CHOICES

    def _note(self, path: np.ndarray, place: np.ndarray, probability: np.ndarray) -> None:
        inside = (path >= 0) & (place < self.paths.shape[1])
        self.probability[path[inside], place[inside]] = probability[inside]

    def draw(self, probs: Tensor, uniforms: Tensor) -> Tensor:
        path, place, choice = self._decode(uniforms)
        token = torch.from_numpy(np.minimum(choice, probs.shape[1] - 1)).to(probs.device)
        self._note(path, place, (probs.gather(1, token[:, None])[:, 0] / probs.sum(-1)).cpu().numpy())
        return token

    def passes(self, probability: Tensor, uniforms: Tensor) -> Tensor:
        path, place, choice = self._decode(uniforms)
        p = probability.nan_to_num(0.0).clamp(0.0, 1.0).cpu().numpy()
        self._note(path, place, np.where(choice == 0, p, 1 - p))
        return torch.from_numpy(choice == 0).to(probability.device)


def tree_law(
    bank: ModelBank,
    prompt: Sequence[int],
    weights: Mapping[str, float],
    settings: DecoderSettings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    draft_len: int | None = None,
    n_attributes: int = 2,
    prompts: Mapping[str, Sequence[int]] | None = None,
) -> dict[tuple[int, ...], float]:
    """Law of the engine's responses by enumeration of its choices, for decoders with uniforms by position.

    Places are position * 4 + column (draft, test, replacement, route), as in :mod:`mpg.decoding.rows`.
    """
    vocab, length = bank.vocab_size, settings.max_new_tokens
    drafted = settings.facts.speculative
    routed = _routes(settings) or (drafted and drafter_of(settings) == "mixture")
    draft, route = range(vocab), range(n_attributes if routed else 1)
    at_position = [(x, 0, 0, i) for x in draft for i in route]
    if drafted:  # rejected, and replaced
        at_position += [(x, 1, y, i) for x in draft for y in range(vocab) for i in route]
    paths: list[tuple[int, ...]] = [()]
    for position in range(length):  # a path with a choice that is never made is another one once more
        paths = [
            (*path, *here)
            for path, here in itertools.product(paths, at_position)
            if all(made or not choice for made, choice in zip(_made(path, here, position, settings), here, strict=True))
        ]
    tree = _Tree(paths)

    class Scripted:
        def __init__(self, seed: int, *, stream: int = 0) -> None:
            self.path, self.taken = seed, stream * _PLACES // 2

        def take(self, count: int) -> np.ndarray:
            self.taken += count
            return tree.uniforms(self.path, self.taken - count, count)

    with monkeypatch.context() as patch:
        patch.setattr(mpg.decoding.rows, "RowStream", Scripted)
        for module in DRAWING:
            patch.setattr(module, "draw", tree.draw)
        patch.setattr(mpg.laws.verify, "passes", tree.passes)
        requests = [Request(prompt, weights, seed=path, prompts=prompts or {}) for path in range(len(tree.paths))]
        kept = [c.token_ids for c in decode(bank, requests, settings, batch_size=len(requests), draft_len=draft_len)]
    law: dict[tuple[int, ...], float] = defaultdict(float)
    for path, response in enumerate(kept):
        law[response] += _probability(tree, path, len(response), settings)
    return {response: p for response, p in law.items() if p > 0}


def _routes(settings: DecoderSettings) -> bool:
    """Whether an attribute is drawn to decode from: a greedy one decodes from the sum of all."""
    return settings.target == "routed" and not settings.greedy


def _made(
    before: Sequence[int], here: Sequence[int], position: int, settings: DecoderSettings
) -> tuple[bool, bool, bool, bool]:
    """Which of the four choices of a position (see :func:`tree_law`) are made in a text that reaches it.

    Args:
        before: choices of the positions before it, four each, of which the last count. here: its own.
    """
    drafted = settings.facts.speculative
    mixed = drafted and drafter_of(settings) == "mixture"
    # Drafts that follow the target itself are accepted without a test.
    tested = drafted and (not mixed or settings.truncates or settings.greedy)
    begins = position == 0 or (settings.horizon is not None and position % settings.horizon == 0)
    routed = begins or (mixed and before[-3] == 1)  # a component is drawn, after a rejection anew
    return True, tested, tested and here[1] == 1, (mixed or _routes(settings)) and routed


def _probability(tree: _Tree, path: int, length: int, settings: DecoderSettings) -> float:
    """Of a path; 0 for one that differs from another only in choices that were never made."""
    chosen, noted = tree.paths[path].reshape(-1, 4).tolist(), tree.probability[path].reshape(-1, 4)
    total = 1.0
    for position, here in enumerate(chosen):
        made = _made(chosen[position - 1], here, position, settings)
        for column in range(4):
            if position < length and made[column]:
                p = noted[position, column]
                total *= 0.0 if np.isnan(p) else p
            elif here[column]:
                return 0.0
    return total
