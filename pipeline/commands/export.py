"""``mpg export``: a data set's rows in a form that trainers take, as a further configuration of the same data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline.commands.arguments import add_words, anywhere
from pipeline.commands.shared import InputError, Outcome, look_for_detached, opened_by, place_errors
from pipeline.publish.wanted import BETWEEN, SYSTEMS, Wanted
from pipeline.store.dataset import FOLDERS, FORMS, RUN_FILE, WORK_FOLDER, copied, is_complete
from pipeline.store.exchange import GATHERING, finish_any_exchange, finish_exchange
from pipeline.store.files import exists, make_folder, nothing_there
from pipeline.store.layout import among, files_in, ids_in_test
from pipeline.store.lock import FolderLock
from pipeline.store.manifest import changed_files, files_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folder", metavar="DIR", nargs="?", type=anywhere, help="folder of a data set, or its URL")
    parser.add_argument("--format", choices=FORMS, required=True,
                        help="messages: whole chats; prompt-completion: chat and answer apart; preference: the better "
                        "and the worse of two judged texts to one prompt")  # fmt: skip
    parser.add_argument("--system", choices=SYSTEMS, default="persona",
                        help="the system message before a prompt: what the persona is like (persona), what the "
                        "reference was told when the text was written (told), or no more than the prompt's own (none)"
                        )  # fmt: skip
    parser.add_argument("--between", choices=BETWEEN,
                        help="preference: the best and the worst text of a cell (cells: of one persona on a prompt), "
                        "or a persona's best and that of the others' which shows it least (personas)")  # fmt: skip
    parser.add_argument("--min-margin", type=float, metavar="SCORE",
                        help="preference: least difference of the two scores (any above 0)")  # fmt: skip
    parser.add_argument("--min-score", type=float, metavar="SCORE",
                        help="least score of a text to be taught, on its persona's attributes")  # fmt: skip
    parser.add_argument("--finished-only", action="store_true", help="no texts that were cut off at the length limit")
    parser.add_argument("--drop-near-duplicates", action="store_true",
                        help="no texts that repeat an earlier one of their persona, nearly word by word")  # fmt: skip
    add_words(parser, "--persona", positional="folder", metavar="NAME", help="these personas' texts alone")


def export(options: argparse.Namespace) -> Outcome:
    """Write a form into a data set, in place of an earlier one.

    Raises:
        InputError: no complete data set there, or one that was changed; options that do not go together; no row left.
    """
    folder, wanted = options.folder, _wanted(options)
    with place_errors(folder):
        is_whole = is_complete(folder)
        what = "is no complete data set" if is_whole or exists(folder) else nothing_there(folder)
    if not is_whole:
        raise InputError(f"{folder}: {what}; give the folder of one that mpg run has finished")
    with place_errors(folder, read=False):
        finish_any_exchange(folder)
        work = folder / WORK_FOLDER
        make_folder(work)
        with FolderLock(work, shared=True), FolderLock(work, wait=True, name=GATHERING):  # not beside a run
            look_for_detached(folder, writes=True)
            finish_exchange(folder)
            copy = copied(folder)
            _refuse_changed(folder, copy)
            lines = _export(folder, copy, wanted)
    return Outcome("\n".join([*lines, f"written: {folder / wanted.form}", opened_by(folder, wanted.form)]))


def _wanted(options: argparse.Namespace) -> Wanted:
    if options.format != "preference":
        for name in ("between", "min_margin"):
            value = getattr(options, name)
            if value is not None:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} {value}: is for --format preference; remove it, or export that")
    for name in ("min_margin", "min_score"):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"--{name.replace('_', '-')} {value:g}: is out of range; give a number from 0 to 1")
    return Wanted(
        form=options.format,
        system=options.system,
        between=options.between or "cells",
        min_margin=options.min_margin or 0.0,
        min_score=options.min_score,
        finished_only=options.finished_only,
        drop_near_duplicates=options.drop_near_duplicates,
        personas=tuple(dict.fromkeys(options.persona or ())),
    )


def _refuse_changed(folder: Path, copy: Path) -> None:
    """Raises InputError: the data set is not whole, or not what was written: all tables stand on the card to come."""
    try:
        ended = json.loads((copy / RUN_FILE).read_text("utf-8")).get("ended", {"complete": True, "why": None})
        changed = changed_files(copy)
    except (ValueError, AttributeError) as error:
        raise InputError(f"{folder}: its record can't be read ({error}); give a data set of mpg run") from error
    if not ended["complete"]:
        raise InputError(f"{folder}: is not complete ({ended['why']}); run it to its end first")
    for name, how in changed.items():
        if name.partition("/")[0] in FOLDERS.values():
            remedy = "put it back, or write the data set anew with mpg run"
            raise InputError(f"{folder / name}: is not as the data set's manifest says ({how}); {remedy}")


def _refuse_foreign(folder: Path, copy: Path, form: str) -> None:
    """Raises InputError: where the form's files would go lie some that the data set does not know."""
    place = folder / form
    if (copy / form).is_file():
        raise InputError(f"{place}: is no folder, and the form would go there; move it elsewhere")
    known = files_of(copy)
    foreign = [path.name for path in files_in(copy / form) if f"{form}/{path.name}" not in known]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        why = f"is no file of this data set{more}, and would be removed"
        raise InputError(f"{place / foreign[0]}: {why}; move it elsewhere")


def _export(folder: Path, copy: Path, wanted: Wanted) -> tuple[str, ...]:
    """Make the form of a data set's copy here and put it into its place; what is to be said of it."""
    from pipeline.publish.data_set import held_in, table_of, write_form
    from pipeline.publish.exports import noted
    from pipeline.publish.forms import ID_COLUMN, NothingToExport, Source, make_form

    held = held_in(folder)
    if held is None:
        raise InputError(f"{folder}: its job.json or run.json can't be read; give a data set of mpg run")
    job, run = held
    try:
        tables = {name: table_of(copy, name) for name in ("generations", "judgments")}
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from error
    _refuse_foreign(folder, copy, wanted.form)
    there = dict.fromkeys(tables["generations"].column("persona").to_pylist())
    for name in wanted.personas:
        if name not in there:
            known = ", ".join(list(there)[:20]) + (", ..." if len(there) > 20 else "")
            raise InputError(f"--persona {name}: the data set has no such persona; it has {known}")
    weighed = dict(
        zip(*(tables["generations"].column(name).to_pylist() for name in ("persona", "attributes")), strict=True)
    )
    if wanted.reads_scores and wanted.personas and not any(weighed[name] for name in wanted.personas):
        why = "weighs no attribute (it is the control) that its texts could be judged by"
        raise InputError(f"--persona {wanted.personas[0]}: {why}; name another, or leave --persona out")
    test = ids_in_test(copy / FOLDERS["generations"])
    source = Source.of(tables, test, job.described_attributes(), run["judges"], job.panel)
    try:
        made = make_form(source, wanted)
    except NothingToExport as error:
        raise InputError(f"{folder}: {error}") from error
    table = noted(made.table, wanted.options, files_of(copy), reads_scores=wanted.reads_scores)
    write_form(folder, wanted.form, table, among(test, ID_COLUMN[wanted.form]))
    return made.lines
