"""What is looked at before the Hub is asked: names as they were given, and whether the folder's data set is whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from personas.secrets import looks_secret, masked, without_forms
from personas.text import one_line
from personas.words import show
from pipeline.exit_status import ExitStatus
from pipeline.publish.hub.errors import PublishError
from pipeline.store.dataset import PARTIAL, RUN_FILE, WORK_FOLDER, is_complete
from pipeline.store.exchange import whole_here
from pipeline.store.files import exists, is_folder, nothing_there, store_errors
from pipeline.store.lock import LOCK_FILE, FolderInUse, FolderLock
from pipeline.store.manifest import changed_files
from pipeline.store.places import is_local

_COMMIT = re.compile("[0-9a-f]{40}")
# git-check-ref-format(1), of which the Hub takes less.
_REF = re.compile(r"(?!.*(\.\.|//|@\{|\.lock(/|$)|/\.))[A-Za-z0-9][A-Za-z0-9._/+-]*(?<![/.])")
_MOST_SHOWN = 3


def check_repo_id(repo_id: str, option: str = "--repo-id") -> None:
    """Raises PublishError, naming the option: it is no ``OWNER/NAME``."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    shown = show(without_forms(repo_id))
    owner, slash, name = repo_id.partition("/")
    if "://" in repo_id or owner == "datasets":
        raise PublishError(f"{option} {shown}: give the id alone, as OWNER/NAME")
    if not slash or not owner or not name:
        raise PublishError(f"{option} {shown}: whose it is is missing; give OWNER/NAME")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        why = str(error).split(":")[0].rstrip(".")
        raise PublishError(f"{option} {shown}: no id of a repository ({why}); give OWNER/NAME") from error


def check_refs(revision: str | None, tag: str | None, *, create_pr: bool) -> None:
    """Raises PublishError: no name of a branch or tag, or two things that don't go together."""
    for option, name in (("--revision", revision), ("--tag", tag)):
        if name is not None and not _REF.fullmatch(name):
            raise PublishError(f"{option} {show(name)}: git takes no such name; use letters, digits and . _ - /")
        if name is not None and _COMMIT.fullmatch(name):
            raise PublishError(f"{option} {name}: is the name of a commit; give one of a {option[2:]} that can move")
    if tag is not None and tag.startswith("refs/"):
        raise PublishError(f"--tag {show(tag)}: give the tag's own name, without refs/")
    if tag is not None and create_pr:
        raise PublishError(
            f"--tag {tag}: a pull request is not published yet; merge it, then publish again with the tag"
        )


def check_endpoint() -> None:
    """Raises PublishError: what the environment names as the Hub is no address of one."""
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is None:
        return
    try:  # here, since the Hub's client can't even be imported with some that are none
        split = urlsplit(endpoint)
        is_one = split.scheme in ("http", "https") and bool(split.hostname)
    except ValueError:
        is_one = False
    if not is_one:
        shown = show(without_forms(endpoint))
        raise PublishError(f"HF_ENDPOINT: {shown} is no address of a Hub; unset it, or give https://HOST")


def check_message(message: str | None) -> None:
    """Raises PublishError: it has what everybody would read."""
    if message is not None and looks_secret(message):
        raise PublishError("--message: holds what looks like a key, and everybody reads it; leave that out")


@contextmanager
def whole_data_set(folder: Path) -> Iterator[Path]:
    """Nobody else's run may exchange the data set's files inside; they are all as they were written.

    Yields:
        the folder to read them from: of a data set in a store, a copy that nobody changes.

    Raises:
        PublishError: no data set, one of a run that did not end, changed files, or a folder in use.
    """
    try:
        with store_errors(folder):
            copy = whole_here(folder)
            _check_complete(folder, copy)
            if not (copy / WORK_FOLDER / LOCK_FILE).is_file():  # nobody has worked here
                _check_unchanged(folder, copy)
                yield copy
                return
        with FolderLock(folder / WORK_FOLDER, shared=True):
            _check_unchanged(folder, folder)
            yield folder
    except FolderInUse as error:
        raise PublishError(str(error), ExitStatus.TRY_AGAIN) from error
    except OSError as error:
        if is_local(folder) and not isinstance(error, PermissionError):
            raise
        where, why = error.filename or folder, error.strerror or one_line(error)
        if is_local(folder):
            raise PublishError(f"{where}: can't be opened ({why}); see to it that you may") from error
        if isinstance(error, FileNotFoundError):
            raise PublishError(f"{folder}: {nothing_there(folder)}; give the folder of a data set") from error
        remedy = "see to its address, keys and rights, or give the command again"
        raise PublishError(f"{folder}: can't be read ({why}); {remedy}", ExitStatus.TRY_AGAIN) from error


def _check_complete(folder: Path, copy: Path) -> None:
    if not is_folder(folder):
        what = "is a file" if exists(folder) else nothing_there(folder)
        raise PublishError(f"{folder}: {what}; give the folder of a data set")
    if not is_complete(copy):
        if is_folder(folder / PARTIAL) or is_folder(folder / WORK_FOLDER):
            raise PublishError(f"{folder}: its run has not ended; run the job again until it is complete")
        raise PublishError(f"{folder}: holds no data set of mpg run (run.json, manifest.json); give the folder of one")
    try:
        ended = json.loads((copy / RUN_FILE).read_text("utf-8")).get("ended", {"complete": True})
        complete, why = bool(ended["complete"]), str(ended.get("why"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublishError(f"{folder / RUN_FILE}: can't be read; run the job again, or bring the file back") from error
    if not complete:
        why = masked(" ".join(why.split()))[:200]
        raise PublishError(f"{folder}: its run has not ended ({why}); run the job again until it is complete")


def _check_unchanged(folder: Path, copy: Path) -> None:
    try:
        changed = changed_files(copy)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublishError(f"{folder}: its manifest.json can't be read; run the job again, or bring it back") from error
    if changed:
        shown = "; ".join(f"{name}: {how}" for name, how in list(changed.items())[:_MOST_SHOWN])
        more = f" and {len(changed) - _MOST_SHOWN} more" if len(changed) > _MOST_SHOWN else ""
        raise PublishError(
            f"{folder}: not as it was written ({shown}{more}); bring the files back, or run the job again"
        )
