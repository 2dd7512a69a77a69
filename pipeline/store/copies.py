"""Copies on this machine of what lies in stores: made once, kept by what the store says of each file, known by URL.

How long they are kept: :mod:`.kept`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.store.files import file_system, key_of, store_errors
from pipeline.store.kept import FILES, MARK, hold, keep_within_bounds, scratch
from pipeline.store.places import expanded, is_local, scheme_of

# What stores say of a file that tells it from any other that was or will be there.
_SAID = ("size", "ETag", "etag", "md5Hash", "blob_id", "LastModified", "mtime", "created")


def here(place: Path, *, without: Collection[str] = ()) -> Path:
    """The place itself if it is on this machine; else a copy of that file or folder, as it is there now.

    Copies are kept in a temporary folder by URL and by what the store says of each file (size, and checksum or time),
    and files by the same: what has not changed is neither fetched again nor held twice.

    Args:
        without: of a folder, names of files and folders in it that are left out of the copy.

    Raises:
        OSError: FileNotFoundError, too, where a file goes while it is copied.
    """
    if is_local(place):
        return place
    with store_errors(place):
        fs, key = file_system(place), key_of(place)
        found = _found(fs, key, without)
        if not found and not without:
            raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(place))
    state = _digest([str(place), *sorted((name, _state(info)) for name, info in found.items())])
    root = _copies() / state
    target = root / (place.name or "root")
    while not hold(root):  # it may be removed between its making and its holding
        with scratch(root.parent) as coming:
            if not found:
                (coming / target.name).mkdir()
            for name, info in found.items():
                below = name.removeprefix(key.rstrip("/")).lstrip("/")
                to = coming / target.name / below if below else coming / target.name
                to.parent.mkdir(parents=True, exist_ok=True)
                with store_errors(place):
                    file = _file_here(fs, name, [scheme_of(str(place)), name, _state(info)])
                try:
                    os.link(file, to)
                except OSError:  # no links there, or too many of one file
                    shutil.copyfile(file, to)
            (coming / MARK).write_text(str(place), "utf-8")
            try:
                os.rename(coming, root)
                coming.mkdir()
            except OSError:  # another process was quicker; or somebody has taken parts of an old one away
                if not (root / MARK).exists():
                    shutil.rmtree(root, ignore_errors=True)
        hold(root)  # so that it is not the one that goes
        keep_within_bounds(root.parent)
    return target


def _found(fs: Any, key: str, without: Collection[str]) -> dict[str, dict[str, Any]]:
    """Name -> what the store says of it, of a file, or of all files in a folder and its folders."""
    if not without:
        return dict(fs.find(key, detail=True))
    found: dict[str, dict[str, Any]] = {}
    for entry in fs.ls(key, detail=True):
        name = str(entry["name"]).rstrip("/")
        is_file = entry["type"] == "file"
        if (name == key.rstrip("/") and not is_file) or name.rpartition("/")[2] in without:
            continue
        found |= {name: entry} if is_file else fs.find(name, detail=True)
    return found


def _file_here(fs: Any, name: str, state: list[Any]) -> Path:
    """The one copy of a file of which a store says this; those that are made of it are links to it."""
    target = own_folder(_copies() / FILES) / _digest(state)
    try:
        os.utime(target)  # it is about to be used
    except FileNotFoundError:
        with scratch(target.parent) as coming:
            fs.get_file(name, str(coming / "file"))
            os.replace(coming / "file", target)
    return target


def with_urls(text: str) -> str:
    """A text for people in which what :func:`here` has copied is called by its URL, and not by where its copy lies."""
    root = Path(tempfile.gettempdir()) / f"mpg-{os.getuid()}"
    for state in {found[1] for found in re.finditer(re.escape(str(root)) + "/([0-9a-f]{24})/", text)}:
        with suppress(OSError):
            origin = (root / state / MARK).read_text("utf-8").rstrip("/")
            for name in os.listdir(root / state):
                text = text.replace(f"{root / state}/{name}", origin)
    return text


def url_of(copy: Path) -> str | None:
    """The URL of what :func:`here` has copied, or of something in it; ``None``: it is no copy."""
    for each in copy.parents:
        if each.parent == _copies():
            with suppress(OSError):
                inside = copy.relative_to(each).parts[1:]
                return "/".join([(each / MARK).read_text("utf-8").rstrip("/"), *inside])
    return None


def origin_of(place: Path) -> Path:
    """The place that one is a copy of; itself if it is none."""
    url = url_of(place)
    return place if url is None else expanded(url)


def folder_here(folder: Path) -> Path:
    """The folder itself if it is on this machine; else one that is, always the same for it. Raises OSError."""
    if is_local(folder):
        return folder
    found = _copies() / hashlib.sha256(str(folder).encode()).hexdigest()[:24]
    found.mkdir(parents=True, exist_ok=True)
    return found


def _copies() -> Path:
    """What is kept on this machine for what is in stores, of this user."""
    return own_folder(Path(tempfile.gettempdir()) / f"mpg-{os.getuid()}")


def own_folder(folder: Path) -> Path:
    """A folder of this machine that this user alone may write, made if need be: what lies there is believed.

    Raises:
        PermissionError: it is somebody else's, or others may write there, too. OSError: it can't be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "not a folder that you alone may write", str(folder))
    return folder


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:24]


def _state(entry: dict[str, Any]) -> list[str]:
    return [str(entry.get(name)) for name in _SAID]
