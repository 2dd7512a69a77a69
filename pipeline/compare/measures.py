"""What an arm comes to in numbers, and the one schema of the table of arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pyarrow as pa

from evaluation.features.embedding import Embedder
from evaluation.statistics.aggregate import Mean, clustered_mean
from evaluation.statistics.agreement import agreements
from evaluation.statistics.diversity import embedding_spread, self_bleu
from evaluation.statistics.joint import share, worst_attribute
from evaluation.statistics.pareto import perplexity
from evaluation.statistics.quality import distinct, words
from pipeline.compare.arms import Point
from pipeline.compare.texts import Text, Written, mean_of
from pipeline.store.schema import list_of

_MEAN = [("mean", pa.float64()), ("half_width", pa.float64())]
_CONTROL = [("slope", pa.float64()), ("spearman", pa.float64()), ("monotone", pa.bool_())]
_AGREEMENT = [("judges", pa.string()), ("n", pa.int32()), ("kappa", pa.float64()), ("spearman", pa.float64())]
# Of answers that can be read the share of the persona's own poles, mean over dimensions and personas; share of personas
# whose every pole has the majority; mean distance of shares of answers from shares of weight.
_QUESTIONNAIRE = [("questionnaire", pa.string()), ("accuracy", pa.float64()), ("types_right", pa.float64()),
                  ("absolute_error", pa.float64()), ("n_items", pa.int32()), ("n_unreadable", pa.int32())]  # fmt: skip
# A row an arm. No text stands in it, and no prompt: of these a hash.
ARMS = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("curve", pa.string(), nullable=False),  # the method with horizon or attribute
        pa.field("strength", pa.float64()),  # null: the decoder's own, or it has none
        pa.field("n_texts", pa.int32(), nullable=False),
        pa.field("n_prompts", pa.int32(), nullable=False),
        pa.field("n_unscored", pa.int32(), nullable=False),
        pa.field("score", pa.float64()),  # mean over texts of the mean of a text's own attributes
        pa.field("score_half_width", pa.float64()),  # of the 95 % interval, by prompt; likewise below
        pa.field("joint", pa.float64()),  # share of texts with all of them above 0.5
        pa.field("joint_half_width", pa.float64()),
        pa.field("worst_attribute", pa.string()),
        pa.field("worst_score", pa.float64()),
        pa.field("attributes", list_of(pa.struct([("attribute", pa.string()), *_MEAN]))),
        pa.field("families", list_of(pa.struct([("family", pa.string()), *_MEAN]))),  # the score by each alone
        pa.field("control", list_of(pa.struct([("attribute", pa.string()), *_CONTROL]))),  # weight against score
        pa.field("agreement", list_of(pa.struct([("attribute", pa.string()), *_AGREEMENT]))),
        pa.field("perplexity", pa.float64()),  # under the bare reference
        pa.field("kl_per_token", pa.float64()),  # to the bare reference, nats; null: not known
        pa.field("known", pa.float64()),  # share of questions with known answers; null: not asked
        pa.field("known_half_width", pa.float64()),  # by question
        pa.field("questionnaires", list_of(pa.struct(_QUESTIONNAIRE))),  # empty: none was put
        pa.field("words", pa.float64()),  # mean length
        pa.field("distinct_1", pa.float64()),  # within a persona, mean over personas; likewise below
        pa.field("distinct_2", pa.float64()),
        pa.field("self_bleu", pa.float64()),
        pa.field("spread_within", pa.float64()),  # of embeddings, 1 - cosine
        pa.field("spread_between", pa.float64()),  # of texts of different personas; null: there is one
        pa.field("tokens_per_s", pa.float64()),  # of the run that wrote the last of them
        pa.field("rounds_per_token", pa.float64()),  # drafts and their verification; 1: token by token
        pa.field("candidates_per_text", pa.float64()),  # drawn for each that was kept; 1: no judge chose
        pa.field("model", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("prompts_sha256", pa.string(), nullable=False),
    ]
)


def measures(stage: str, task: str, point: Point, written: Written, embedder: Embedder | None) -> dict[str, Any]:
    """A row of :data:`ARMS`.

    Args:
        embedder: of sentences; ``None``: the spread is not measured.
    """
    texts = written.texts
    clusters = [text.prompt for text in texts]
    score = clustered_mean([text.score for text in texts], clusters)
    joint = share([text.carried for text in texts], clusters)
    names = list(dict.fromkeys(name for text in texts for name in text.scores))
    # Of texts whose persona does not weigh an attribute there is no score of it, and none is missing.
    worst = worst_attribute({name: [text.scores.get(name) for text in texts] for name in names}, clusters)
    attributes = {name: clustered_mean(*_weighed(texts, name)) for name in names}
    families = {
        family: clustered_mean(_by(texts, family), clusters)
        for family in sorted({family for text in texts for family in text.by_family})
    }
    return {
        "stage": stage,
        "task": task,
        "method": point.curve.method,
        "curve": point.curve.label,
        "strength": point.strength,
        "n_texts": len(texts),
        "n_prompts": len(set(clusters)),
        "n_unscored": score.n_unscored,
        "score": score.value,
        "score_half_width": score.half_width,
        "joint": joint.value,
        "joint_half_width": joint.half_width,
        "worst_attribute": worst[0] if worst else None,
        "worst_score": worst[1].value if worst else None,
        "attributes": [{"attribute": name, **_mean(mean)} for name, mean in attributes.items()],
        "families": [{"family": name, **_mean(mean)} for name, mean in families.items()],
        "control": [
            {"attribute": name, "slope": curve.slope.value, "spearman": curve.spearman, "monotone": curve.monotone}
            for name, curve in written.control.items()
        ],
        "agreement": _agreement(texts, names),
        "perplexity": bare_perplexity(texts),
        "kl_per_token": _divergence(texts),
        "known": None,
        "known_half_width": None,
        "questionnaires": [],
        **_variety(texts, embedder),
        "tokens_per_s": written.run["timings"]["tokens_per_s"],
        "rounds_per_token": _rounds(texts),
        "candidates_per_text": _candidates(written),
        "model": written.run["model"],
        "dtype": written.run["dtype"],
        "prompts_sha256": written.prompts_hash,
    }


def bare_perplexity(texts: Sequence[Text]) -> float:
    """Of all texts together under the bare reference; nan without a token."""
    return perplexity(math.fsum(text.bare.log_prob for text in texts), sum(text.bare.n_tokens for text in texts))


def _by(texts: Sequence[Text], family: str) -> list[float | None]:
    """A family's mean of each text, over those of its attributes that the family knows."""
    given = [text.by_family.get(family, {}) for text in texts]
    known = {name for each in given for name, score in each.items() if score is not None}
    return [mean_of(score for name, score in each.items() if name in known) for each in given]


def _weighed(texts: Sequence[Text], name: str) -> tuple[list[float | None], list[str]]:
    """Scores of one attribute and their clusters, of the texts whose persona weighs it."""
    mine = [text for text in texts if name in text.scores]
    return [text.scores[name] for text in mine], [text.prompt for text in mine]


def _mean(mean: Mean) -> dict[str, float | None]:
    return {"mean": mean.value, "half_width": mean.half_width}


def _agreement(texts: Sequence[Text], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of every two families of judges on each attribute."""
    found = []
    for name in names:
        mine = [text for text in texts if name in text.scores]
        families = sorted({family for text in mine for family in text.by_family})
        given = {family: [text.by_family.get(family, {}).get(name) for text in mine] for family in families}
        for (a, b), each in agreements({k: v for k, v in given.items() if any(s is not None for s in v)}).items():
            found.append({"attribute": name, "judges": f"{a} / {b}", **vars(each)})
    return found


def _divergence(texts: Sequence[Text]) -> float | None:
    """Mean over texts of what is known of each, by tokens; ``None``: any is not known."""
    known = [text.divergence for text in texts if text.divergence is not None]
    n_tokens = sum(text.n_tokens for text in texts)
    return math.fsum(known) / n_tokens if n_tokens and len(known) == len(texts) else None


def _rounds(texts: Sequence[Text]) -> float | None:
    n_chunks, n_tokens = sum(text.n_chunks for text in texts), sum(text.n_tokens for text in texts)
    if not n_tokens:
        return None
    return n_chunks / n_tokens if n_chunks else 1.0


def _candidates(written: Written) -> float | None:
    accept = written.run.get("accept")
    if accept is None:
        return 1.0
    return accept["candidates"] / accept["rows"] if accept["rows"] else None


def _variety(texts: Sequence[Text], embedder: Embedder | None) -> dict[str, float | None]:
    """Within a persona, a mean over personas (each has as many texts); and between them."""
    personas: dict[str, list[list[str]]] = {}
    for text in texts:
        personas.setdefault(text.persona, []).append(words(text.response))
    bleus = [bleu for each in personas.values() if (bleu := self_bleu(each)) is not None]
    within = between = None
    if embedder is not None and texts:
        spread = embedding_spread(embedder.embed([text.response for text in texts]), [text.persona for text in texts])
        within, between = spread.within, spread.between
    return {
        "words": fmean(len(each) for own in personas.values() for each in own) if texts else None,
        "distinct_1": fmean(distinct(own, 1) for own in personas.values()) if texts else None,
        "distinct_2": fmean(distinct(own, 2) for own in personas.values()) if texts else None,
        "self_bleu": fmean(bleus) if bleus else None,
        "spread_within": within,
        "spread_between": between,
    }
