"""What a card says of how its texts were drawn, and of who judged them and what that is worth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.items import ENCODER, OWN, OWN_UNPROVEN, own_attribute, why_uncounted
from evaluation.judges import classifier_weights, encoder
from evaluation.judges.weights_card import JudgeWeightsError, read_card
from mpg.settings import TABLE
from pipeline.job.model import Job
from pipeline.publish.card.words import Md, code, inline
from pipeline.publish.sums import Bound

_TARGETS = {
    "reference": "the reference model's own law",
    "sum": "the mixture of the attributes' components, `sum_i weight_i q_i`, whose weights are reset {horizon}",
    "product": "the weighted product of the attributes' density ratios over the reference, normalised token by token",
    "routed": "one attribute at a time, drawn by its weight {horizon}: the mixture of the attributes' components",
    "pad": "the reference's own candidates, reweighted by the attributes' density ratios",
}
_SOUP = "one model, the reference with the weighted sum of the adapters"
_TOLD = "the reference model, told in its prompt what the attributes are like"
# Who is told -> what that makes of a target.
_TOLD_TOO = {
    "none": "",
    "reference": ". The reference is told in its prompt what the attributes are like; density ratios are between "
    "models that are not",
    "all": ". Every model is told in its prompt what the attributes are like, and density ratios are between told ones",
}


def method_of(job: Job, bound: Bound) -> dict[str, Any]:
    """The decoder, its target and its settings in words, and what was measured of its exactness."""
    decoder, facts = job.decoder, TABLE[job.decoder.name]
    target = facts.target or decoder.aggregate
    horizon = "never" if decoder.horizon is None else f"every {decoder.horizon} tokens"
    words = _SOUP if facts.soup else _TOLD if facts.told else _TARGETS[target].format(horizon=horizon)
    words += _TOLD_TOO[decoder.tell] if facts.weighted else ""
    settings = {
        "temperature": f"{decoder.temperature:g}" + (" (greedy)" if decoder.temperature == 0 else ""),
        "top-p": f"{decoder.top_p:g}" + (" (off)" if decoder.top_p == 1 else ""),
        "top-k": f"{decoder.top_k}" + (" (off)" if decoder.top_k == 0 else ""),
        "longest text": f"{decoder.max_new_tokens} tokens",
    }
    if facts.weighted and not facts.soup:
        strength = decoder.strength
        by_name = ", ".join(f"{name} {value:g}" for name, value in strength.items()) if isinstance(
            strength, Mapping
        ) else f"{strength:g}"  # fmt: skip
        settings = {"aggregate": "product" if target == "product" else "sum", "strength": by_name, **settings}
        settings |= {"horizon": horizon} if target in ("sum", "routed") else {}
    told = facts.told or (facts.weighted and decoder.tell != "none")
    if told:
        settings |= {"told": "the reference" if facts.told else decoder.tell, "wording": decoder.wording}
    return {
        "decoder": decoder.name,
        "target": Md(words),
        "told": told,
        "settings": settings,
        "exact": facts.exact,
        "bound": asdict(bound) if not facts.exact else None,
    }


def judges_of(
    labels: Collection[str], found: Mapping[str, tuple[int, int]], run: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Who judged: the label, how many judgments, whether they count, and what they are worth, in Markdown.

    Args:
        labels: of the judges of the last run or judging; judgments of others (older versions) stand beside them.
        found: label -> judgments, and those of them with a score.
    """
    worth = run.get("own_judges") or {}
    own = {each["judge"]: each["worth"] for each in worth.values() if isinstance(each, Mapping)}
    judges = []
    for label in sorted({*found, *labels}):
        n, n_scored = found.get(label, (0, 0))
        why = why_uncounted(label)
        why = "an older judge's, beside those of the last" if why is None and label not in labels else why
        judges.append(
            {
                "label": label,
                "n": n,
                "unscored": n - n_scored,
                "counts": why is None,
                "worth": _worth(label, own) if why is None or label in own else inline(f"counts in no mean: {why}"),
            }
        )
    return judges


def _worth(label: str, own: Mapping[str, str]) -> Md:
    kind = label.partition("@")[0]
    if kind == "classifier":
        return Md(_OF_CLASSIFIER + "; ".join(_held_out(classifier_weights.SHIPPED)))
    if kind == ENCODER:
        return Md(_OF_ENCODER + "; ".join(_held_out(encoder.SHIPPED)))
    if kind == "persona-match":
        return Md(
            "ranks the persona's own profile or personality among other people's by likeness to the text: 0.5 is "
            "chance, 1 nearer than anybody's; it reads topic and mood, no facts"
        )
    if kind in (OWN, OWN_UNPROVEN):
        return inline(own.get(label) or f"the judge beside the adapter of {own_attribute(label)}")
    return Md(
        "a model behind an endpoint, asked by rubrics; how far it is right about texts of known attributes is not "
        "measured here (`mpg judge --known` and `--repeat` do)"
    )


_OF_CLASSIFIER = (
    "ships with mpg-scr; fitted on answers from the same source as the shipped adapters: it tells poles apart and "
    "measures no personality; its accuracy on held-out answers: "
)


_OF_ENCODER = (
    "ships with mpg-scr; fitted on the same answers as the classifier, on a sentence encoder's layers and no n-gram; "
    "its accuracy on held-out answers: "
)


def _held_out(weights: Path) -> Iterator[str]:
    """Dimension by dimension, as the card beside the weights has it."""
    try:
        card = read_card(weights)
    except (JudgeWeightsError, OSError):
        return
    for name, facts in card["dimensions"].items():
        yield f"{inline(name)} {facts['held_out']['accuracy']:.2f}"


def decoder_settings(settings: Mapping[str, str]) -> Md:
    """Settings on one line."""
    return Md(", ".join(f"{inline(name)} {code(value)}" for name, value in settings.items()))
