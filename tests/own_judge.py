"""Judges beside adapters, fitted on made-up pairs whose sides differ by a word: small and real, within a second."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
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


def pairs(n: int, *, chosen: str = "aye", rejected: str = "nay") -> list[PreferencePair]:
    """Pairs to n questions; answers differ from each other by their number, and the sides by a word."""
    return [
        PreferencePair(f"Question {i}?", f"{chosen} says answer {i} of it", f"{rejected} says answer {i} of it")
        for i in range(n)
    ]


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
    fit(folder, pairs(100) if good else pairs(100, chosen="x", rejected="x."))
    return folder
