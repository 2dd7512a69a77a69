"""Places as people write them: paths of this machine, and URLs of stores (``s3://bucket/x``) by fsspec.

A place is a :class:`pathlib.Path` or, of a URL, a :class:`upath.UPath`, which has the methods of one; to the type
checker both are a Path. What differs between them beyond that is known to :mod:`pipeline.store.files` alone.
"""

from __future__ import annotations

import importlib.util
import os
import posixpath
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

# Scheme -> the package that it takes, and the extra of this project that brings it; empty: none.
_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcp"),
    "gcs": ("gcsfs", "gcp"),
    "hf": ("huggingface_hub", ""),
    "memory": ("fsspec", ""),
}
_READ_ONLY = ("hf", "http", "https")


def expanded(place: str | Path) -> Path:
    """The place with a leading ``~`` or ``~name`` as that home folder; one of nobody known stays as it is.

    Raises:
        ValueError: a URL that :func:`url_problem` has something to say about.
    """
    if not isinstance(place, str):
        return Path(os.path.expanduser(place)) if is_local(place) else place
    if not is_url(place):
        return Path(os.path.expanduser(place))
    if scheme_of(place) == "file":
        return Path(url2pathname(urlsplit(place).path))
    problem = url_problem(place)
    if problem is not None:
        raise ValueError(f"{place}: {problem}")
    from upath import UPath

    scheme, rest = place.split("://", 1)
    return cast(Path, UPath(f"{scheme.lower()}://{rest}", **_options(scheme.lower())))


def joined(folder: Path, place: str | Path) -> Path:
    """A place as written in a file of a folder: itself if it is absolute or a URL, else in that folder."""
    path = expanded(place)
    if is_local(path) and not is_local(folder) and not path.is_absolute():
        bare, scheme = str(folder).split("://", 1)[1], scheme_of(str(folder))
        return expanded(f"{scheme}://{posixpath.normpath(posixpath.join(bare, path.as_posix()))}")
    return folder / path if is_local(path) and not path.is_absolute() else path


def is_local(place: object) -> bool:
    """Whether a place is on this machine's own file system."""
    return isinstance(place, Path)


def is_url(place: str) -> bool:
    """Whether it is written as a URL is (``s3://bucket/x``): as a path it would be a folder named ``s3:`` here."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place) is not None


def scheme_of(url: str) -> str:
    """``s3`` of ``s3://bucket/x``."""
    return url.partition("://")[0].lower()


def url_problem(url: str, *, writes: bool = False) -> str | None:
    """Why no store can be opened by a URL, with the remedy; ``None``: nothing is known against it.

    Args:
        writes: whether it is to be written to.
    """
    scheme = scheme_of(url)
    if scheme == "file":
        return None
    if writes and scheme in _READ_ONLY:
        return f"{scheme}:// can be read only; give a folder, s3://..., gs://..., or publish with mpg publish"
    if scheme not in _PACKAGES:
        return f"{scheme}:// is no store that is known here; give a folder, or one of {', '.join(_PACKAGES)}"
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        return f"{scheme}:// needs the package {package}; pip install 'mpg-scr[{extra}]'"
    if scheme != "memory" and not urlsplit(url).netloc:
        return f"names no bucket; write {scheme}://BUCKET/FOLDER"
    return None


def _options(scheme: str) -> dict[str, Any]:
    if scheme == "memory":
        return {}
    # A listing is what is there now: fsspec's own caches would show a run what it was when it began.
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in ("gs", "gcs") and os.environ.get("STORAGE_EMULATOR_HOST"):
        # An emulator asks for no key. Nor has it gRPC, by which gcsfs would ask for a minute what kind of bucket it is.
        options["token"] = "anon"
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    return options
