"""What the command lines of several commands have in common: places, lists of words, the folder to work in."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.store.places import expanded, is_url, url_problem


def place(text: str) -> Path:
    """A file or folder on a command line, of which a shell leaves the ``~`` of ``--output=~/x`` as it is."""
    if is_url(text):
        raise argparse.ArgumentTypeError(f"{text!r} is a URL; give a file or folder on this machine")
    return expanded(text)


def anywhere(text: str) -> Path:
    """The same, or the URL of a file or folder in a store that can be written."""
    return _in_store(text, writes=True)


def readable(text: str) -> Path:
    """The same, or the URL of one that can be read."""
    return _in_store(text, writes=False)


def _in_store(text: str, *, writes: bool) -> Path:
    problem = url_problem(text, writes=writes) if is_url(text) else None
    if problem is not None:
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}")
    try:
        return expanded(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def source(text: str) -> str:
    """A file, a folder, or a name for something else, as an id of the Hub."""
    return str(expanded(text)) if text.startswith("~") else text


def add_directory(parser: argparse.ArgumentParser, dest: str) -> None:
    """``-C DIR``, before the command or after it."""
    parser.add_argument(
        "-C", dest=dest, metavar="DIR", type=place, action="append", default=[], help="change to this folder first"
    )


def add_words(
    parser: argparse.ArgumentParser, option: str, *, positional: str, unless: str | None = None, **how: Any
) -> None:
    """An option that takes several words, given at once, in commas, or again; it may stand before the positional.

    argparse lets it swallow every word up to the next option. Of those the last is the positional where none is left.

    Args:
        positional: name of the argument, which has to be optional (``nargs="?"``) and is required here.
        unless: another option in whose company it is not.
    """
    action = parser.add_argument(option, nargs="+", action="extend", **how)
    parser.set_defaults(settle=partial(_settle, parser, action, positional, unless))


def in_commas(words: list[str] | None) -> list[str]:
    """``["E,N", "T"]`` as ``["E", "N", "T"]``; a word with ``=`` may have a text with commas, and stays as it is."""
    parts = [[word] if "=" in word else word.split(",") for word in words or ()]
    return [part for some in parts for part in some if part]


def _settle(
    parser: argparse.ArgumentParser,
    action: argparse.Action,
    positional: str,
    unless: str | None,
    options: argparse.Namespace,
) -> None:
    if getattr(options, positional) is not None or (unless is not None and getattr(options, unless) is not None):
        return
    asked = next(each for each in parser._actions if each.dest == positional)
    words: list[str] = getattr(options, action.dest) or []
    if len(words) > 1 and _is_place(words[-1]):
        setattr(options, action.dest, words[:-1])
        try:
            setattr(options, positional, asked.type(words[-1]) if callable(asked.type) else words[-1])
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument {asked.metavar}: {error}")
    elif unless is None:
        parser.error(f"the following arguments are required: {asked.metavar}")


def _is_place(word: str) -> bool:
    """Whether it names a file or folder: one that is there, or by its form."""
    if is_url(word):
        return True
    name = Path(word.partition("=")[0])
    return Path(source(word)).exists() or len(name.parts) > 1 or name.suffix[1:2].isalpha()
