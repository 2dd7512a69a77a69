"""The judges that a job or a command may name, and a generation row as they see it. No Beam here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.endpoint.rubrics import Rubric, rubric_of
from evaluation.items import Item, Judge
from evaluation.judges.own import OwnJudge
from evaluation.judges.weights_card import JudgeWeightsError
from personas import KNOWN, ROLE_PLAY, Attribute
from pipeline.job.judge_fields import (
    ClassifierJudge,
    EncoderJudge,
    Judges,
    LogRatioJudge,
    OpenAIJudge,
    PersonaMatchJudge,
)
from pipeline.job.known import Assignment, is_remote
from pipeline.store.copies import folder_here
from pipeline.store.spending import Spending

if TYPE_CHECKING:
    from evaluation.endpoint.cache import JudgmentCache
    from evaluation.features.embedding import Embedder
    from evaluation.judges.endpoint import EndpointJudge

# Of a generation row, what judges see.
COLUMNS = ("row_id", "prompt", "profile", "personality", "response", "attributes", "log_ratios", "n_tokens")


_ROLE_PLAY_RUBRICS = {
    "profile": (
        "Speaks as this person would, from these facts: {profile}",
        "Contradicts these facts, or could be anybody's words.",
    ),
    "personality": ("Speaks as somebody would who is like this: {personality}", "Sounds like the contrary of that."),
}


# Judged beside role-play attributes by judges that grade by rubrics, as in the literature on role-play (profile,
# personality, naturalness; grades of 1 to 5, averaged over turns: here over rows, each of which is one turn).
NATURALNESS = Attribute(
    "naturalness",
    "Speaks as a real person would in this conversation: at ease, to the point, in a voice of its own.",
    "Recites facts about itself, lists traits, speaks like an assistant or a form.",
)


def with_naturalness(attributes: Sequence[Attribute]) -> tuple[Attribute, ...]:
    """The attributes, and naturalness where any is of role-play."""
    names = [each.name for each in attributes]
    wanted = NATURALNESS.name not in names and any(name in ROLE_PLAY for name in names)
    return (*attributes, NATURALNESS) if wanted else tuple(attributes)


class JudgeError(RuntimeError):
    """A judge that can't be loaded on this machine."""


def load_judge(spec: Judges, attribute: str | None = None, own: OwnJudge | None = None) -> Judge:
    """The judge of a job's ``judges`` entry.

    Args:
        own: the judge beside an adapter; of ``attribute``, as the job calls it.

    Raises:
        JudgeError: its weights or the package it needs are missing.
    """
    from evaluation.features.embedding import EmbeddingModelError

    if is_remote(spec):
        raise ValueError("a judge behind an endpoint has one process, see load_remote_judge")
    try:
        if own is not None and attribute is not None and isinstance(spec, ClassifierJudge):
            return _own_classifier(spec, attribute, own)
        return LOADERS[spec.kind](spec)
    except (JudgeWeightsError, EmbeddingModelError) as error:
        raise JudgeError(f"judges: {spec.kind}: {error}") from error


def check_judge(spec: Judges) -> None:
    """Raise JudgeError where :func:`load_judge` would miss a package; nothing is loaded."""
    from evaluation.features.embedding import EmbeddingModelError, model_folder

    if isinstance(spec, ClassifierJudge | EncoderJudge | PersonaMatchJudge):  # they read sentence embeddings
        try:
            model_folder()
        except EmbeddingModelError as error:
            raise JudgeError(f"judges: {spec.kind}: {error}") from error


def load_assigned(each: Assignment) -> Judge:
    """The judge of an assignment. Raises JudgeError, see :func:`load_judge`."""
    return load_judge(each.spec, each.attributes[0], each.own)


@cache
def _embedder() -> Embedder:
    """One for all classifiers of a process, which a job may have several of; texts are embedded once."""
    from evaluation.features.embedding import RecentTexts, SentenceEmbedder

    return RecentTexts(SentenceEmbedder())


@cache
def _layers() -> Embedder:
    """One for all encoder judges of a process: a comparison loads one for each of its jobs."""
    from evaluation.features.embedding import LayerEmbedder

    return LayerEmbedder()


def _classifier(spec: ClassifierJudge) -> Judge:
    from evaluation.judges.classifier import ClassifierJudge as Classifier

    return Classifier.load(embedder=_embedder(), abstain=spec.abstain)


def _own_classifier(spec: ClassifierJudge, attribute: str, own: OwnJudge) -> Judge:
    from evaluation.judges.classifier import ClassifierJudge as Classifier

    return Classifier.beside_adapter(own, attribute, embedder=_embedder(), abstain=spec.abstain)


def _encoder(spec: EncoderJudge) -> Judge:
    from evaluation.judges.encoder import EncoderJudge as Encoder

    return Encoder.load(embedder=_layers(), abstain=spec.abstain)


def _persona_match(spec: PersonaMatchJudge) -> Judge:
    from evaluation.judges.persona_match import PersonaMatchJudge as PersonaMatch

    return PersonaMatch()


def _log_ratio(spec: LogRatioJudge) -> Judge:
    from evaluation.judges.log_ratio import LogRatioJudge as LogRatio

    return LogRatio()


# How the kinds of :data:`pipeline.job.known.KINDS` that are not behind an endpoint are loaded.
LOADERS: Mapping[str, Callable[[Any], Judge]] = {
    "classifier": _classifier,
    "encoder": _encoder,
    "persona-match": _persona_match,
    "log-ratio": _log_ratio,
}


def rubrics_of(attributes: Sequence[Attribute]) -> list[Rubric]:
    """The rubrics of attributes.

    Raises:
        ValueError: one without a description.
    """
    rubrics = []
    for each in attributes:
        if each.name in _ROLE_PLAY_RUBRICS and each.description in ("", ROLE_PLAY[each.name].description):
            rubrics.append(Rubric(each.name, *_ROLE_PLAY_RUBRICS[each.name]))
        else:
            opposite = KNOWN[each.opposite].description if each.opposite in KNOWN else each.opposite
            rubrics.append(rubric_of(each.name, each.description, opposite))
    return rubrics


def load_remote_judge(spec: OpenAIJudge, attributes: Sequence[Attribute], work: Path, mode: str = "grades") -> Any:
    """The judge behind an endpoint; its cache, and what its budget has paid, are kept in a work folder.

    Args:
        mode: ``grades`` (:class:`evaluation.judges.openai.OpenAIJudge`), ``batch`` (the same, by the Batch API) or
            ``pairwise`` (:class:`evaluation.judges.pairwise.PairwiseJudge`).

    Raises:
        JudgeError: no key in the environment, an attribute without a description, a folder that can't be written.
    """
    from evaluation.endpoint.cache import JudgmentCache
    from evaluation.endpoint.settings import JudgeSetupError

    try:
        at = folder_here(work)  # SQLite needs a disk
        rubrics, cache = rubrics_of(attributes), JudgmentCache(at / "judge-cache.sqlite")
        judge = REMOTE_LOADERS[spec.kind](spec, rubrics, cache, at, mode)
        judge.budget.earlier = Spending(work).earlier.judges.get(judge.name, 0.0)
        return judge
    except JudgeSetupError as error:
        raise JudgeError(f"judges: {spec.kind}: {error}") from error
    except ValueError as error:
        raise JudgeError(f"attributes: {error}") from error
    except OSError as error:
        raise JudgeError(f"{work}: can't be written ({error}); name another folder") from error


def _openai(spec: OpenAIJudge, rubrics: Sequence[Rubric], cache: JudgmentCache, work: Path, mode: str) -> EndpointJudge:
    from evaluation.judges.openai import OpenAIJudge as Grades
    from evaluation.judges.openai_batch import BatchJudge
    from evaluation.judges.pairwise import PairwiseJudge

    if mode == "batch":
        return BatchJudge(rubrics, spec, cache=cache, state=work / "judge-batch.json")
    return (PairwiseJudge if mode == "pairwise" else Grades)(rubrics, spec, cache=cache)


# How those behind an endpoint are loaded: by rubrics, with a cache of answers, in a work folder.
REMOTE_LOADERS: Mapping[str, Callable[..., EndpointJudge]] = {"openai": _openai}


def calls_of(judge: Any) -> dict[str, Any]:
    """What a judge's calls to its endpoint came to, for ``run.json``."""
    endpoint: EndpointJudge = getattr(judge, "inner", judge)  # of one that compares, who is asked
    return {
        "calls": judge.n_calls,
        "prompt_tokens": judge.budget.prompt_tokens,
        "completion_tokens": judge.budget.completion_tokens,
        "cost": round(judge.budget.spent, 6),
        "stopped": judge.stopped,
        "first_error": endpoint.first_error,
        "left_out": endpoint.dialect.left_out,
        "license": getattr(endpoint.settings, "license", None),  # its section's, see docs/publishing.md
    }


def item_of(row: Mapping[str, Any]) -> Item:
    """A generation row as judges see it."""
    asked = [message["content"] for message in row["prompt"] if message["role"] == "user"]
    n = row["n_tokens"] or 1
    return Item(
        key=row["row_id"],
        text=row["response"],
        prompt=asked[-1] if asked else "",
        profile=row["profile"] or "",
        personality=row["personality"] or "",
        log_ratios={a: ratio / n for a, ratio in zip(row["attributes"], row["log_ratios"], strict=True)},
    )
