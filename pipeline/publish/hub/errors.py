"""What keeps a data set from being published, in one line; what the Hub's client raises, by kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from personas.secrets import HIDDEN, without_key
from pipeline.exit_status import ExitStatus
from pipeline.plan.errors import RunError

_QUERY = re.compile(r"(\w+://[^\s?'\"]+)\?[^\s'\"]+")
# Answers that another try may change: RFC 9110 and 6585; every 5xx besides.
_PASSING = (408, 425, 429)
_MOVED = (409, 412)  # of a commit: another one has come first
# Modules of the HTTP clients that the Hub's client is built on, of whatever version.
_HTTP_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2")


class PublishError(RunError):
    """A data set that is not published; one line with what, why and the remedy."""

    def __init__(self, message: str, status: ExitStatus = ExitStatus.BAD_INPUT) -> None:
        super().__init__(message, status)


class Passing(PublishError):
    """The Hub could not be asked, or not now.

    Attributes:
        wait_s: how long it asks to wait; ``None``: it does not say.
    """

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message, ExitStatus.TRY_AGAIN)
        self.wait_s = wait_s


class Moved(PublishError):
    """Somebody else's commit came first."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitStatus.TRY_AGAIN)


class NotThere(PublishError):
    """The Hub knows no such repository, or does not show it to this token.

    Attributes:
        unknown_caller: whether it says so to one whom it does not know: without a token, or with one that it refuses.
    """

    def __init__(self, message: str, *, unknown_caller: bool = False) -> None:
        super().__init__(message)
        self.unknown_caller = unknown_caller


class TokenRefused(PublishError):
    """The Hub does not take the token."""


def in_words(error: object, token: str | None) -> str:
    """An error's text on one line, without the token and without what follows a URL's ``?``: it may be signed."""
    return without_key(_QUERY.sub(rf"\1?{HIDDEN}", str(error)), token or "")


def problem_of(error: Exception, what: str, token: str | None) -> PublishError:
    """What was being done, and what the Hub's client raised, in this house's words."""
    if isinstance(error, PublishError):
        return error
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    causes = list(_causes(error))
    answered = next((each for each in causes if isinstance(each, hub.HfHubHTTPError)), None)
    if any(isinstance(each, hub.OfflineModeIsEnabled) for each in causes):
        return PublishError(f"{what}: HF_HUB_OFFLINE keeps the Hub from being asked; unset it", ExitStatus.TRY_AGAIN)
    if answered is None:
        network = next((each for each in reversed(causes) if _is_network(each)), None)
        if network is None:
            return PublishError(f"{what}: {in_words(_first_words(causes), token)}", ExitStatus.FAILED)
        why = in_words(f"{type(network).__name__}: {network}".rstrip(": "), token)
        return Passing(f"{what}: {in_words(constants.ENDPOINT, token)} can't be reached ({why}); check the network")
    status = answered.response.status_code
    said = in_words(f"{status}: {answered.server_message or _reason(answered)}", token)
    if status in _PASSING or status >= 500:
        return Passing(f"{what}: the Hub answered {said}", _wait_of(answered.response.headers))
    if isinstance(answered, hub.RevisionNotFoundError):
        return NotThere(f"{what}: no such revision ({said}); name one that is there")
    if isinstance(answered, hub.RepositoryNotFoundError):
        words = f"{what}: no such repository, or not for this token ({said}); check the id and the token"
        return NotThere(words, unknown_caller=status == 401)
    if status == 401:
        remedy = "log in again (hf auth login), or give another in HF_TOKEN"
        return TokenRefused(f"{what}: the Hub does not take the token ({said}); {remedy}")
    if status in _MOVED:
        return Moved(f"{what}: the Hub answered {said}")
    remedy = "use a token that may write there, or do what it says" if status in (402, 403) else "do what it says"
    return PublishError(f"{what}: the Hub refused ({said}); {remedy}", ExitStatus.FAILED)


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _first_words(causes: list[BaseException]) -> str:
    """An error's text; of one that only says that something else went wrong, that, too."""
    texts = [" ".join(str(each).split()) or type(each).__name__ for each in causes]
    return texts[0] if len(texts) == 1 else f"{texts[0].rstrip('.:')}: {texts[-1]}"


def _wait_of(headers: object) -> float | None:
    """Seconds that an answer asks to wait: Retry-After of RFC 9110, in seconds or as a date; or the Hub's RateLimit."""
    from huggingface_hub.utils import parse_ratelimit_headers

    given = headers.get("retry-after") if hasattr(headers, "get") else None
    if given is not None and given.strip().isdigit():
        return float(given)
    if given is not None:
        try:
            return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return None
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def _is_network(error: BaseException) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.split(".")[0] in _HTTP_CLIENTS


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in seen:
        seen.append(here)
        yield here
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)
