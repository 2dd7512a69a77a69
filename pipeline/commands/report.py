"""``mpg report``: one HTML page, or some tables, to look at what a data set came to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from evaluation.tables import plain
from pipeline.commands.arguments import anywhere, readable
from pipeline.commands.shared import InputError, NotNow, Outcome, look_for_detached, place_errors

if TYPE_CHECKING:
    from pipeline.publish.report.read import DataSet

REPORT_FILE = "report.html"
_MOST_TEXTS = 2_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folders", metavar="DIR", nargs="+", type=readable,
                        help="folder of a data set, or its URL; several are put side by side")  # fmt: skip
    parser.add_argument("--output", metavar="FILE", type=anywhere,
                        help=f"the page's file (DIR/{REPORT_FILE}, of the first DIR)")  # fmt: skip
    parser.add_argument("--terminal", action="store_true", help="print the short form; no page is written")
    parser.add_argument("--texts", type=int, default=_MOST_TEXTS, metavar="N",
                        help=f"texts to browse, drawn by persona and score ({_MOST_TEXTS:,}, the most)")  # fmt: skip


def report(options: argparse.Namespace) -> Outcome:
    """Read the data sets, and write or print.

    Raises:
        InputError: no data set there, the extra is not installed, or the page can't be written.
    """
    from pipeline.publish.report.colours import N_SERIES
    from pipeline.publish.report.figures import is_installed
    from pipeline.store.files import is_folder
    from pipeline.store.places import is_local, url_problem

    folders: list[Path] = options.folders
    if not 0 <= options.texts <= _MOST_TEXTS:
        raise InputError(f"--texts: {options.texts} is out of range; give 0 to {_MOST_TEXTS:,}")
    if len(folders) > N_SERIES:
        raise InputError(f"{len(folders)} data sets are more than can be told apart; give at most {N_SERIES}")
    if options.terminal and options.output is not None:
        raise InputError("--terminal: prints, and writes no --output; give one of them")
    output: Path = options.output or folders[0] / REPORT_FILE
    if not options.terminal:
        if not is_installed():
            raise InputError("the page's plots need more packages: pip install 'mpg-scr[report]', or give --terminal")
        problem = None if is_local(output) else url_problem(str(output), writes=True)
        if problem is not None:
            raise InputError(f"{folders[0]}: {problem}; name a file of this machine with --output")
        with place_errors(output):
            if is_folder(output):
                raise InputError(f"--output: {output} is a folder; name a file in it")
    for folder in folders:
        look_for_detached(folder, writes=not options.terminal and _is_in(output, folder))
    from pipeline.publish.report.measures import Measures

    ms = [Measures(each) for each in _data_sets(folders)]
    if options.terminal:
        from pipeline.publish.report.terminal import short_form

        return Outcome(short_form(ms), facts={"report": None})
    from pipeline.publish.report.page import page
    from pipeline.store.files import make_folder, write_bytes

    content = page(ms, options.texts).encode("utf-8", "backslashreplace")
    try:
        make_folder(output.parent)
        write_bytes(content, output)
    except OSError as error:
        what = (error.strerror or type(error).__name__).lower()
        remedy = "make room" if is_local(output) else "see to its address, keys and rights"
        raise NotNow(f"--output: {output} can't be written ({what}); {remedy}, or name another file") from error
    return Outcome(f"report: {output}", facts={"report": str(output)})


def _is_in(file: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, by whatever way it is named."""
    from pipeline.store.places import is_local

    if is_local(file) and is_local(folder):
        return file.resolve().is_relative_to(folder.resolve())
    return str(file).startswith(f"{str(folder).rstrip('/')}/")  # of two stores, or of one and this machine, never


def _data_sets(folders: list[Path]) -> list[DataSet]:
    """Read, by names that differ: of one job's, where each lies says which is which. Raises InputError."""
    from pipeline.publish.report.read import ReportError, read_data_set
    from pipeline.store.dataset import PARTIAL
    from pipeline.store.exchange import whole_here
    from pipeline.store.files import exists, is_folder, nothing_there

    found: list[DataSet] = []
    for folder in folders:
        with place_errors(folder):
            if not is_folder(folder):
                what = "is no folder" if exists(folder) else nothing_there(folder)
                raise InputError(f"{folder}: {what}; give the folder of a data set of mpg run")
            try:
                each = read_data_set(whole_here(folder))
            except ReportError as error:
                so_far = folder / PARTIAL
                more = f"; what a run has so far is in {so_far}" if is_folder(so_far / "data") else ""
                raise InputError(f"{error}{more}") from error
        found.append(each)
    return [replace(each, name=name) for each, name in zip(found, names_apart(found), strict=True)]


def names_apart(found: Sequence[DataSet]) -> list[str]:
    """Names of data sets, no two alike: its job's; of several with one name with the end of each one's path, too."""
    names: list[str] = []
    for each in found:
        mine = _where(each)
        others = {_where(other) for other in found if other.name == each.name} - {mine}
        ends = ("/".join(mine.parts[-n:]) for n in range(1, len(mine.parts)))
        end = next((end for end in ends if not any(str(other).endswith(f"/{end}") for other in others)), "")
        name = wanted = each.name if not others or end in ("", each.name) else f"{each.name} ({plain(end)})"
        n = 1
        while name in names:
            n += 1
            name = f"{wanted} ({n})"
        names.append(name)
    return names


def _where(data_set: DataSet) -> PurePosixPath:
    """Where it is: of a copy, what it is one of."""
    from pipeline.store.copies import url_of

    return PurePosixPath(url_of(data_set.folder) or data_set.folder.resolve())
