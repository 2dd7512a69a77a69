"""The card's front matter: what the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.job.model import Job

# The card's own tags; the Hub makes one more of the paper's link in the text.
TAGS = ("synthetic", "personalization", "personas", "decoding-time-alignment", "mpg-scr")
# https://huggingface.co/tasks: what the texts are of use for.
TASKS = ("text-generation",)


def front_of(job: Job, data: Mapping[str, Any], licence: Mapping[str, str]) -> dict[str, Any]:
    """The fields of https://github.com/huggingface/hub-docs/blob/main/datasetcard.md that are known, in its order.

    Args:
        data: what the data set's files say, see :func:`pipeline.publish.configs.data_front`.
        licence: ``license``, ``license_name``, ``license_link``, as far as they are known.
    """
    prompts, card = job.prompts, job.card
    # The prompts alone are taken from elsewhere; a folder of this machine is no data set of the Hub.
    of_hub = prompts.dataset is not None and not Path(job.resolve(prompts.dataset)).exists() and _is_id(prompts.dataset)
    front: dict[str, Any] = {
        **licence,
        "language": list(card.language),
        "pretty_name": title_of(job),
        "tags": list(dict.fromkeys((*TAGS, *card.tags))),
        "task_categories": list(TASKS),
        "annotations_creators": ["machine-generated"],
        "source_datasets": [prompts.dataset if of_hub else "original"],
        **data,
    }
    return {name: value for name, value in front.items() if value or name not in ("language",)}


def title_of(job: Job) -> str:
    """What the card is headed by."""
    return job.card.pretty_name or job.name


def written(front: Mapping[str, Any]) -> str:
    """The block at the head of a card; read back, it is the same, whatever the names in it."""
    how: dict[str, Any] = {"sort_keys": False, "width": 10**9}
    text = yaml.safe_dump(dict(front), allow_unicode=True, **how)
    if yaml.safe_load(text) != dict(front):  # line breaks of other scripts, say, which YAML folds unless spelled out
        text = yaml.safe_dump(dict(front), allow_unicode=False, **how)
    return f"---\n{text.strip()}\n---\n"


def _is_id(place: str) -> bool:
    return not place.startswith((".", "/", "~")) and place.count("/") <= 1
