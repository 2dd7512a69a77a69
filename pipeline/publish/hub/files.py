"""Which files of a folder are its data set, and what is in them."""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.exit_status import ExitStatus
from pipeline.publish.hub.compare import RECORD_FILE, Contents, record_bytes
from pipeline.publish.hub.errors import PublishError
from pipeline.publish.hub.portable import Machine, card_as_published, job_as_published, record_as_published
from pipeline.publish.hub.tables import telling_columns
from pipeline.store.dataset import CARD_FILE, FIGURES, JOB_FILE, PARTIAL, RUN_FILE, WORK_FOLDER
from pipeline.store.manifest import DATASET_MANIFEST, files_of

logger = logging.getLogger(__name__)

_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")
_PICTURES = (".png", ".svg", ".jpg", ".jpeg", ".webp")
_ROOT = (CARD_FILE, JOB_FILE, RUN_FILE, DATASET_MANIFEST, *_LICENCES)
_MEGABYTE = 1 << 20
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class LocalFile:
    """A file to publish.

    Attributes:
        source: where it is, or what it holds instead of what lies there.
        contents: size and hashes.
    """

    source: Path | bytes
    contents: Contents


@dataclass(frozen=True)
class DataSetFiles:
    """A folder's data set as it is published.

    Attributes:
        files: path in the repository -> file, the record of what is published included.
        left_out: names in the folder that are not published, and that are no work files of this project.
        front: what stands above the card, as YAML has it.
        n_places, n_secrets: what of the machine was replaced by its name, and what looked like keys was hidden.
        telling: columns of tables in which that can't be done.
    """

    files: Mapping[str, LocalFile]
    left_out: tuple[str, ...]
    front: Mapping[str, Any]
    n_places: int
    n_secrets: int
    telling: tuple[str, ...] = ()

    @property
    def contents(self) -> dict[str, Contents]:
        return {path: each.contents for path, each in self.files.items()}

    @property
    def n_bytes(self) -> int:
        return sum(each.contents.size for each in self.files.values())


def collect(folder: Path, card: bytes) -> DataSetFiles:
    """What of a folder is published, with its hashes: all files are read once.

    Args:
        folder: of a data set that is complete and as it was written.
        card: its card, as it is to be published.

    Raises:
        PublishError: a file that can't be read, or a manifest or record that is none.
    """
    front = front_of(card)
    try:
        names, left_out = _names(folder, front)
        machine = Machine.here(folder)
        words = _words(folder, card, machine)
        telling = tuple(telling_columns(folder, machine))
        files = {
            name: _local(words[name]) if name in words else LocalFile(folder / name, contents_of(folder / name))
            for name in names
        }
    except OSError as error:
        where = f"{error.filename or folder}: {(error.strerror or str(error)).lower()}"
        raise PublishError(f"{where}; see to it that it can be read", ExitStatus.FAILED) from error
    files[RECORD_FILE] = _local(record_bytes({name: each.contents for name, each in files.items()}))
    return DataSetFiles(dict(sorted(files.items())), left_out, front, machine.n_places, machine.n_secrets, telling)


def front_of(card: bytes) -> dict[str, Any]:
    """What stands above a card; empty: nothing that can be read."""
    found = _FRONT.match(card.decode("utf-8", "replace").replace("\r\n", "\n"))
    try:
        front = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        front = None
    return front if isinstance(front, dict) else {}


def contents_of(source: Path | bytes) -> Contents:
    """Size and hashes of a file, read once, a megabyte at a time. Raises OSError."""
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for part in _parts(source):
        sha256.update(part)
        git.update(part)
    return Contents(size, git.hexdigest(), sha256.hexdigest())


def is_read_with(path: str, front: Mapping[str, Any]) -> bool:
    """Whether ``load_dataset`` reads a path as part of a configuration that a card names."""
    n_parts = len(PurePosixPath(path).parts)
    same_depth = (each for each in _patterns(front) if len(PurePosixPath(each).parts) == n_parts)  # no * holds a /
    return any(PurePosixPath(path).match(pattern) for pattern in same_depth)


def _parts(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while part := file.read(_MEGABYTE):
            yield part


def _local(content: bytes) -> LocalFile:
    return LocalFile(content, contents_of(content))


def _words(folder: Path, card: bytes, machine: Machine) -> dict[str, bytes]:
    """The files that are published in other words than they stand in here."""
    words = {}
    for name, as_published in ((JOB_FILE, job_as_published), (RUN_FILE, record_as_published)):
        if (folder / name).is_file():
            try:
                words[name] = as_published((folder / name).read_bytes(), machine)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise PublishError(
                    f"{folder / name}: can't be read; run the job again, or bring the file back"
                ) from error
    words[CARD_FILE] = card_as_published(card, machine)  # last: the job names hosts
    return words


def _names(folder: Path, front: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """What is published, and what else lies there. Raises PublishError, OSError."""
    listed = set(files_of(folder))
    for name in listed:
        if name.startswith("/") or any(part.startswith(".") for part in PurePosixPath(name).parts):
            raise PublishError(f"{folder / DATASET_MANIFEST}: {name!r} is no file of a data set; run the job again")
    patterns = list(_patterns(front))
    chosen, others = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        first = name.partition("/")[0]
        if not path.is_file() or first in (WORK_FOLDER, PARTIAL):
            continue
        if _is_of_the_set(name, listed, patterns) and _is_inside(path, folder, name in listed):
            chosen.append(name)
        elif name != RECORD_FILE and not _is_passing(name):
            others.append(name)
    return chosen, tuple(others)


def _is_of_the_set(name: str, listed: set[str], patterns: Sequence[str]) -> bool:
    if name == RECORD_FILE or _is_passing(name):
        return False
    if name in listed or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        return True
    if "/" not in name:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in _ROOT)
    return name.startswith(f"{FIGURES}/") and name.endswith(_PICTURES)


def _is_passing(name: str) -> bool:
    """Hidden, or on its way into its place, or of an editor."""
    return any(part.startswith(".") or part.endswith((".tmp", ".part", "~", ".swp")) for part in name.split("/"))


def _is_inside(path: Path, folder: Path, listed: bool) -> bool:
    """Whether a link leads no further than the data set; what the manifest lists is known by its hash."""
    return listed or path.resolve().is_relative_to(folder.resolve())


def _patterns(front: Mapping[str, Any]) -> Iterator[str]:
    """Patterns of the files that the card's configurations are read from."""
    configs = front.get("configs")
    for config in configs if isinstance(configs, list) else []:
        yield from _paths_in(config.get("data_files") if isinstance(config, dict) else None)


def _paths_in(files: Any) -> Iterator[str]:
    if isinstance(files, str):
        yield files
    elif isinstance(files, list):
        for each in files:
            yield from _paths_in(each.get("path") if isinstance(each, dict) else each)
    elif isinstance(files, dict):
        for each in files.values():
            yield from _paths_in(each)
