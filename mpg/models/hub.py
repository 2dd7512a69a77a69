"""Where weights come from: a folder, or a place on the Hub, pinned to a commit; what went wrong there, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten

from mpg.models.embedded import PREFIX
from mpg.models.errors import BankError

_COMMIT = re.compile("[0-9a-f]{40}")
_TIMEOUT_S = 10.0
_LONGEST = 400  # characters of what somebody else's error says
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
# What else may lie beside an adapter: what it is like, and its own judge.
ADAPTER_EXTRAS = ("card.json", "judge.json", "judge.safetensors")


class PlaceError(BankError):
    """A model or adapter that can't be had; one line with the place, the reason and the remedy."""


class HubUnreachable(PlaceError):
    """It is on the Hub, not in this machine's cache, and the Hub can't be asked: another time, it may be there."""


class NoRevision(PlaceError):
    """The Hub knows the repository and not its revision."""


@dataclass(frozen=True)
class Place:
    """Where a model or an adapter is.

    Attributes:
        source: folder, Hub id or embedded id.
        revision: branch, tag or commit on the Hub; ``None``: the newest.
        subfolder: of the folder or repository.
        cached_only: the Hub could not be asked a moment ago: only what is in this machine's cache counts.
        untested: whether a model of a type that nobody has held against transformers is taken all the same.
        any_base: an adapter that may name another base than the one it is used over; nobody is told of it.
    """

    source: str
    revision: str | None = None
    subfolder: str | None = None
    cached_only: bool = field(default=False, compare=False)
    untested: bool = field(default=False, compare=False)
    any_base: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, given: str | Path | Place) -> Place:
        return given if isinstance(given, Place) else cls(str(given))

    @classmethod
    def written(cls, text: str) -> Place:
        """A place in one word: a folder, or ``owner/name``, ``owner/name@revision/subfolder`` as in Hub file paths."""
        parts = text.split("/", 2)
        if Path(text).expanduser().is_dir() or text.startswith(PREFIX) or len(parts) < 2:
            return cls(str(Path(text).expanduser()) if Path(text).expanduser().is_dir() else text)
        name, _, revision = parts[1].partition("@")
        return cls(f"{parts[0]}/{name}", revision or None, parts[2] if len(parts) > 2 else None)

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.source}{at}" + (f"/{self.subfolder}" if self.subfolder else "")

    @property
    def folder(self) -> Path | None:
        """On this machine; ``None``: it is on the Hub, or embedded."""
        folder = Path(self.source)
        if not folder.is_dir():
            return None
        return folder / self.subfolder if self.subfolder else folder

    @property
    def is_embedded(self) -> bool:
        return self.source.startswith(PREFIX)

    def pinned(self) -> Place:
        """The same place with its commit as the revision; a folder as it is.

        Raises:
            PlaceError: the Hub can't be asked (and did not say before), or does not know it.
        """
        if self.folder is not None and self.revision is not None:
            raise PlaceError(f"{self.source} is a folder, and {self.revision!r} a revision on the Hub; remove it")
        if self.is_embedded or self.folder is not None:
            return self
        if self.revision is not None and _COMMIT.fullmatch(self.revision):
            return self
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionResolutionError

        api = HfApi()
        with hub_errors(self):
            try:
                api.repo_info(self.source, revision=self.revision, timeout=_TIMEOUT_S)
            except Exception as error:
                if not _is_unreachable(error):
                    raise
                try:
                    found = api.resolve_revision(self.source, revision=self.revision, local_files_only=True)
                except RevisionResolutionError:
                    raise error from None
                return replace(self, revision=found.resolved, cached_only=True)
            # It notes the commit in the cache, for another time without a network.
            return replace(self, revision=api.resolve_revision(self.source, revision=self.revision).resolved)

    def file(self, name: str) -> Path | None:
        """A file there, fetched if need be; ``None``: it has none of this name. Raises PlaceError."""
        if self.folder is not None:
            return self.folder / name if (self.folder / name).is_file() else None
        from huggingface_hub import _CACHED_NO_EXIST, HfApi, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        with hub_errors(self):
            inside = f"{self.subfolder}/{name}" if self.subfolder else name
            cached = try_to_load_from_cache(self.source, inside, revision=self.revision)
            if isinstance(cached, str):
                return Path(cached)
            if cached is _CACHED_NO_EXIST:  # the Hub has said so before, of this very commit
                return None
            if not self.cached_only:  # the client tries for half a minute to fetch a file, and asks this at once
                HfApi().repo_info(self.source, revision=self.revision, timeout=_TIMEOUT_S)
            try:
                found = hf_hub_download(self.source, inside, revision=self.revision, local_files_only=self.cached_only)
                return Path(found)
            except RemoteEntryNotFoundError:
                return None
            except LocalEntryNotFoundError as error:
                if isinstance(error.__cause__, RemoteEntryNotFoundError):
                    return None
                raise


def adapter_folder(place: Place) -> Path | None:
    """The folder of a PEFT adapter, fetched from the Hub if need be; ``None`` for a whole model.

    Raises:
        PlaceError: neither is there, or it can't be had.
    """
    if place.is_embedded:
        return None
    try:
        config = place.file(ADAPTER_CONFIG)
    except HubUnreachable:
        if place.file("config.json") is None:  # a whole model in the cache
            raise
        return None
    if config is None:
        if place.file("config.json") is None:
            inside = sorted(each.parent.name for each in (place.folder or Path()).glob(f"*/{ADAPTER_CONFIG}"))
            remedy = (
                f"name its subfolder ({', '.join(inside)})" if place.folder and inside else "name an adapter or a model"
            )
            raise PlaceError(f"{place} has neither {ADAPTER_CONFIG} nor config.json; {remedy}")
        return None
    if place.file(ADAPTER_WEIGHTS) is None:
        pickled = "" if place.file(_PICKLED) is None else f" but {_PICKLED}, a pickle, which may run any code"
        raise PlaceError(f"{place} has no {ADAPTER_WEIGHTS}{pickled}; give a PEFT LoRA saved as safetensors")
    for name in ADAPTER_EXTRAS if place.folder is None else ():
        with suppress(HubUnreachable):
            place.file(name)
    return config.parent


@contextmanager
def hub_errors(place: Place) -> Iterator[None]:
    """Turn whatever the Hub's client, or a loader that uses it, raises about a place into one line.

    Raises:
        PlaceError: in its place, by kind.
    """
    try:
        yield
    except PlaceError:
        raise
    except Exception as e:
        problem = _problem(place, e, _causes(e))
        if problem is None:
            raise
        raise problem from e


def _problem(place: Place, error: Exception, causes: Sequence[BaseException]) -> PlaceError | None:
    """What the Hub's client says, in this house's words; ``None``: it is not about the Hub or a file."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    if any(isinstance(each, hub.HFValidationError) for each in causes):
        return PlaceError(f"{place} is neither a folder here nor a Hub id (owner/name); give one")
    answered = next((each for each in causes if isinstance(each, hub.HfHubHTTPError)), None)
    log_in = "log in (hf auth login, or HF_TOKEN)"
    match answered:
        case hub.GatedRepoError():
            return PlaceError(f"{place} is gated: ask for access on its page on the Hub, then {log_in}")
        case hub.RevisionNotFoundError():
            return NoRevision(
                f"{place.source} has no revision {place.revision!r} on the Hub; name a branch, tag or commit"
            )
        case hub.RepositoryNotFoundError():
            return PlaceError(
                f"{place} is no folder here and no repository on the Hub, or a private one; check it, or {log_in}"
            )
        case hub.RemoteEntryNotFoundError():
            return PlaceError(f"{place} lacks a file that is needed ({one_line(answered)}); name another")
    status = None if answered is None else answered.response.status_code
    if status is not None and status < 500 and status not in (408, 429):
        return PlaceError(f"{place} can't be fetched: the Hub answered {status}; check the name, or {log_in}")
    not_here = (hub.LocalEntryNotFoundError, hub.RevisionResolutionError, hub.OfflineModeIsEnabled)
    cached = f"{place} is no folder here and not in this machine's Hub cache"
    if constants.HF_HUB_OFFLINE and any(isinstance(each, not_here) for each in causes):
        remedy = f"unset that, fetch it once (hf download {place.source}), or give a folder"
        return HubUnreachable(f"{cached}, and HF_HUB_OFFLINE keeps it from being fetched; {remedy}")
    network = next((each for each in reversed(causes) if _is_network(each) and str(each)), None)
    if network is not None or any(isinstance(each, not_here) for each in causes):
        why = error if network is None else network
        what = f"{type(why).__name__}: {one_line(why)}"
        return HubUnreachable(
            f"{cached}, and {constants.ENDPOINT} can't be reached ({what}); check the network, or give a folder"
        )
    if isinstance(error, OSError):
        return PlaceError(f"{place} can't be loaded ({one_line(error)}); check what is there")
    return None


def _is_unreachable(error: BaseException) -> bool:
    """Whether the Hub gave no answer, or one of a server that is down."""
    from huggingface_hub.errors import HfHubHTTPError

    causes = _causes(error)
    answered = next((each for each in causes if isinstance(each, HfHubHTTPError)), None)
    return any(map(_is_network, causes)) if answered is None else answered.response.status_code >= 500


def _is_network(error: BaseException) -> bool:
    """Whether the Hub could not be asked; its client's own errors are told by the module, of whatever version."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.partition(".")[0] in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
    )


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it, the first cause last."""
    found: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in found:
        found.append(here)
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)
    return found


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind; where it ends with a colon, what follows it, too."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].endswith(":"):
        lines = [shorten(" ".join(lines), _LONGEST, placeholder=" ...")]
    return lines[0].rstrip(".:")
