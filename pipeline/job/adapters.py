"""What lies in an adapter's folder beside its weights: the card, with what it is like, and a judge of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.judges.own import CARD_FILE, OwnJudge, own_judge
from personas.attributes import KNOWN, Attribute
from pipeline.job.fields import AttributeSpec
from pipeline.job.judge_fields import ClassifierJudge
from pipeline.job.known import assignments
from pipeline.store.copies import here
from pipeline.store.places import expanded, is_local, is_url, joined

if TYPE_CHECKING:
    from pipeline.job.model import Job

ADAPTER_CARD = "card.json"
_CONFIG = "adapter_config.json"
# As an attribute is called in a job file: it is part of the judge's label.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def folder_of(job: Job, entry: AttributeSpec) -> Path | None:
    """The folder of an attribute's adapter, see :func:`adapter_folder`; ``None``, too, for one that ships."""
    if entry.adapter is None:
        return None
    return adapter_folder(job.resolve(entry.adapter), entry.revision, entry.subfolder)


def adapter_folder(place: str, revision: str | None = None, subfolder: str | None = None) -> Path | None:
    """The folder of an adapter on this machine; ``None`` for a Hub id that is not downloaded yet. Asks no server."""
    if Path(place).is_dir():
        return Path(place) / (subfolder or "")
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(place, f"{subfolder}/{_CONFIG}" if subfolder else _CONFIG, revision=revision)
    except ValueError:  # no id of the Hub, or no name of a file there
        return None
    return Path(found).parent if isinstance(found, str) else None


def attribute_of(name: str, place: str | None, revision: str | None = None, subfolder: str | None = None) -> Attribute:
    """An attribute as its adapter's card has it, else as it is known by its name.

    Args:
        place: folder or Hub id of an adapter that does not ship; ``None``: it ships.
        revision, subfolder: there.
    """
    known = KNOWN.get(name)
    if place is None or (known is not None and not Path(place).is_dir()):
        # What a model is told must not depend on whether the Hub's files are here already.
        return known or Attribute(name, "")
    known, card = known or Attribute(name, ""), _card_of(adapter_folder(place, revision, subfolder))
    description = _line(card.get("description"))
    if description in ("", known.description):
        return known
    return Attribute(name, description, _line(card.get("opposite")) or None, known.system)


def _card_of(folder: Path | None) -> dict[str, Any]:
    """The card in an adapter's folder; empty where there is none that can be read."""
    try:
        card = json.loads((folder / ADAPTER_CARD).read_text("utf-8")) if folder is not None else {}
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
    return judges_beside({each.name: folder_of(job, each) for each in job.attributes})


def judges_beside(folders: Mapping[str, Path | None]) -> dict[str, OwnJudge]:
    """Attribute -> the judge beside its adapter, where there is one.

    Args:
        folders: attribute -> folder of its adapter; ``None``: it has none here.

    Raises:
        JudgeWeightsError: one is damaged, or of another format.
    """
    found = {name: own_judge(folder) for name, folder in folders.items() if folder is not None}
    return {name: each for name, each in found.items() if each is not None}


def own_judges_of(entries: Sequence[str]) -> dict[str, OwnJudge]:
    """Attribute -> judge, of adapters on a command line, as ``FOLDER`` or ``NAME=FOLDER``.

    Raises:
        ValueError: a line: no judge there, or a name given twice.
        JudgeWeightsError: one is damaged, or of another format.
    """
    judges: dict[str, OwnJudge] = {}
    for entry in entries:
        named, equals, place = entry.partition("=")
        folder = adapter_folder(place if equals else entry)
        found = own_judge(folder) if folder is not None else None
        if found is None:
            raise ValueError(f"--weights {entry}: no judge ({CARD_FILE}) there; mpg train --judge-only fits one")
        name = named if equals else found.attribute
        if not _NAME.fullmatch(name):
            raise ValueError(f"--weights {entry}: {name!r} is no plain name; use letters and digits, and - or _ inside")
        if name in judges:
            raise ValueError(f"--weights {entry}: {name!r} is given twice; remove one")
        judges[name] = found
    return judges


def resolved(folder: Path, place: str) -> str:
    """A place: an absolute path if there is such a thing, from a job file's folder; else as it is, a Hub id.

    Of what is in a store: of a copy on this machine.
    """
    if is_url(place) or not is_local(folder):
        with suppress(OSError, ValueError):  # a Hub id, or what a check of the job has a word on
            return str(here(joined(folder, place)))
        return place
    path = folder / expanded(place)
    path = path.resolve() if path.name == ".." else path  # a folder's own name is recorded
    return str(path) if path.exists() else place


def judging_lines(job: Job, own: Mapping[str, OwnJudge], *, counted: bool = True) -> Iterator[str]:
    """What a job's author should know of its judges: what those beside adapters are worth, what no judge knows.

    Args:
        own: see :func:`own_judges`.
        counted: whether to say of those that count, too, what they are worth.
    """
    judged = {name for each in assignments(job.judges, job.attribute_names, own) for name in each.attributes}
    unjudged = [each for each in job.attributes if each.name not in judged]
    for each in unjudged if job.judges else ():
        here = each.adapter is None or folder_of(job, each) is not None
        yield f"no judge of this job knows {each.name}: unjudged" + ("" if here else ", unless its adapter brings one")
    for name, judge in own.items():
        if counted or not judge.counted:
            said = "judged by its adapter's own judge" if judge.counted else "its adapter's own judge stands apart"
            yield f"{name}: {said}, {judge.worth}"
