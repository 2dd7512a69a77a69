"""What is in a repository against what is to be there: pure, and knowing whose file is whose.

What is ours is what the last publishing noted in the repository itself (:data:`RECORD_FILE`) and nobody has changed
since. All else is somebody else's: it is neither removed nor overwritten unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

RECORD_FILE = "published.json"
_FORMAT = 1


@dataclass(frozen=True)
class Contents:
    """A file by what is in it.

    Attributes:
        oid: git's own name of it as a blob.
        sha256: ``None``: the Hub does not say it, as of files that it keeps in git.
    """

    size: int
    oid: str
    sha256: str | None

    def is_same(self, other: Contents) -> bool:
        """Whether two files are the same: by SHA-256 where both have it, else by git's name."""
        if self.sha256 is not None and other.sha256 is not None:
            return self.sha256 == other.sha256
        return self.oid == other.oid


@dataclass(frozen=True)
class Changes:
    """What a commit would do, path by path.

    Attributes:
        removed: of an earlier publishing, and no longer in the data set.
        moved: of the new and the changed, those whose content is there under another name: it is not sent again.
        others: what a commit may not touch: path -> whose it is and why it is in the way.
        beside: others' files that stay as they are.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    removed: tuple[str, ...]
    moved: tuple[str, ...]
    others: Mapping[str, str]
    beside: tuple[str, ...]

    @property
    def takeable(self) -> list[str]:
        """Of others' files, those that may be taken when that is said."""
        return [path for path in self.others if path not in self.beside]

    @property
    def none(self) -> bool:
        return not (self.new or self.changed or self.removed)


def record_bytes(files: Mapping[str, Contents]) -> bytes:
    """The record of what is published: no time and no version in it, so that the same files give the same bytes."""
    known = {path: {"size": each.size, "sha256": each.sha256, "oid": each.oid} for path, each in sorted(files.items())}
    return (json.dumps({"format": _FORMAT, "files": known}, indent=1) + "\n").encode()


def read_record(content: bytes) -> dict[str, Contents] | None:
    """What an earlier publishing noted; ``None``: this is no such record."""
    try:
        data = json.loads(content)
        if data["format"] != _FORMAT:
            return None
        return {
            str(path): Contents(int(each["size"]), str(each["oid"]), str(each["sha256"]))
            for path, each in data["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def compare(
    ours: Mapping[str, Contents],
    there: Mapping[str, Contents],
    record: Mapping[str, Contents] | None,
    overwrite: Sequence[str] = (),
) -> Changes:
    """What it takes to have our files there.

    Args:
        ours: path -> what is to be there, the record of them included.
        there: path -> what is there.
        record: what an earlier publishing noted there; ``None``: nothing that can be read.
        overwrite: patterns of paths that may be taken, whosever they are.
    """
    known = dict(record or {})
    new, changed, same, removed = [], [], [], []
    others: dict[str, str] = {}
    for path, each in sorted(ours.items()):
        if path not in there:
            stands = _in_the_way(path, there)
            if stands is not None:
                others[stands] = f"stands where {path} has to be"
            new.append(path)
        elif each.is_same(there[path]):
            same.append(path)
        else:
            changed.append(path)
            is_record = path == RECORD_FILE and record is not None
            if not (is_record or _is_ours(path, there, known) or _may(path, overwrite)):
                others[path] = "was changed on the Hub since" if path in known else "is somebody else's"
    for path in sorted(known):
        if path in ours or path not in there:
            continue
        removed.append(path)
        if not (_is_ours(path, there, known) or _may(path, overwrite)):
            others[path] = "was changed on the Hub since, and is no longer in the data set"
    large = {each.sha256 for each in there.values() if each.sha256 is not None}  # small ones are sent in the commit
    moved = sorted(path for path in (*new, *changed) if ours[path].sha256 in large)
    beside = sorted(set(there) - set(ours) - set(removed))
    return Changes(tuple(new), tuple(changed), tuple(same), tuple(removed), tuple(moved), others, tuple(beside))


def _is_ours(path: str, there: Mapping[str, Contents], known: Mapping[str, Contents]) -> bool:
    return path in known and known[path].is_same(there[path])


def _may(path: str, patterns: Sequence[str]) -> bool:
    return any(path == pattern or fnmatchcase(path, pattern) for pattern in patterns)


def _in_the_way(path: str, there: Mapping[str, Contents]) -> str | None:
    """A file where the path has a folder, or one inside a folder where the path is a file."""
    above = next((str(each) for each in PurePosixPath(path).parents if str(each) in there), None)
    return above or next((each for each in there if each.startswith(f"{path}/")), None)
