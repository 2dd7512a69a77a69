"""The other judge that ships: the same to the bit in any batch, as good as it was, and refusing what it can't know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.features.embedding import DIMENSION, LayerEmbedder, SentenceEmbedder
from evaluation.fit.measure import Measure, held_out_measure
from evaluation.fit.train_classifier import Remembered
from evaluation.fit.train_encoder import Beside
from evaluation.judges.encoder import SHIPPED, SIZE, EncoderJudge, EncoderModel, read_weights, write_weights
from evaluation.judges.poles import DIMENSIONS
from evaluation.judges.weights_card import JudgeWeightsError, card_path
from evaluation.scores import Status
from personas.preferences import PreferencePair, load_mbti_pairs
from tests.own_pairs import N_OWN_PAIRS, write_own_pairs

TEXTS = [
    "I love being around people! Parties with all my friends give me energy.",
    "I would rather stay at home alone with a book.",
    "I decide by logic, evidence and efficiency. " * 3,
    "I care about everyone's feelings.",
    "Fine.",
]


@pytest.fixture(scope="module")
def layers() -> LayerEmbedder:
    return LayerEmbedder()


@pytest.fixture(scope="module")
def encoder(layers: LayerEmbedder) -> EncoderJudge:
    return EncoderJudge.load(embedder=layers)


def test_scores_do_not_depend_on_order_or_company(encoder: EncoderJudge) -> None:
    together = encoder.score_many(TEXTS, encoder.attributes)
    assert list(together) == ["E", "I", "S", "N", "T", "F", "J", "P"]
    backward = encoder.score_many(TEXTS[::-1], encoder.attributes)
    alone = [encoder.score_many([text], encoder.attributes) for text in TEXTS]
    for name, scores in together.items():
        assert scores == backward[name][::-1] == [each[name][0] for each in alone]  # to the last bit
    for first, second in DIMENSIONS.values():
        sums = [(a.score or 0) + (b.score or 0) for a, b in zip(together[first], together[second], strict=True)]
        np.testing.assert_allclose(sums, 1.0, atol=1e-9)


def test_the_last_layer_is_what_the_other_embedder_gives(layers: LayerEmbedder, embedder: SentenceEmbedder) -> None:
    vectors = layers.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), SIZE) and vectors.dtype == np.float32
    assert (vectors[:, -DIMENSION:] == embedder.embed(TEXTS)).all()
    np.testing.assert_allclose(np.linalg.norm(vectors.reshape(len(TEXTS), -1, DIMENSION), axis=-1), 1.0, atol=1e-6)


def test_what_cannot_be_judged_is_said(encoder: EncoderJudge) -> None:
    scores = encoder.score(["", "...!?", "I plan ahead."], "J")
    assert [score.status for score in scores] == [Status.FAILED, Status.FAILED, Status.OK]
    with pytest.raises(ValueError, match=r"the judge 'encoder' does not know 'warmth'; it knows E I S N T F J P"):
        encoder.score_many(["a text"], ["E", "warmth"])
    timid = EncoderJudge.load(embedder=Remembered({"a": np.zeros(SIZE, np.float32)}), abstain=0.49)
    assert timid.score(["a"], "E")[0].status is Status.REFUSED and timid.version.endswith("+abstain0.49")


def test_damaged_or_other_weights_are_refused(tmp_path: Path) -> None:
    copy, nobody = tmp_path / SHIPPED.name, Remembered({})
    with pytest.raises(JudgeWeightsError, match="missing"):
        EncoderJudge.load(copy, embedder=nobody)
    shutil.copyfile(SHIPPED, copy)
    card = json.loads(card_path(SHIPPED).read_text("utf-8"))
    for change, said in (({"sha256": "0" * 64}, "SHA-256"), ({"encoder": {}}, "another encoder")):
        card_path(copy).write_text(json.dumps(card | change), "utf-8")
        with pytest.raises(JudgeWeightsError, match=said):
            EncoderJudge.load(copy, embedder=nobody)
    models, _ = read_weights(SHIPPED)
    write_weights(copy, models | {"E/I": replace(models["E/I"], coef=models["E/I"].coef[1:])}, card)
    with pytest.raises(JudgeWeightsError, match=r"E/I\.coef is float32 \(2687,\)"):
        EncoderJudge.load(copy, embedder=nobody)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[PreferencePair]]:
    folder = write_own_pairs(tmp_path_factory.mktemp("own"))
    return {dimension: load_mbti_pairs(folder, poles[0]) for dimension, poles in DIMENSIONS.items()}


@pytest.fixture(scope="module")
def remembered(own: dict[str, list[PreferencePair]], layers: LayerEmbedder) -> Remembered:
    texts = [text for pairs in own.values() for pair in pairs for text in (pair.chosen, pair.rejected)]
    return Remembered(dict(zip(texts, layers.embed(texts), strict=True)))


def test_own_pairs_are_ranked_and_broken_weights_caught(
    own: dict[str, list[PreferencePair]], remembered: Remembered
) -> None:
    """As the classifier's: who knows nothing ranks 11 or more of 12 rightly with probability 0.003."""
    models, card = read_weights(SHIPPED)

    def measured(some: Mapping[str, EncoderModel]) -> dict[str, Measure]:
        judge = EncoderJudge(some, remembered, card=card)
        return {each: held_out_measure(judge, own[each], poles[0]) for each, poles in DIMENSIONS.items()}

    def passes(found: Mapping[str, Measure]) -> list[bool]:
        # Measured at 12 of 12 and log losses of 0.069, 0.163, 0.062, 0.070 nats an answer.
        return [each.pair_ranking * N_OWN_PAIRS > 10.5 and each.log_loss < 0.25 for each in found.values()]

    shipped = measured(models)
    assert all(passes(shipped)), shipped
    shifted = dict(zip(models, [*list(models.values())[1:], models["E/I"]], strict=True))
    negated = {each: EncoderModel(-model.coef, -model.intercept) for each, model in models.items()}
    for broken in (shifted, negated):
        assert not any(passes(measured(broken))), measured(broken)


def test_two_judges_beside_each_other_by_hand() -> None:
    """Both right of the chosen answers; of the rejected the other is wrong once, and the mean is not."""
    one, other = np.array([0.9, 0.8, 0.1, 0.2]), np.array([0.6, 0.7, 0.55, 0.3])
    found = Beside.of(one, other)
    assert (found.other.accuracy, found.mean.accuracy, found.kappa) == (0.75, 1.0, 0.5)
    assert found.spearman_within == pytest.approx(-1.0)
