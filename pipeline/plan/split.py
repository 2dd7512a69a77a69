"""The test split of a data set: texts to prompts, or of mixtures, that the train split does not have.

What a text belongs to is a function of its prompt, or of its persona's weights, and of the job's field ``split``; other
texts do not matter. So it is the same for every range of rows by itself, and stays as it was in a data set that grows.
It is no part of a row's identity.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mpg.settings import TABLE
from personas import Prompt
from personas.attributes import WEIGHT_TOLERANCE
from personas.words import show
from pipeline.job.errors import Problem
from pipeline.job.model import Job
from pipeline.job.split import Split


def is_test_prompt(split: Split, messages: Iterable[tuple[str, str]]) -> bool:
    """Whether a prompt lies in the test split, by its content: upper and lower case and white space do not matter.

    Args:
        messages: (role, content) of each.
    """
    said = [(role, " ".join(_folded(content).split())) for role, content in messages]
    content = json.dumps([split.seed or 0, said])  # ASCII, whatever the text
    drawn = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
    return drawn < split.fraction * 2**64


def is_test_persona(split: Split, weights: Mapping[str, float]) -> bool:
    """Whether a persona's texts lie in the test split; the control's, which has no weights, never do.

    Args:
        weights: those above 0, or all.
    """
    named = (split.region or {}).items()
    # room for decimals typed by hand, as elsewhere
    inside = (
        low - WEIGHT_TOLERANCE <= weights.get(name, 0.0) <= high + WEIGHT_TOLERANCE for name, (low, high) in named
    )
    return any(weights.values()) and all(inside)


def test_ids(split: Split | None, rows: pa.Table) -> frozenset[str]:
    """Ids of those rows of the table `generations` that are the test split."""
    if split is None or not rows.num_rows:
        return frozenset()
    ids, sides = rows.column("row_id").to_pylist(), dict[Hashable, bool]()  # most rows have the key of many others
    keys: list[tuple[Any, ...]]
    if split.by == "prompt":
        keys = [tuple((m["role"], m["content"]) for m in prompt) for prompt in rows.column("prompt").to_pylist()]
    else:
        weighed = zip(*(rows.column(name).to_pylist() for name in ("attributes", "weights")), strict=True)
        keys = [tuple(zip(*each, strict=True)) for each in weighed]
    for key in keys:
        if key not in sides:
            sides[key] = is_test_prompt(split, key) if split.by == "prompt" else is_test_persona(split, dict(key))
    return frozenset(row_id for row_id, key in zip(ids, keys, strict=True) if sides[key])


def split_problems(job: Job, prompts: Sequence[Prompt]) -> list[Problem]:
    """Whether the job's split leaves train or test without a text, known before a model is loaded."""
    split = job.split
    if split is None:
        return []
    if split.by == "weights" and not TABLE[job.decoder.name].weighted:
        why = f"decoder {job.decoder.name!r} reads no persona, so that all texts are the control's, which is train"
        return [Problem("split.by", f"'weights': {why}; set split.by: prompt, or leave split out")]
    sides = _sides(job, split, prompts)
    if any(sides) and not all(sides):
        return []
    empty = "train" if any(sides) else "test"
    if split.by == "prompt":
        remedy = f"{'lower' if any(sides) else 'raise'} it, or give another split.seed"
        text = f"{split.fraction:g} leaves {empty} without a prompt (of {len(sides)}); {remedy}"
        return [Problem("split.test_fraction", text)]
    control = ", the control among them" if job.personas.control else ""
    text = f"leaves {empty} without a persona (of {len(sides)}{control}); {'narrow' if any(sides) else 'widen'} it"
    return [Problem("split.region", f"{show(dict(split.region or {}))} {text}")]


def split_note(job: Job, prompts: Sequence[Prompt]) -> str | None:
    """How much of a job is the test split; ``None``: it has none."""
    if job.split is None:
        return None
    sides, of = _sides(job, job.split, prompts), "prompts" if job.split.by == "prompt" else "personas"
    return f"split: {sum(sides)} of {len(sides)} {of} are the test split"


def _sides(job: Job, split: Split, prompts: Sequence[Prompt]) -> list[bool]:
    """Of each prompt, or persona, whether it is in the test split."""
    if split.by == "prompt":
        return [is_test_prompt(split, ((m.role, m.content) for m in prompt.messages)) for prompt in prompts]
    return [is_test_persona(split, persona.active) for persona in job.build_personas()]


def _folded(text: str) -> str:
    """Two texts that differ in case alone, or in how Unicode spells a character, are folded to one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
