"""What happens in a run as records of :mod:`logging` that programs can read, wherever they are written.

An *event* is a record with named values: a word for what happened, files, ids of rows, counts, seconds. Never a text or
a prompt: what a message quotes of them is an event at DEBUG. On the driver's stderr every record is a JSON object in a
line where ``MPG_LOG=json``; in workers see :mod:`pipeline.beam.worker_logs`.

No secret passes the handlers of the root, in drivers and workers: see :func:`redacted`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from personas.secrets import SHORT, hidden, names_a_secret, without_forms

VARIABLE = "MPG_LOG"
FORMATS = (TEXT, JSON) = ("text", "json")
OURS = ("mpg", "pipeline")  # packages that log
FIELDS = "mpg"  # attribute of a record that has an event's values
MESSAGE = "message"  # what a record is that has none


def event(logger: logging.Logger, name: str, /, *, level: int = logging.INFO, **values: object) -> None:
    """Log that something happened.

    Args:
        name: what, as ``shard_written``. values: of JSON's kinds, in the order in which people read them.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", words_of(name, values), extra={FIELDS: {"event": name, **values}}, stacklevel=2)


def words_of(name: str, values: Mapping[str, object]) -> str:
    """An event for people."""
    return f"{name}: {', '.join(f'{key} {value}' for key, value in values.items() if value is not None)}"


def is_json() -> bool:
    """Whether the driver's stderr is read by a program."""
    return os.environ.get(VARIABLE) == JSON


def redacted(text: str) -> str:
    """A text without what has the form of a secret, and without what the environment calls one.

    A value is taken for a secret by its variable's name, unless it is a path that is there, or shorter than 8
    characters: such a one would be hidden inside of words.
    """
    for name, value in os.environ.items():
        if len(value) >= SHORT and names_a_secret(name) and not os.path.exists(value):
            text = hidden(text, value)
    return without_forms(text)


def log_to_stderr(verbose: int, also: Callable[[str], str]) -> None:
    """What a command logs, and its libraries.

    Args:
        verbose: 0: warnings, and what this project has to say to people; 1: all at INFO, libraries' and events, too;
            2: this project's at DEBUG. also: done to what is said of a record.
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING)
    logging.captureWarnings(is_json())
    for handler in logging.getLogger().handlers:
        handler.setFormatter(AsJson(also=also) if is_json() else Readable(also=also))
        if type(handler) is logging.StreamHandler and not verbose and not is_json():
            handler.addFilter(_is_for_people)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


def _is_for_people(record: logging.LogRecord) -> bool:
    """Of what goes well, the bar says enough."""
    return record.levelno > logging.INFO or not hasattr(record, FIELDS)


class Readable(logging.Formatter):
    """A record for people, redacted.

    Args:
        form: as of :class:`logging.Formatter`. also: done to the text before it is redacted.
    """

    def __init__(self, form: str = "%(levelname)s: %(message)s", also: Callable[[str], str] = str) -> None:
        super().__init__(form)
        self._also = also

    def format(self, record: logging.LogRecord) -> str:
        return redacted(self._also(super().format(record)))


class AsJson(Readable):
    """A record as a JSON object in one line, redacted: an event's values; of another record its message."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return self.line({"time": when, "level": record.levelname, "logger": record.name} | self.values(record))

    def values(self, record: logging.LogRecord) -> dict[str, Any]:
        """What it says, beside who and when."""
        said, values = record.getMessage(), dict(getattr(record, FIELDS, {"event": MESSAGE}))
        if not said.startswith(f"{values['event']}: "):  # else they are its values
            values.setdefault("message", said)
        trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        return values if not trace else values | {"exception": trace}

    def line(self, values: Mapping[str, Any]) -> str:
        """They as JSON."""
        return json.dumps({name: self._clean(value) for name, value in values.items()}, default=str)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._clean(each) for each in value]
        return redacted(self._also(value)) if isinstance(value, str) else value
