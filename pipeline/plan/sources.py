"""Where a job's weights come from, with their revisions; its decoder's settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpg.models.chat import stranger_problem
from mpg.models.embedded import EmbeddedModelError, resolve
from mpg.models.ends import Ends
from mpg.models.errors import BankError
from mpg.models.hub import HubUnreachable, NoRevision, Place
from mpg.models.template import ChatStyle, argument_problem, template_problem
from pipeline.exit_status import ExitStatus
from pipeline.job.model import Job
from pipeline.plan.cards import start_problem
from pipeline.plan.cells import Sources
from pipeline.plan.errors import RunError


class SourcesUnreachable(RunError):
    """They may be on the Hub, which can't be asked now: nothing is known to be wrong with the job."""


@dataclass(frozen=True)
class Resolved:
    """What a job's names stand for.

    Attributes:
        tokenizer: of the reference; its chat template is there.
        max_positions: that all models take; ``None``: they do not say.
        n_embeddings: tokens that all can read.
        ends: the tokens that end texts.
        invocations: attribute -> tokens that its prompts must hold, see :attr:`mpg.ModelBank.invocations`.
    """

    sources: Sources
    tokenizer: Any
    max_positions: int | None
    n_embeddings: int
    ends: Ends
    invocations: dict[str, list[tuple[int, ...]]]


def resolve_sources(job: Job, dtype: str | None = None, order: Sequence[str] = ()) -> Sources:
    """See :func:`resolved`."""
    return resolved(job, dtype, order).sources


def resolved(
    job: Job, dtype: str | None = None, order: Sequence[str] = (), unreachable: list[str] | None = None
) -> Resolved:
    """Decide what ``auto`` and names stand for: places, revisions, number format. No weights of a model are loaded.

    Args:
        dtype, order: decided already, see :mod:`pipeline.plan.computed_with`; ``None``: by the job, on this machine.
        unreachable: adapters that the Hub can't be asked about now are noted there and passed over; ``None``: an error.

    Raises:
        RunError: an adapter without weights or for another model, a model that is not there or has no chat template.
        SourcesUnreachable: the Hub can't be asked.
    """
    from transformers.utils import logging as transformers_logging

    from mpg.models.dtype import pick_dtype
    from mpg.models.fingerprint import revision_of
    from mpg.models.load import check_source, embeddings_of, ends_at
    from mpg.models.positions import max_positions_of
    from mpg.models.pretrained import load_tokenizer, skeleton_of

    transformers_logging.disable_progress_bar()  # the run has a bar of its own
    model = Place(job.resolve(job.model.id), job.model.revision, untested=job.model.untested)
    with _problems_of("model.id", "model.revision"):
        resolve(model.source)
        model = model.pinned()
        skeleton, tokenizer = skeleton_of(model), load_tokenizer(model)
        if tokenizer.chat_template is None:
            raise BankError(f"{model.source}'s tokenizer has no chat template; use an instruction-tuned model")
        n_embeddings, ends = embeddings_of(skeleton), ends_at(model, skeleton, tokenizer, chat_style(job))
        max_positions = max_positions_of(skeleton.config)
        _check_template(job, tokenizer, n_embeddings)
        model_revision = revision_of(model)
    places, references = _places(job)
    adapters = {name: places[name] for name in (*order, *places) if name in places}
    revisions: dict[str, str] = {}
    invocations: dict[str, list[tuple[int, ...]]] = {}
    for index, each in enumerate(job.attributes):
        field = f"attributes[{index}]"
        for name, named in (("", adapters), ("reference_", references)):
            if each.name not in named:
                continue
            with _problems_of(f"{field}.{name.rstrip('_') or 'adapter'}", f"{field}.{name}revision"):
                try:
                    place = named[each.name] = named[each.name].pinned()
                    needs = check_source(skeleton, tokenizer, place, model)
                    if needs.invocation:
                        invocations.setdefault(each.name, []).append(needs.invocation)
                        problem = start_problem(place, needs.invocation, tokenizer, chat_style(job))
                        if problem is not None:
                            raise BankError(problem)
                    n_embeddings = min(n_embeddings, needs.n_embeddings or n_embeddings)
                    positions = [n for n in (max_positions, needs.max_positions) if n is not None]
                    max_positions = min(positions, default=None)
                    named[each.name] = replace(place, any_base=True)  # said once: not again by whoever loads it
                    revision = revision_of(place)
                except HubUnreachable as error:
                    if unreachable is None:
                        raise
                    unreachable.append(f"{field}.{name.rstrip('_') or 'adapter'}: {error}")
                    revision = "unknown"
            revisions[each.name] = f"{revisions[each.name]}/{revision}" if name else revision
    # A folder is known by its own name and its content: a row must not change when the folder moves.
    name = Path(model.source).name if model.folder is not None else model.source
    sources = Sources(
        model=model,
        model_label=f"{name}@{model_revision}",
        hub_revision=model.revision,
        adapters=tuple(adapters.items()),
        references=tuple(references.items()),
        adapter_revisions=tuple((name, revisions[name]) for name in adapters),
        dtype=dtype or pick_dtype(job.model.dtype),
        as_listed=job.attribute_names,
        style=chat_style(job),
    )
    return Resolved(sources, tokenizer, max_positions, n_embeddings, ends, invocations)


def chat_style(job: Job) -> ChatStyle:
    """How the job's chats are put to the model's chat template."""
    given = job.model
    return ChatStyle.of(given.template_arguments, job.day, fold_system=given.system_role == "fold")


def _check_template(job: Job, tokenizer: Any, n_embeddings: int) -> None:
    """Raises RunError: no chat can be written, whatever it says, or the template is given what it never reads."""
    style = chat_style(job)
    argument = argument_problem(tokenizer, style)
    if argument is not None:
        raise RunError(f"model.template_arguments.{argument}", ExitStatus.BAD_INPUT)
    problem = template_problem(tokenizer, style) or stranger_problem(tokenizer, n_embeddings, style)
    if problem is not None:
        raise RunError(f"model.id: {problem}", ExitStatus.BAD_INPUT)


def _places(job: Job) -> tuple[dict[str, Place], dict[str, Place]]:
    """Where adapters and references are; a folder's subfolder is part of its path already."""
    untested = job.model.untested
    adapters = {name: Place(place, untested=untested) for name, place in job.adapter_places().items()}
    references = {name: Place(place, untested=untested) for name, place in job.reference_places().items()}
    for each in job.attributes:
        adapter = adapters[each.name]
        on_hub = adapter.folder is None
        adapters[each.name] = replace(
            adapter,
            revision=each.revision,
            subfolder=each.subfolder if on_hub and each.adapter is not None else None,
            any_base=each.any_base,
        )
        if each.name in references:
            references[each.name] = replace(
                references[each.name], revision=each.reference_revision, any_base=each.any_base
            )
    return adapters, references


@contextmanager
def _problems_of(field: str, revision_field: str) -> Iterator[None]:
    """Name the field. Raises RunError in place of what the loaders raise."""
    try:
        yield
    except HubUnreachable as error:
        raise SourcesUnreachable(f"{field}: {error}", ExitStatus.BAD_INPUT) from error
    except NoRevision as error:
        raise RunError(f"{revision_field}: {error}", ExitStatus.BAD_INPUT) from error
    except (BankError, EmbeddedModelError) as error:
        raise RunError(f"{field}: {error}", ExitStatus.BAD_INPUT) from error


def decoder_settings(job: Job) -> Any:
    """The job's decoder section as the engine's settings: all but in which words it tells."""
    from mpg import DecoderSettings

    fields = {name: getattr(job.decoder, name) for name in type(job.decoder).model_fields if name != "wording"}
    return DecoderSettings(**fields)
