"""The fitting script of the judge on an encoder's layers, on a made-up corpus and made-up vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluation.fit import train_encoder
from evaluation.judges.encoder import SIZE, EncoderJudge
from evaluation.judges.poles import DIMENSIONS
from evaluation.judges.weights_card import card_path
from tests.evaluation.fit.test_train_classifier import write_corpus


class LetterEmbedder:
    """Noise, and one coordinate of a layer in the middle that tells the corpus' marked words apart."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.random.default_rng(0).normal(size=(len(texts), SIZE)).astype(np.float32) / 50
        vectors[:, SIZE // 2] = [0.2 if "aaa" in text else -0.2 for text in texts]
        return vectors


def test_it_learns_and_prints_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_encoder, "CANDIDATE_C", (1.0, 4.0))
    write_corpus(tmp_path, n_questions=20)
    weights = tmp_path / "weights.safetensors"
    train_encoder.train(tmp_path, weights, embedder=LetterEmbedder())
    assert capsys.readouterr().out.count("1.000±0.000") >= 2 * len(DIMENSIONS)  # alone, and beside the classifier
    judge = EncoderJudge.load(weights, embedder=LetterEmbedder())
    high, low = judge.score(["Something else with aaaT in it", "and with none"], "T")
    assert high.score is not None and low.score is not None and high.score > 0.5 > low.score
    for entry in json.loads(card_path(weights).read_text("utf-8"))["dimensions"].values():
        assert entry["held_out"]["accuracy"] == 1.0 and entry["beside_classifier"]["other"]["n_answers"] > 0
