"""What lies in an adapter's folder beside its weights: the card, with what it is like, and a judge of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.judges.own import OwnJudge, own_judge
from personas.attributes import KNOWN, Attribute
from pipeline.job.fields import ClassifierJudge
from pipeline.job.known import Assignment

if TYPE_CHECKING:
    from pipeline.job.model import Job

CARD_FILE = "card.json"
_CONFIG = "adapter_config.json"


def adapter_folder(place: str) -> Path | None:
    """The folder of an adapter on this machine; ``None`` for a Hub id that is not downloaded yet. Asks no server."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(place, _CONFIG)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def attribute_of(name: str, place: str | None) -> Attribute:
    """An attribute as its adapter's card has it, else as it is known by its name.

    Args:
        place: folder or Hub id of an adapter that does not ship; ``None``: it ships.
    """
    known = KNOWN.get(name)
    if place is None or (known is not None and not Path(place).is_dir()):
        # What a model is told must not depend on whether the Hub's files are here already.
        return known or Attribute(name, "")
    known, card = known or Attribute(name, ""), _card_of(adapter_folder(place))
    description = _line(card.get("description"))
    if description in ("", known.description):
        return known
    return Attribute(name, description, _line(card.get("opposite")) or None, known.system)


def _card_of(folder: Path | None) -> dict[str, Any]:
    """The card in an adapter's folder; empty where there is none that can be read."""
    try:
        card = json.loads((folder / CARD_FILE).read_text("utf-8")) if folder is not None else {}
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _line(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def own_judges(job: Job) -> dict[str, OwnJudge]:
    """Attribute -> the judge beside its adapter, of a job that asks classifiers; those of the Hub once they are here.

    Raises:
        JudgeWeightsError: one is damaged, or of another format.
    """
    if not any(isinstance(spec, ClassifierJudge) for spec in job.judges):
        return {}
    folders = {each.name: adapter_folder(job.resolve(each.adapter)) for each in job.attributes if each.adapter}
    found = {name: own_judge(folder) for name, folder in folders.items() if folder is not None}
    return {name: each for name, each in found.items() if each is not None}


def notes_on(job: Job, assigned: Sequence[Assignment]) -> Iterator[str]:
    """What a job's author should know of its judges: attributes that none knows, judges that do not count."""
    judged = {name for each in assigned for name in each.attributes}
    unjudged = [name for name in job.attribute_names if name not in judged]
    if job.judges and unjudged:
        yield f"no judge of this job knows {', '.join(unjudged)}: unjudged"
    for each in assigned:
        if each.own is not None and not each.own.counted:
            yield f"{each.attributes[0]}: its adapter's own judge is shown apart: {each.own.worth}"
