"""From a job to planned cells: what will be decoded, under which settings, id and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import Any

from mpg.models.hub import Place
from mpg.models.template import PLAIN, ChatStyle
from mpg.settings import (
    DEFAULT_DATE,
    SAMPLER_VERSION,
    SAMPLER_VERSION_IN_16_BITS,
    TABLE,
    UNTOLD,
    DecoderSettings,
)
from personas import Cell, Persona, row_id, row_seed
from personas import control as control_persona
from personas.profiles import with_system
from pipeline.plan.systems import Systems

# Settings that came after data sets existed -> the value at which a decoder draws what it drew without them. There they
# stay out of the identity, so that a new setting never orphans rows.
_UNCHANGED_AT: dict[str, Any] = {"tell": "none"}


@dataclass(frozen=True)
class Sources:
    """Where a run's weights come from, with the revisions that its rows record.

    Attributes:
        model: of the reference.
        model_label: what rows record: ``name@revision``, without the path of any machine.
        adapters, references: attribute -> folder, or place on the Hub with its commit.
        adapter_revisions: attribute -> hash or revision (own reference included).
        dtype: ``float32`` or ``bfloat16``: already decided, never ``auto``.
        as_listed: attributes in the order of the job file, by which messages number them.
        style: what the chat template is told beside the messages.
    """

    model: Place
    model_label: str
    hub_revision: str | None
    adapters: tuple[tuple[str, Place], ...]
    references: tuple[tuple[str, Place], ...]
    adapter_revisions: tuple[tuple[str, str], ...]
    dtype: str
    as_listed: tuple[str, ...] = ()
    style: ChatStyle = PLAIN


# Control tokens in a text are read as control tokens: rows written so have no word of it in their identity.
ALLOW = "allow"


@dataclass(frozen=True)
class ControlRule:
    """What becomes of control tokens in a cell's texts.

    Attributes:
        mode: the job's word: ``text``, ``reject`` or ``allow``.
        in_text: whether a text holds any, see :class:`mpg.models.chat.ControlTokens`.
    """

    mode: str
    in_text: Callable[[str], bool]

    def marks(self, texts: Iterable[str | None]) -> bool:
        """Whether any of the texts does."""
        return any(text is not None and self.in_text(text) for text in texts)


@dataclass(frozen=True)
class PlannedCell:
    """One row to be written: everything a worker needs, and nothing it could decide differently.

    Attributes:
        place: in its grid, by which workers find it again (:mod:`pipeline.plan.stored`).
    """

    row_id: str
    seed: int
    prompt_id: str
    messages: tuple[tuple[str, str], ...]  # (role, content)
    persona: str
    weights: tuple[tuple[str, float], ...]  # above 0 only; empty: the reference alone
    sample_index: int
    decoder: DecoderSettings
    config_hash: str
    profile: str = ""
    personality: str = ""
    system: str | None = None  # what the reference is told before the prompt
    told: bool = False  # whether that says what the attributes are like
    untold: str | None = None  # what the reference would be told else
    own_systems: tuple[tuple[str, str], ...] = ()  # what an attribute's models are told instead
    control: str | None = None  # what becomes of the control tokens in its texts (the job's word); None: there are none
    style: ChatStyle = PLAIN  # what the chat template is told beside the messages
    reads_clock: bool = False  # whether the template asks for the day where it writes its chats
    place: int = field(default=0, compare=False)

    def chat(self) -> list[dict[str, str]]:
        """The prompt, as the job gave it."""
        return [{"role": role, "content": content} for role, content in self.messages]

    def reference_chat(self) -> list[dict[str, str]]:
        """What the reference reads."""
        return self.chat() if self.system is None else with_system(self.chat(), self.system)

    def own_chats(self) -> dict[str, list[dict[str, str]]]:
        """What the models of some attributes read instead, and a told reference untold.

        A system message of an attribute's own stays whoever is told: its model was trained under it.
        """
        own = {name: with_system(self.chat(), system) for name, system in self.own_systems}
        if not self.told:
            return own
        untold = self.chat() if self.untold is None else with_system(self.chat(), self.untold)
        untold_too = [UNTOLD, *(name for name, _ in self.weights if self.decoder.tell == "reference")]
        return {name: untold for name in untold_too if name not in own} | own

    def columns(self) -> dict[str, Any]:
        """The columns that ``generations`` and ``rejected`` share."""
        return {
            "row_id": self.row_id,
            "prompt_id": self.prompt_id,
            "prompt": self.chat(),
            "persona": self.persona,
            "profile": self.profile or None,
            "personality": self.personality or None,
            "system": self.system,
            "attributes": [name for name, _ in self.weights],
            "weights": [weight for _, weight in self.weights],
            "sample_index": self.sample_index,
        }


@dataclass(frozen=True)
class TemplateRule:
    """How a job's chats are put to the model's chat template, and what of it a row's identity knows.

    Attributes:
        style: what the template is told beside the messages.
        ends: the model's end tokens where they are not those that its ``generation_config`` names; ``None``: they are.
        reads_clock: whether the template asks for the day where it writes a chat.
    """

    style: ChatStyle = PLAIN
    ends: tuple[int, ...] | None = None
    reads_clock: Callable[[Sequence[Mapping[str, str]], ChatStyle], bool] = lambda chat, style: False

    def identity(self, chats: Sequence[Sequence[Mapping[str, str]]]) -> dict[str, Any]:
        """What a row's text depends on of it, where that is not what it always was, given the chats that are read."""
        found: dict[str, Any] = {}
        if self.ends is not None:
            found["ends"] = list(self.ends)
        if self.style.arguments:
            found["arguments"] = self.style.arguments
        if any(self.reads_clock(chat, self.style) for chat in chats):
            found["date"] = self.style.date or DEFAULT_DATE
        if self.style.fold_system and any(message["role"] == "system" for chat in chats for message in chat):
            found["system_role"] = "fold"
        return found


def identity(
    settings: DecoderSettings,
    dtype: str,
    attributes: Sequence[str] = (),
    *,
    unchanged_at: Mapping[str, Any] = _UNCHANGED_AT,
) -> dict[str, Any]:
    """The settings that a text depends on, by name; strengths one by one, of the attributes given.

    Args:
        unchanged_at: settings that are left out at these values.

    Raises:
        ValueError: a decoder without rows, which is used from Python only.
    """
    depends_on = settings.facts.text_depends_on
    if depends_on is None:
        raise ValueError(f"decoder {settings.name!r} has no rows: it is used from Python only")
    values = {
        name: value
        for name, value in asdict(settings).items()
        if name in depends_on and (name not in unchanged_at or value != unchanged_at[name])
    }
    if "strength" in values:
        values["strength"] = {name: settings.strength_of(name) for name in attributes}
    version = SAMPLER_VERSION if dtype == "float32" else SAMPLER_VERSION_IN_16_BITS
    return values | {"dtype": dtype, "sampler": version}


@dataclass(frozen=True)
class Resolved:
    """A persona under a decoder: what its texts depend on beside the prompt.

    Attributes:
        persona: the control where the decoder reads no weights.
        decoder: with the persona's own strengths; ``reference`` for the control.
        system: what the reference is told. own: what attributes' models are told instead.
        told: whether ``system`` says what the attributes are like. untold: what it would be else.
    """

    persona: Persona
    decoder: DecoderSettings
    system: str | None
    own: dict[str, str]
    told: bool
    untold: str | None


def resolved(persona: Persona, settings: DecoderSettings, systems: Systems) -> Resolved:
    """What a persona comes to.

    A control persona (no weights) is decoded by ``reference`` whatever the job's decoder is; under
    decoder ``reference`` every persona is the control.
    """
    if not settings.facts.weighted:
        persona = control_persona()
    active = persona.active
    if not active:
        depends_on = TABLE["reference"].text_depends_on or ()
        kept = {name: getattr(settings, name) for name in (*depends_on, "token_log_ratios")}
        settings = DecoderSettings(**kept | {"name": "reference"})
    elif persona.strengths:
        strengths = {name: persona.strengths.get(name, settings.strength_of(name)) for name in active}
        settings = replace(settings, strength=strengths)
    told = settings.tells
    system, untold = (systems.for_reference(persona, told=each) for each in (told, False))
    return Resolved(persona, settings, system, systems.for_attributes(persona), told, untold if told else None)


def row_key(found: Resolved) -> Hashable:
    """Equal for personas of one job that come to the same rows: what :func:`personas.row_id` knows of a persona."""
    active, decoder = found.persona.active, found.decoder
    reads_strength = "strength" in (decoder.facts.text_depends_on or ())
    strengths = {name: decoder.strength_of(name) for name in active} if reads_strength else {}
    parts = (active, strengths, found.own)
    return decoder.name, found.system, *(frozenset(part.items()) for part in parts)


def config_hash(known: Mapping[str, Any]) -> str:
    """What rows say of their settings: 16 hex digits of what :func:`identity` gives."""
    return hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _OfPersona:
    """What all cells of a persona have in common."""

    found: Resolved
    active: dict[str, float]
    decoder_identity: dict[str, Any]
    config_hash: str

    @classmethod
    def of(cls, persona: Persona, settings: DecoderSettings, sources: Sources, systems: Systems) -> _OfPersona:
        found = resolved(persona, settings, systems)
        active = found.persona.active
        known = identity(found.decoder, sources.dtype, tuple(active))
        return cls(found, active, known, config_hash(known))


def plan_cells(
    grid: Iterable[Cell],
    settings: DecoderSettings,
    sources: Sources,
    seed: int,
    systems: Systems | None = None,
    control: ControlRule | None = None,
    template: TemplateRule | None = None,
    places: Iterable[int] | None = None,
) -> list[PlannedCell]:
    """Give every cell its settings, id and seed; cells that come to the same row are planned once.

    Args:
        control: what becomes of control tokens in texts; ``None``: they are read as such.
        template: how chats are put to the model's template; ``None``: as ever, by a template that reads no clock.
        places: of the cells in the grid that they are of; ``None``: they are that grid.
    """
    revisions, systems = dict(sources.adapter_revisions), systems or Systems()
    template = template or TemplateRule()
    planned: dict[str, PlannedCell] = {}
    of_personas: dict[int, tuple[Persona, _OfPersona]] = {}  # by object: they are few, and their cells many
    for place, cell in zip(count() if places is None else places, grid, strict=False):
        if id(cell.persona) not in of_personas:
            of_personas[id(cell.persona)] = cell.persona, _OfPersona.of(cell.persona, settings, sources, systems)
        known = of_personas[id(cell.persona)][1]
        found, active, decoder_identity = known.found, known.active, known.decoder_identity
        if found.persona is not cell.persona:
            cell = replace(cell, persona=found.persona)
        decoder, system, own = found.decoder, found.system, found.own
        adapters = {name: revisions[name] for name in active}
        marked = None
        if control is not None and control.marks((*(m.content for m in cell.prompt.messages), system, *own.values())):
            marked = control.mode
        chat = cell.prompt.as_chat()
        # Who reads something else than the prompt; no attribute's name begins with a hyphen.
        read = own | ({} if system is None else {"": system})
        chats = [*([chat] if system is None else []), *(with_system(chat, each) for each in read.values())]
        if decoder.tell == "reference":  # else no text depends on what the reference would be told
            read |= {} if found.untold is None else {"-": found.untold}
            chats.append(chat if found.untold is None else with_system(chat, found.untold))
        depends_on = template.identity(chats)
        identifier = row_id(
            cell,
            model=sources.model_label,
            adapters=adapters,
            decoder=decoder_identity,
            seed=seed,
            prompts=read,
            control_tokens=None if marked == ALLOW else marked,
            template=depends_on,
        )
        planned.setdefault(
            identifier,
            PlannedCell(
                row_id=identifier,
                seed=row_seed(seed, identifier),
                prompt_id=cell.prompt.prompt_id,
                messages=tuple((m.role, m.content) for m in cell.prompt.messages),
                persona=cell.persona.name,
                weights=tuple(active.items()),
                sample_index=cell.sample_index,
                decoder=decoder,
                config_hash=known.config_hash,
                profile=cell.persona.profile,
                personality=cell.persona.personality,
                system=system,
                told=found.told,
                untold=found.untold,
                own_systems=tuple(own.items()),
                control=marked,
                style=template.style,
                reads_clock="date" in depends_on,
                place=place,
            ),
        )
    return list(planned.values())
