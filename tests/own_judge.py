"""Judges beside adapters, fitted on made-up pairs whose sides differ by a word: small and real, within a second."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from evaluation.fit.own_judge import fit_own_judge
from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE, OwnJudge, own_judge
from personas.preferences import PreferencePair, split


class WordlessEmbedder:
    """Vectors that know nothing, so that the n-grams have to."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), 384), 384**-0.5, dtype=np.float32)


def pairs(n: int) -> list[PreferencePair]:
    """Pairs to n questions; answers differ from each other by their number, and the sides by a word."""
    return [
        PreferencePair(f"Question {i}?", f"aye says answer {i} of it", f"nay says answer {i} of it") for i in range(n)
    ]


def shuffled_sides(some: Sequence[PreferencePair], *, seed: int) -> list[PreferencePair]:
    """Pairs whose sides a coin has chosen: there is nothing to be learned from them."""
    coin = random.Random(seed)
    return [p if coin.random() < 0.5 else replace(p, chosen=p.rejected, rejected=p.chosen) for p in some]


def fit(folder: Path, some: Sequence[PreferencePair], name: str = "curious") -> OwnJudge:
    """A judge of some pairs, split as ``mpg train`` splits them."""
    return fit_own_judge(name, *split(some), folder, embedder=WordlessEmbedder(), about={"data": {"table": "made up"}})


def put_judge(folder: Path, *, good: bool = True) -> OwnJudge:
    """Put a judge beside an adapter: one that tells its held-out pairs apart, or one that could learn nothing."""
    for file in (WEIGHTS_FILE, CARD_FILE):
        shutil.copyfile(_fitted(good) / file, folder / file)
    found = own_judge(folder)
    assert found is not None and found.counted is good
    return found


@cache
def _fitted(good: bool) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="own-judge-"))
    fit(folder, pairs(100) if good else shuffled_sides(pairs(100), seed=0))
    return folder
