"""The shipped judge: sane on plain sentences, as good as its card says, and honest about nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluation.fit.measure import FLOORS, Measure, held_out_measure
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.classifier_weights import DIMENSIONS, SHIPPED, JudgeWeightsError, card_path
from evaluation.scores import Status
from personas.preferences import PreferencePair, load_mbti_pairs, split

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
MAX_BYTES = 2_000_000
# Floors (shared/data/README.md) that the shipped judge does not reach on the held-out questions; the
# card has the numbers. Its accuracy must still be what the card says, within three standard errors.
KNOWN_MISSES = {"S/N", "T/F", "J/P"}
SAMPLE_PAIRS = 15  # a dimension: embedding all held-out answers would take most of a minute
# Written for this test: first the pole's voice, then its opposite's.
VOICES = {
    "E": (
        "I love being around people! Parties with all my friends give me energy, and I chat with everyone.",
        "I would rather stay at home alone with a book. Quiet time by myself recharges me after a long day.",
    ),
    "S": (
        "I trust facts and practical experience. I follow concrete, proven steps and mind the details.",
        "I imagine possibilities and abstract ideas. I explore the deeper meaning and dream of the future.",
    ),
    "T": (
        "I analyze the problem objectively and decide by logic, evidence and efficiency.",
        "I care about everyone's feelings, and I listen with empathy and compassion to what hurts them.",
    ),
    "J": (
        "I make a detailed plan and a schedule, organize everything ahead, and finish before the deadline.",
        "I go with the flow, keep my options open and love spontaneous adventures and sudden changes.",
    ),
}


class CountingEmbedder:
    """An embedder without a model that remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return np.zeros((len(texts), 384), dtype=np.float32)


@pytest.mark.parametrize("pole", VOICES)
def test_plain_voices_are_told_apart(judge: ClassifierJudge, pole: str) -> None:
    scores = judge.score(VOICES[pole], pole)
    assert all(score.status is Status.OK for score in scores)
    own, other = (score.score or 0.0 for score in scores)
    assert own > 0.5 > other and own - other > 0.2


def test_opposite_poles_add_up_to_one_and_many_is_one_pass() -> None:
    counting = CountingEmbedder()
    judge = ClassifierJudge.load(embedder=counting)
    texts = [text for voices in VOICES.values() for text in voices]
    scores = judge.score_many(texts, judge.attributes)
    assert list(scores) == list(judge.attributes) == ["E", "I", "S", "N", "T", "F", "J", "P"]
    for first, second in DIMENSIONS.values():
        sums = [(a.score or 0) + (b.score or 0) for a, b in zip(scores[first], scores[second], strict=True)]
        np.testing.assert_allclose(sums, 1.0, atol=1e-9)
    assert counting.calls == [texts]


def test_scores_do_not_depend_on_order_or_company(judge: ClassifierJudge) -> None:
    texts = [text for voices in VOICES.values() for text in voices]
    forward = [score.score for score in judge.score(texts, "T")]
    backward = [score.score for score in judge.score(texts[::-1], "T")][::-1]
    alone = [judge.score([text], "T")[0].score for text in texts]
    np.testing.assert_allclose(np.array(forward, float), np.array(backward, float), atol=1e-5)
    np.testing.assert_allclose(np.array(forward, float), np.array(alone, float), atol=1e-5)


def test_nothing_to_judge_is_unscored() -> None:
    counting = CountingEmbedder()
    judge = ClassifierJudge.load(embedder=counting)
    scores = judge.score(["", " \n\t", "...!?", "I plan ahead."], "J")
    assert [score.status for score in scores] == [Status.FAILED] * 3 + [Status.OK]
    assert all(score.score is None and score.rationale for score in scores[:3])
    assert counting.calls == [["I plan ahead."]]  # no vector for a text without words
    assert judge.score(["", ""], "J") == scores[:2] and judge.score([], "J") == []
    assert len(counting.calls) == 1


def test_wrong_questions_are_refused(judge: ClassifierJudge) -> None:
    with pytest.raises(ValueError, match=r"'warmth'.*E I S N T F J P"):
        judge.score_many(["a text"], ["E", "warmth"])
    with pytest.raises(TypeError):
        judge.score("a text", "E")


def test_weights_are_small_plain_data_and_described(judge: ClassifierJudge) -> None:
    files = sorted(SHIPPED.parent.iterdir())
    assert files == sorted([SHIPPED, card_path(SHIPPED)])  # no pickle, no vocabulary
    assert sum(file.stat().st_size for file in files) <= MAX_BYTES
    content = SHIPPED.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # the safetensors layout
    assert {entry["dtype"] for entry in header.values()} == {"U16", "F16", "F32", "F64", "I64"}
    assert judge.name == "classifier" and judge.version.startswith(judge.card["version"] + "+")


def test_damaged_or_missing_weights_are_refused(tmp_path: Path) -> None:
    copy = tmp_path / SHIPPED.name
    with pytest.raises(JudgeWeightsError, match="missing"):
        ClassifierJudge.load(copy, embedder=CountingEmbedder())
    shutil.copyfile(SHIPPED, copy)
    card = json.loads(card_path(SHIPPED).read_text("utf-8"))
    card_path(copy).write_text(json.dumps(card | {"sha256": "0" * 64}), "utf-8")
    with pytest.raises(JudgeWeightsError, match="SHA-256"):
        ClassifierJudge.load(copy, embedder=CountingEmbedder())
    card_path(copy).write_text(json.dumps(card | {"ngrams": {}}), "utf-8")
    with pytest.raises(JudgeWeightsError, match="other features"):
        ClassifierJudge.load(copy, embedder=CountingEmbedder())


def sample(pairs: list[PreferencePair]) -> list[PreferencePair]:
    """The same few of the pairs every time, whatever their order."""

    def key(pair: PreferencePair) -> str:
        return hashlib.sha256(f"{pair.question}\n{pair.chosen}\n{pair.rejected}".encode()).hexdigest()

    return sorted(pairs, key=key)[:SAMPLE_PAIRS]


@pytest.fixture(scope="module")
def measured(judge: ClassifierJudge) -> dict[str, Measure]:
    if not DATA.is_dir():
        pytest.skip(f"no data at {DATA}")
    return {
        dimension: held_out_measure(judge, sample(split(load_mbti_pairs(DATA, poles[0]))[1]), poles[0])
        for dimension, poles in DIMENSIONS.items()
    }


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_card_tells_the_held_out_truth(
    judge: ClassifierJudge, measured: dict[str, Measure], dimension: str
) -> None:
    claimed, now = judge.card["dimensions"][dimension]["held_out"], measured[dimension]
    for share, n, found in (
        (claimed["accuracy"], now.n_answers, now.accuracy),
        (claimed["pair_ranking"], now.n_answers // 2, now.pair_ranking),
    ):
        assert found == pytest.approx(share, abs=3 * (share * (1 - share) / n) ** 0.5)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_floors_are_met_but_for_the_known_misses(judge: ClassifierJudge, dimension: str) -> None:
    claimed = judge.card["dimensions"][dimension]["held_out"]["accuracy"]
    assert (claimed < FLOORS[dimension]) == (dimension in KNOWN_MISSES)
