"""Where a job's weights come from, with their revisions; its decoder's settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.exit_status import ExitStatus
from pipeline.job.model import Job
from pipeline.plan.cells import Sources
from pipeline.plan.errors import RunError


def resolve_sources(job: Job, dtype: str | None = None, order: Sequence[str] = ()) -> Sources:
    """Decide what ``auto`` and names stand for: places, revisions, number format.

    Args:
        dtype, order: decided already, see :mod:`pipeline.plan.computed_with`; ``None``: by the job, on this machine.

    Raises:
        RunError: an adapter without weights or for another model, a model that is not there or has no chat template.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from mpg import BankError
    from mpg.models.dtype import pick_dtype
    from mpg.models.embedded import EmbeddedModelError, resolve
    from mpg.models.fingerprint import fingerprint, model_revision
    from mpg.models.load import check_sources

    transformers_logging.disable_progress_bar()  # the run has a bar of its own
    model = job.resolve(job.model.id)
    try:
        resolve(model)
    except EmbeddedModelError as error:
        raise RunError(f"model.id: {error}", ExitStatus.BAD_INPUT) from error
    places, references = job.adapter_places(), job.reference_places()
    adapters = {name: places[name] for name in (*order, *places) if name in places}
    try:
        check_sources(model, [*adapters.values(), *references.values()], revision=job.model.revision)
        tokenizer = AutoTokenizer.from_pretrained(resolve(model), revision=job.model.revision)
    except BankError as error:
        raise RunError(f"attributes: {error}", ExitStatus.BAD_INPUT) from error
    except (OSError, ValueError) as error:
        raise RunError(
            f"model.id: {model} can't be loaded ({' '.join(str(error).split())})", ExitStatus.BAD_INPUT
        ) from error
    if tokenizer.chat_template is None:
        raise RunError(
            f"model.id: {model}'s tokenizer has no chat template; use an instruction-tuned model", ExitStatus.BAD_INPUT
        )

    def revision(place: str) -> str:
        return fingerprint(Path(place)) if Path(place).is_dir() else model_revision(place)

    revisions = {
        name: revision(place) + (f"/{revision(references[name])}" if name in references else "")
        for name, place in adapters.items()
    }
    # A folder is known by its own name and its content: a row must not change when the folder moves.
    name = Path(model).name if Path(model).is_dir() else model
    return Sources(
        model=model,
        model_label=f"{name}@{model_revision(model, job.model.revision)}",
        hub_revision=job.model.revision,
        adapters=tuple(adapters.items()),
        references=tuple(references.items()),
        adapter_revisions=tuple(revisions.items()),
        dtype=dtype or pick_dtype(job.model.dtype),
    )


def decoder_settings(job: Job) -> Any:
    """The job's decoder section as the engine's settings."""
    from mpg import DecoderSettings

    fields = {name: getattr(job.decoder, name) for name in type(job.decoder).model_fields}
    return DecoderSettings(**fields)
