"""With which tokens a text ends: what the model's files name, and what its chat template closes an answer with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mpg.models.control_tokens import control_tokens_of
from mpg.models.errors import BankError
from mpg.models.template import PLAIN, ChatStyle, rendered

_ANSWER = "mqzxanswerkw"


@dataclass(frozen=True)
class Closing:
    """How a chat template closes an assistant's turn.

    Attributes:
        token_id: the control token that follows the answer, blanks aside; ``None``: none does.
        after: what the template writes after it, or why that is not known.
    """

    token_id: int | None
    after: str


@dataclass(frozen=True)
class Ends:
    """The tokens that end a text.

    Attributes:
        ids: all of them.
        stated: what ``generation_config`` (where it names none, ``config``) says alone: rows whose model has no others
            have no word of it in their identity.
        named: whether ``generation_config`` names any.
        closing: how the template closes an answer.
    """

    ids: frozenset[int]
    stated: frozenset[int]
    named: bool
    closing: Closing


def ends_of(
    generation_config: Any,
    config: Any,
    tokenizer: Any,
    n_embeddings: int | None = None,
    style: ChatStyle = PLAIN,
) -> Ends:
    """The end tokens of a model.

    They are those of ``generation_config``, the template's own, the tokenizer's ``eos_token``, and those of ``config``
    that are control tokens: a file that names none has its architecture's default there, which may be any word.

    Args:
        generation_config, config: of the model; the first may be ``None``.
        n_embeddings: tokens that the model has.
        style: what the template is told beside the messages.

    Raises:
        BankError: an ``eos_token_id`` in one of the files that is none of them.
    """
    named = _listed(generation_config, "generation_config.json", n_embeddings)
    of_config = _listed(config, "config.json", n_embeddings)
    of_config = of_config or _listed(config.get_text_config(), "config.json", n_embeddings)
    stated = frozenset(named or of_config)
    closing = closing_of(tokenizer, style)
    more = [each for each in of_config if _is_control(tokenizer, each)]
    more += [each for each in (tokenizer.eos_token_id, closing.token_id) if each is not None]
    known = [each for each in more if n_embeddings is None or each < n_embeddings]
    return Ends(stated | frozenset(known), stated, bool(named), closing)


def _listed(config: Any, file: str, n_embeddings: int | None) -> list[int]:
    ids = getattr(config, "eos_token_id", None)
    given = [] if ids is None else list(ids) if isinstance(ids, list | tuple) else [ids]
    for each in given:
        known = isinstance(each, int) and not isinstance(each, bool) and each >= 0
        if not known or (n_embeddings is not None and each >= n_embeddings):
            there = "" if n_embeddings is None else f" (0 to {n_embeddings - 1})"
            raise BankError(f"{file}: eos_token_id: {each!r} is no token of this model{there}; mend that file")
    return given


def _is_control(tokenizer: Any, token_id: int) -> bool:
    return tokenizer.convert_ids_to_tokens(token_id) in control_tokens_of(tokenizer).tokens


@lru_cache(maxsize=8)
def closing_of(tokenizer: Any, style: ChatStyle = PLAIN) -> Closing:
    """How the template closes an assistant's turn: what follows the answer in a chat that ends with one.

    Args:
        style: what it is told beside the messages; it may close turns accordingly.
    """
    asked = {"role": "user", "content": "mqzxquestionkw"}
    chat = [asked, {"role": "assistant", "content": _ANSWER}]
    last, between = _closed(tokenizer, chat, style), _closed(tokenizer, [*chat, asked], style)
    # Some templates close an answer only where a turn follows it.
    return last if last.token_id is not None or between.token_id is None else between


def _closed(tokenizer: Any, chat: list[dict[str, str]], style: ChatStyle) -> Closing:
    try:
        text = rendered(tokenizer, chat, style, answers=False)
    except Exception as error:  # there is no template, or it takes no such chat
        return Closing(None, f"unknown: {type(error).__name__}: {' '.join(str(error).split())}")
    _, found, after = text.rpartition(_ANSWER)
    if not found:
        return Closing(None, "unknown: it leaves the answer out")
    control, rest = control_tokens_of(tokenizer), after.lstrip()
    token = max((each for each in control.tokens if rest.startswith(each)), key=len, default=None)
    return Closing(None if token is None else int(tokenizer.convert_tokens_to_ids(token)), after)


def closing_id(tokenizer: Any, ids: frozenset[int] | None = None, style: ChatStyle = PLAIN) -> int | None:
    """The token that closes an answer where one is written down: the template's, else the tokenizer's own.

    Args:
        ids: the model's end tokens; where neither of the two is among them, the first of these. ``None``: not known.
        style: what the template is told beside the messages.
    """
    for each in (closing_of(tokenizer, style).token_id, tokenizer.eos_token_id):
        if each is not None and (ids is None or each in ids):
            return int(each)
    return min(ids, default=None) if ids is not None else None


def answer_text(tokenizer: Any, token_ids: Sequence[int], ids: frozenset[int]) -> str:
    """A response as text, without the end token that closed it, special or not, and without special tokens."""
    return str(tokenizer.decode(said_of(token_ids, ids), skip_special_tokens=True)).strip()


def said_of(token_ids: Sequence[int], ids: frozenset[int]) -> Sequence[int]:
    """A response's tokens but the end token that closed it."""
    return token_ids[:-1] if token_ids and token_ids[-1] in ids else token_ids
