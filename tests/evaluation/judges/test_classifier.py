"""The shipped judge: sane on plain sentences, as good as its card says, and honest about nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from evaluation.features import ngrams
from evaluation.features.embedding import Embedder
from evaluation.fit.measure import Measure, held_out_measure
from evaluation.judges import encoder
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.classifier_weights import (
    SHIPPED,
    DimensionModel,
    Features,
    JudgeWeightsError,
    card_path,
    read_weights,
)
from evaluation.judges.poles import DIMENSIONS
from evaluation.scores import Status
from personas.preferences import MBTI_FILE, PreferencePair, load_mbti_pairs, split
from tests.own_pairs import N_OWN_PAIRS, REAL_DATA, needs_real, write_own_pairs

MAX_BYTES = 2_000_000
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


# Mean log loss on both answers of the project's own 12 pairs, in nats an answer; other weights (`make judge`) have
# others, which a failure of `pytest tests/evaluation/judges/test_classifier.py -k own_pairs` prints.
OWN_LOG_LOSS = {"E/I": 0.159, "S/N": 0.241, "T/F": 0.096, "J/P": 0.132}


class RememberingEmbedder:
    """An embedder that embeds each text once, however many judges ask."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, np.ndarray] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        unknown = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(unknown, self._embedder.embed(unknown) if unknown else (), strict=True))
        return np.stack([self._vectors[text] for text in texts])


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
    some = [score.score for first in range(0, len(texts), 7) for score in judge.score(texts[first : first + 7], "T")]
    assert forward == backward == alone == some  # to the last bit: else the files of a data set would depend on batches


def test_the_sum_over_an_embedding_does_not_depend_on_its_company() -> None:
    """A matrix product's last digits depend on how many rows it has, here and there; a row's own sum does not."""
    models, _ = read_weights(SHIPPED)
    embeddings = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
    features = Features(sp.csr_matrix((200, ngrams.N_FEATURES)), embeddings)
    for model in models.values():
        together = model.logits(features)
        some = [model.logits(features[np.arange(first, min(first + 7, 200))]) for first in range(0, 200, 7)]
        assert (together == np.concatenate(some)).all()


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
    shipped = [file for weights in (SHIPPED, encoder.SHIPPED) for file in (weights, card_path(weights))]
    assert files == sorted(shipped)  # no pickle, no vocabulary
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
    return {
        dimension: held_out_measure(judge, sample(split(load_mbti_pairs(REAL_DATA, poles[0]))[1]), poles[0])
        for dimension, poles in DIMENSIONS.items()
    }


@needs_real(MBTI_FILE, guards="the judge's held-out accuracy is not held against its card")
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


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[PreferencePair]]:
    """The project's own pairs of each dimension; ``chosen`` speaks for its first pole."""
    folder = write_own_pairs(tmp_path_factory.mktemp("own"))
    return {dimension: load_mbti_pairs(folder, poles[0]) for dimension, poles in DIMENSIONS.items()}


@pytest.fixture(scope="module")
def remembering(embedder: Embedder) -> RememberingEmbedder:
    return RememberingEmbedder(embedder)


def knows_the_dimension(measure: Measure, dimension: str) -> bool:
    """Whether a measure on the project's own pairs of a dimension is that of the shipped judge.

    It was measured at 12 of 12 pairs ranked rightly, and at the log losses on record. The weights are fixed and
    vectors do not depend on threads or batches, so neither moves by itself; one pair may turn, and the log loss
    grow by a quarter. Who knows nothing ranks 11 or more of 12 rightly with probability 13/4096 = 0.003; the log
    loss tells another dimension's weights, which may rank every pair rightly (J/P's do S/N's, at 0.389).
    """
    assert measure.n_answers == 2 * N_OWN_PAIRS
    return round(measure.pair_ranking * N_OWN_PAIRS) >= 11 and measure.log_loss <= 1.25 * OWN_LOG_LOSS[dimension]


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_own_pairs_are_ranked(
    own: dict[str, list[PreferencePair]], remembering: RememberingEmbedder, dimension: str
) -> None:
    """The shipped file, asked for both poles."""
    judge = ClassifierJudge.load(embedder=remembering)
    first, second = DIMENSIONS[dimension]
    turned = [PreferencePair(pair.question, pair.rejected, pair.chosen) for pair in own[dimension]]
    for pole, pairs in ((first, own[dimension]), (second, turned)):
        measure = held_out_measure(judge, pairs, pole)
        assert knows_the_dimension(measure, dimension), f"{pole}: {measure}; {OWN_LOG_LOSS[dimension]} on record"


def negated(models: Mapping[str, DimensionModel]) -> dict[str, DimensionModel]:
    """Every sign flipped."""
    return {
        dimension: replace(
            model,
            ngram_coef=-model.ngram_coef,
            embedding_coef=-model.embedding_coef,
            intercept=-model.intercept,
        )
        for dimension, model in models.items()
    }


def exchanged(models: Mapping[str, DimensionModel], by: int) -> dict[str, DimensionModel]:
    """Each dimension's weights under the name of another."""
    shifted = [*models.values()][by:] + [*models.values()][:by]
    return dict(zip(models, shifted, strict=True))


def without_words(models: Mapping[str, DimensionModel]) -> dict[str, DimensionModel]:
    """The n-grams' half lost."""
    return {d: replace(model, ngram_coef=np.zeros_like(model.ngram_coef)) for d, model in models.items()}


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_broken_weights_are_caught(
    own: dict[str, list[PreferencePair]], remembering: RememberingEmbedder, dimension: str
) -> None:
    models, card = read_weights(SHIPPED)
    first, second = DIMENSIONS[dimension]
    broken = {
        "negated": negated(models),
        **{f"exchanged by {by}": exchanged(models, by) for by in (1, 2, 3)},
        "without words": without_words(models),
    }
    measures = {
        what: held_out_measure(ClassifierJudge(some, remembering, card=card), own[dimension], first)
        for what, some in broken.items()
    }
    measures["asked for the opposite"] = held_out_measure(
        ClassifierJudge(models, remembering, card=card), own[dimension], second
    )
    assert {what: m for what, m in measures.items() if knows_the_dimension(m, dimension)} == {}
