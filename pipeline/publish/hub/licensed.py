"""The card as it is published: with the licence of its parts, or the one that is stated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from personas.text import one_line
from pipeline.exit_status import ExitStatus
from pipeline.publish.hub.errors import PublishError
from pipeline.publish.hub.files import front_of
from pipeline.publish.hub.wish import Wish
from pipeline.publish.licences import LicenceError, Resolved, licence_of, restate
from pipeline.store.dataset import CARD_FILE
from pipeline.store.files import read_bytes, store_errors
from pipeline.store.lock import FolderInUse
from pipeline.store.places import is_local, is_url, url_problem

_FIELD = re.compile(rb"(?m)^license(?:_name|_link)?:[^\n]*\n")


class NotLicensed(PublishError):
    """What a data set is published under can't be told, or is told in two ways."""


def licensed_card(folder: Path, wish: Wish) -> bytes | None:
    """The data set's card, if it bears the data set's licence; ``None``: it is to be written again first.

    In a dry run, which writes nothing, it is the present card with the licence above it.

    Raises:
        NotLicensed: the licence can't be told, or the card says another one than the data set's job and parts.
        PublishError: the card can't be read.
    """
    with _one_line(folder):
        card = (folder / CARD_FILE).read_bytes()
        front = front_of(card)
        if not front:
            raise PublishError(f"{folder / CARD_FILE}: nothing stands above it that YAML can read; run the job again")
        found = licence_of(folder, wish.licence, name=wish.licence_name, link=wish.licence_link)
        _check_link(folder, found)
        said = {name: front[name] for name in ("license", "license_name", "license_link") if front.get(name)}
        if said == found.front:
            return card
        if said and wish.licence is None:
            raise NotLicensed(
                f"{folder / CARD_FILE}: says license {said.get('license')}, and the data set's is {found.license}; "
                "state one with --license"
            )
        return _with_front(card, found) if wish.dry_run else None


def write_again(folder: Path, wish: Wish) -> bytes:
    """The card, written again with its licence; nobody may hold the folder. Raises PublishError."""
    problem = None if is_local(folder) else url_problem(str(folder), writes=True)
    if problem is not None:
        raise NotLicensed(f"{folder}: its card has to be written anew with its licence, and {problem}")
    with _one_line(folder):
        restate(folder, wish.licence, name=wish.licence_name, link=wish.licence_link)
        return read_bytes(folder / CARD_FILE)


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        with store_errors(folder):
            yield
    except LicenceError as error:
        raise NotLicensed(f"{folder}: {error}") from error
    except FolderInUse as error:
        raise PublishError(str(error), ExitStatus.TRY_AGAIN) from error
    except OSError as error:
        where, what = error.filename or folder / CARD_FILE, (error.strerror or str(error)).lower()
        if not is_local(folder):
            raise PublishError(f"{where}: {what}; see to its address, keys and rights", ExitStatus.TRY_AGAIN) from error
        raise PublishError(f"{where}: {what}; bring it back, or run the job again") from error
    except ValueError as error:
        raise PublishError(
            f"{folder}: its card can't be written again ({one_line(error)}); run the job again"
        ) from error


def _with_front(card: bytes, found: Resolved) -> bytes:
    """A card with a licence above it, and no other."""
    first, rest = card.replace(b"\r\n", b"\n").split(b"\n", 1)
    above, below = rest.split(b"\n---", 1)
    fields = yaml.safe_dump(found.front, sort_keys=False).encode()
    return first + b"\n" + fields + _FIELD.sub(b"", above + b"\n").rstrip(b"\n") + b"\n---" + below


def _check_link(folder: Path, found: Resolved) -> None:
    link = found.license_link
    if link is not None and not is_url(link) and not (folder / link).is_file():
        raise NotLicensed(f"{folder / link}: is not there, and the licence is to be read in it; put it there")
