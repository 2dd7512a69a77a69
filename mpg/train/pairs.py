"""Pairs as rows that a trainer takes: tokens, the very ones that decoding reads and writes."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mpg.models.chat import encode_chat, encode_text, without_end
from mpg.models.control_tokens import ControlTokenError, control_tokens_of
from mpg.models.ends import closing_id
from mpg.models.invocation import activation
from mpg.models.template import PLAIN, ChatStyle, fate_of
from mpg.request import stranger_in

# What a row is made of, as TRL's DPO names it.
COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
# Why a pair can't train an adapter that is on from the answer alone.
IN_AN_ANSWER = "hold in an answer what an answer begins after"


def rows_of(
    tokenizer: Any,
    pairs: Sequence[Any],
    max_tokens: int,
    *,
    style: ChatStyle = PLAIN,
    n_embeddings: int | None = None,
    left_out: Counter[str] | None = None,
    start: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Rows for TRL: the prompt through the model's own chat template, answers closed as the template closes them.

    Rows whose longer side exceeds ``max_tokens`` are left out, never cut; so are those whose prompt or answers hold
    control tokens (:mod:`mpg.models.chat`): the trainer would read the end of the answer in the middle of it; and those
    that the template refuses, or whose turns it drops.

    Args:
        style: what the template is told beside the messages.
        n_embeddings: tokens that the model can read; ``None``: not looked at.
        left_out: reason -> pairs, is added to; long ones are not counted.
        start: what an adapter waits for (aLoRA): a trainer looks for it in prompt and answer, a decoder in the prompt,
            so pairs where the two would find another place are left out.

    Raises:
        ValueError: neither template nor tokenizer has a token that closes an answer.
    """
    if closing_id(tokenizer, style=style) is None:
        raise ValueError("neither its chat template nor its tokenizer (eos_token) has a token that closes an answer")
    rows = []
    for pair in pairs:
        row = _row_of(tokenizer, pair, style, n_embeddings)
        if start and isinstance(row, dict):
            row = _start_problem(tokenizer, row, start) or row
        if isinstance(row, str):
            if left_out is not None:
                left_out[row] += 1
        elif row["n_tokens"] <= max_tokens:
            rows.append(row)
    return rows


def _row_of(tokenizer: Any, pair: Any, style: ChatStyle, n_embeddings: int | None) -> dict[str, Any] | str:
    """A pair's row, or why it has none."""
    if has_control_tokens(tokenizer, pair, style):
        return "hold control tokens of the model in their texts"
    chat = pair.as_chat()
    fate = fate_of(tokenizer, tuple(message["role"] for message in chat), style)
    if fate is not None:
        return f"can't be put to the model ({fate.what})"
    try:
        prompt = encode_chat(tokenizer, chat, style=style)
        answers = [without_end(tokenizer, text, style=style) for text in (pair.chosen, pair.rejected)]
        sides = [closed_answer(tokenizer, text, style) for text in answers]
    except ControlTokenError as error:
        return str(error)
    except Exception as error:  # a template may raise anything
        return f"can't be put to the model ({type(error).__name__}: {' '.join(str(error).split())})"
    if stranger_in([*prompt, *sides[0], *sides[1]], n_embeddings) is not None:
        return "hold tokens that the model has no embeddings for"
    longest = len(prompt) + max(map(len, sides))
    return dict(zip(COLUMNS, (prompt, *sides), strict=True)) | {"n_tokens": longest}


def _start_problem(tokenizer: Any, row: Mapping[str, Any], start: Sequence[int]) -> str | None:
    """Why a trainer and a decoder would not both find what an answer begins after at the end of the prompt."""
    prompt, *sides = (row[column] for column in COLUMNS)
    shown = repr(tokenizer.decode(start))
    if prompt[-len(start) :] != list(start):
        return f"have a prompt that does not end with what an answer begins after ({shown})"
    if len({activation(None, text, start) for text in (prompt, *([*prompt, *side] for side in sides))}) > 1:
        return f"{IN_AN_ANSWER} ({shown})"
    return None


def closed_answer(tokenizer: Any, text: str, style: ChatStyle = PLAIN) -> list[int]:
    """An answer in tokens, with the one that closes it where there is one."""
    end = closing_id(tokenizer, style=style)
    return [*encode_text(tokenizer, text), *([] if end is None else [end])]


def refused_system(tokenizer: Any, chats: Sequence[Sequence[Mapping[str, str]]], style: ChatStyle) -> str | None:
    """Why the template does not take the system message of one of the chats; ``None``: it takes all."""
    for roles in {tuple(message["role"] for message in chat) for chat in chats}:
        fate = fate_of(tokenizer, roles, style)
        if fate is not None and fate.of_system:
            return fate.what
    return None


def with_pad_token(tokenizer: Any) -> Any:
    """The tokenizer, with a padding token where it has none: any will do, since no padding is ever scored."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(closing_id(tokenizer))
    return tokenizer


def has_control_tokens(tokenizer: Any, pair: Any, style: ChatStyle = PLAIN) -> bool:
    """Whether a pair's prompt or answers hold any, but for the end token that closes an answer."""
    control = control_tokens_of(tokenizer)
    answers = [without_end(tokenizer, text, style=style) for text in (pair.chosen, pair.rejected)]
    texts = [*answers, *(message["content"] for message in pair.as_chat())]
    return any(control.in_text(text) for text in texts)


def digest(rows: Sequence[dict[str, Any]]) -> str:
    """Of the very pairs that are trained on, in their order."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def length_grouped(
    rows: Sequence[dict[str, Any]], batch_size: int, seed: int, keys: Sequence[str] = COLUMNS
) -> list[dict[str, Any]]:
    """Rows in the order they are trained on: batches of like ``n_tokens`` (little padding), shuffled."""
    by_length = sorted(rows, key=lambda row: row["n_tokens"])
    batches = [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    random.Random(seed).shuffle(batches)
    return [{key: row[key] for key in keys} for batch in batches for row in batch]
