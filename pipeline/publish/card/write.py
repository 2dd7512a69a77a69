"""Writing a data set's card: its front matter, and its text from a template."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from personas.text import one_line
from pipeline.job.model import Job
from pipeline.job.recorded import recorded_text
from pipeline.publish.card.front import front_of, written
from pipeline.publish.card.template import TemplateProblem, render
from pipeline.publish.card.values import Facts, values_of
from pipeline.publish.configs import data_front
from pipeline.publish.licence_rules import STATED, LicenceError, Part, Resolved, recorded, resolved
from pipeline.publish.licence_sources import of_judges
from pipeline.publish.sums import Digest
from pipeline.store.dataset import CARD_FILE, FIGURES, JOB_FILE, RUN_FILE, write_pieces
from pipeline.store.files import write_bytes
from pipeline.store.places import is_local

logger = logging.getLogger(__name__)

TEMPLATE = "card_template"  # in run.json: the author's own, as it was


def write_card(
    output: Path,
    job: Job,
    digest: Digest,
    run: dict[str, Any],
    data: Mapping[str, Any] | None = None,
    *,
    beside: Path | None = None,
) -> None:
    """Write README.md: what was asked, what came out, what it is worth; and the pictures in it.

    Args:
        output: folder of the data set, or of those of its files that are to be exchanged.
        digest: of the data set's rows.
        data: what of its front matter :func:`data_front` says; ``None``: as it says of ``output``.
        beside: the data set whose other files stay as they are.

    Raises:
        OSError: as of any file. pa.ArrowException: a Parquet file of the folder is damaged.
    """
    data = data_front(output) if data is None else data
    licence, parts = _licence(job, digest.judges, run)
    facts = Facts(job, digest, run, data, licence, parts, _figures(output, beside, digest, job, run))
    values, own = values_of(facts), run.get(TEMPLATE)
    try:
        body = render(own if isinstance(own, str) else None, values)
    except TemplateProblem as problem:  # it was tried before the run; a card there is, whatever became of it
        logger.warning("card.template: %s: the card is made by the template that ships", problem)
        body = render(None, values)
    front = front_of(job, data, licence.front if isinstance(licence, Resolved) else {})
    write_bytes(f"{written(front)}\n{body}".encode("utf-8", "backslashreplace"), output / CARD_FILE)


def _licence(
    job: Job, judges: Iterable[str], run: Mapping[str, Any]
) -> tuple[Resolved | LicenceError, tuple[Part, ...]]:
    """The licence, or why there is none; and the parts as far as they are recorded: no card asks the Hub."""
    kept = recorded(run)
    labels = {*judges, *map(str, run.get("judges") or ())}
    parts = () if kept is None else (*kept, *of_judges(labels, job, run.get("calls") or {}))
    try:
        if kept is None and job.card.license is None and STATED not in run:
            why = "license: this data set's run kept no record of its parts' licences; "
            raise LicenceError([f"{why}mpg publish collects them, or state it with mpg publish --license ID"])
        return resolved(parts, run, job), parts
    except LicenceError as error:
        return error, parts


def _figures(
    output: Path, beside: Path | None, digest: Digest, job: Job, run: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Pictures of a data set, written beside its card; none where they can't be made: a card does without.

    Of very many rows, or of files in a store, they are of the rows that are shown.
    """
    from pipeline.publish.report.figures import write_figures
    from pipeline.publish.report.read import ReportError

    try:
        with tempfile.TemporaryDirectory() as scratch:
            whole = output
            if digest.is_cut or not is_local(output):
                whole = Path(scratch)
                write_pieces(whole, [digest.shown])
                write_bytes(recorded_text(job).encode(), whole / JOB_FILE)
                write_bytes(json.dumps(run).encode(), whole / RUN_FILE)
            elif beside is not None:
                whole = Path(scratch)  # as it will be, by links
                for place in {each.name: each for each in (*beside.iterdir(), *output.iterdir())}.values():
                    (whole / place.name).symlink_to(place.absolute())
            found = write_figures(whole, output / FIGURES)
    except ReportError:  # no texts
        return []
    except Exception as error:  # whatever drawing raises: texts are worth more than pictures of them
        logger.warning("the card has no pictures: %s: %s", type(error).__name__, one_line(error)[:300])
        return []
    return [(f"{FIGURES}/{name}", shows) for name, shows in found]
