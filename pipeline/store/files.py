"""What differs between this machine's disk and an object store, in one place: whole puts, moves, listings, errors.

On a disk a file is replaced by a temporary one and a rename, and is synced; in a store it is one put, which is there
wholly or not at all. Folders are made on a disk, and need not be in a store.
"""

from __future__ import annotations

import mimetypes
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.store.places import expanded, is_local, scheme_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_TYPE_OPTIONS = {"s3": "ContentType", "gs": "content_type", "gcs": "content_type"}
# Modules whose errors are a store's, where fsspec has not made an OSError of them.
_STORES = (
    "botocore",
    "aiobotocore",
    "gcsfs",
    "google",
    "aiohttp",
    "fsspec",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "s3fs",
)


@contextmanager
def store_errors(place: Path) -> Iterator[None]:
    """Whatever a store's client raises is an OSError that names the place; FileNotFoundError stays what it is."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if is_local(place) or not of_store(error):
            raise
        raise OSError(None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", str(place)) from error


def of_store(error: BaseException) -> bool:
    """Whether an error is one that a store's client raises."""
    return any(kind.__module__.partition(".")[0] in _STORES for kind in type(error).__mro__)


def write_bytes(content: Any, path: Path) -> None:
    """Replace a file's content, wholly or not at all. Raises OSError."""
    if not is_local(path):
        with store_errors(path):
            file_system(path).pipe_file(key_of(path), bytes(content), **_typed(path))
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)


def create(content: bytes, path: Path) -> bool:
    """Make a file that is not there; False: it is there. Of several that try one succeeds. Raises OSError."""
    try:
        with store_errors(path):
            if is_local(path):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
            else:
                file_system(path).pipe_file(key_of(path), content, mode="create")
    except FileExistsError:
        return False
    return True


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises OSError; FileNotFoundError: there is none."""
    if is_local(path):
        return path.read_bytes()
    with store_errors(path):
        return bytes(file_system(path).cat_file(key_of(path)))


def read_text(path: Path) -> str:
    """The same as text. Raises OSError, UnicodeDecodeError."""
    return read_bytes(path).decode("utf-8")


def read_parquet(path: Path, columns: list[str] | None = None, **how: Any) -> pa.Table:
    """A Parquet file, whole. Raises OSError, pa.ArrowException."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = path if is_local(path) else pa.BufferReader(read_bytes(path))
    return pq.read_table(source, columns=columns, **how)


@contextmanager
def parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of which only what is asked for is read. Raises OSError, pa.ArrowException."""
    import pyarrow.parquet as pq

    with store_errors(path), ExitStack() as stack:
        source = path if is_local(path) else stack.enter_context(file_system(path).open(key_of(path), "rb"))
        yield stack.enter_context(pq.ParquetFile(source))


def exists(path: Path) -> bool:
    """Whether there is such a file or folder. Raises OSError: nobody can tell, as a store does not answer, say."""
    return path.exists() if is_local(path) else _kind(path) is not None


def nothing_there(place: Path, kind: str = "folder") -> str:
    """What to say of a place where there is nothing of a kind."""
    if not is_local(place):
        with suppress(OSError):  # who may not ask for a bucket is not told of it
            scheme, _, rest = str(place).partition("://")
            bucket = f"{scheme}://{rest.partition('/')[0]}"
            if scheme in ("s3", "gs", "gcs") and _kind(expanded(bucket)) is None:
                return f"there is no bucket {bucket}"
    return f"no such {kind}"


def is_file(path: Path) -> bool:
    """Whether there is such a file. Raises OSError: as :func:`exists`; fsspec's own takes any error for a no."""
    return path.is_file() if is_local(path) else _kind(path) == "file"


def is_folder(path: Path) -> bool:
    """Whether there is such a folder. Raises OSError: as :func:`exists`."""
    return path.is_dir() if is_local(path) else _kind(path) == "directory"


def is_filled(folder: Path) -> bool:
    """Whether there is anything in a folder. Raises OSError: as :func:`exists`."""
    if is_local(folder):
        return folder.is_dir() and any(folder.iterdir())
    with suppress(FileNotFoundError), store_errors(folder):
        key = key_of(folder).rstrip("/")
        return any(name.rstrip("/") != key for name in file_system(folder).ls(key_of(folder), detail=False))
    return False


def _kind(path: Path) -> str | None:
    """``file``, ``directory``, or ``None``: there is nothing in the store."""
    with suppress(FileNotFoundError), store_errors(path):
        return str(file_system(path).info(key_of(path))["type"])
    return None


def listing(folder: Path, suffix: str = "") -> dict[str, int]:
    """Name -> bytes of a folder's files, by name, as they are now; a folder that is not there has none.

    Raises:
        OSError
    """
    if is_local(folder):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            found = {each.name: each for each in entries if each.name.endswith(suffix) and each.is_file()}
            return {name: found[name].stat().st_size for name in sorted(found)}
        return {}
    try:
        with store_errors(folder):
            entries = file_system(folder).ls(key_of(folder), detail=True)
    except FileNotFoundError:
        return {}
    names = {each["name"].rstrip("/").rpartition("/")[2]: each for each in entries if each["type"] == "file"}
    return {name: int(names[name]["size"]) for name in sorted(names) if name.endswith(suffix)}


def newest(folder: Path) -> float | None:
    """When the newest of a folder's files was written, in seconds since the epoch; ``None``: it has none.

    Raises:
        OSError
    """
    if is_local(folder):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            return max((each.stat().st_mtime for each in entries if each.is_file()), default=None)
        return None
    with suppress(FileNotFoundError), store_errors(folder):
        return max((_written(each) for each in file_system(folder).ls(key_of(folder), detail=True)), default=None)
    return None


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where files need one. Raises OSError."""
    if is_local(path):
        path.mkdir(parents=True, exist_ok=True)


def move(source: Path, target: Path) -> None:
    """Move a file over another, or to where there is none; within one store. Raises OSError."""
    if is_local(source):
        os.replace(source, target)
        return
    with store_errors(source):
        file_system(source).copy(key_of(source), key_of(target))
        file_system(source).rm_file(key_of(source))


def copy(source: Path, target: Path) -> None:
    """Copy a file from any place to any other. Raises OSError."""
    if is_local(source) and is_local(target):
        shutil.copyfile(source, target)
    elif not is_local(source) and not is_local(target) and file_system(source) is file_system(target):
        with store_errors(source):
            file_system(source).copy(key_of(source), key_of(target))
    elif is_local(target):
        with store_errors(source):
            file_system(source).get_file(key_of(source), str(target))
    elif is_local(source):
        with store_errors(target):
            file_system(target).put_file(str(source), key_of(target), **_typed(target))
    else:
        write_bytes(read_bytes(source), target)


def put_folder(source: Path, target: Path) -> None:
    """Move a folder of this machine, or of the same store, to where there is none, or no longer one. Raises OSError."""
    if is_local(target):
        remove_tree(target)
        source.rename(target)
        return
    with suppress(FileNotFoundError), store_errors(target):  # what stays of another would be taken for this one's
        file_system(target).rm(key_of(target), recursive=True)
    for name in files_below(source):
        copy(source / name, target / name)
    remove_tree(source)


def remove(path: Path) -> None:
    """Remove a file, if there is one. Raises OSError."""
    with suppress(FileNotFoundError), store_errors(path):
        if is_local(path):
            path.unlink()
        else:
            file_system(path).rm_file(key_of(path))


def remove_tree(path: Path) -> None:
    """Remove a folder and all that is in it, as far as that goes."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError), store_errors(path):
        file_system(path).rm(key_of(path), recursive=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in it last through a power cut."""
    if is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def files_below(folder: Path) -> list[str]:
    """Relative names of all files in a folder and its folders, hidden ones too, sorted. Raises OSError."""
    if is_local(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    with store_errors(folder):
        root = key_of(folder).rstrip("/") + "/"
        return sorted(name.removeprefix(root) for name in file_system(folder).find(key_of(folder)))


def _typed(path: Path) -> dict[str, str]:
    """What a store is told of a file's kind, by its name: so a browser shows a page, and does not save it."""
    kind = mimetypes.guess_type(path.name)[0]
    option = _TYPE_OPTIONS.get(scheme_of(str(path)))
    return {option: kind} if kind is not None and option is not None else {}


def _written(entry: dict[str, Any]) -> float:
    """When a store says that an object was written; 0: it does not say."""
    for name in ("LastModified", "updated", "mtime", "created"):
        found = entry.get(name)
        if isinstance(found, str):
            with suppress(ValueError):
                found = datetime.fromisoformat(found)
        if isinstance(found, datetime):
            return found.timestamp()
        if isinstance(found, int | float):
            return float(found)
    return 0.0


def file_system(path: Path) -> Any:
    """The fsspec file system of a place in a store."""
    return path.fs  # type: ignore[attr-defined]


def key_of(path: Path) -> str:
    """What that file system calls the place."""
    return str(path.path)  # type: ignore[attr-defined]
