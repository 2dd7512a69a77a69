"""Chats and answers in tokens.

How a text with control tokens (:mod:`mpg.models.control_tokens`) is spelled out is transformers' own
(``sanitize_control_tokens``).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mpg.models.control_tokens import ControlTokenError, ControlTokens, control_tokens_of
from mpg.models.ends import closing_of
from mpg.models.template import PLAIN, ChatStyle, prepared, told

Chat = Sequence[Mapping[str, str]]


def encode_chat(tokenizer: Any, chat: Chat, *, as_text: bool = True, style: ChatStyle = PLAIN) -> list[int]:
    """The tokens of a chat, through the model's own template, up to where the answer begins.

    The one way from a chat to tokens: decoding, training and measuring read the same. The template's special tokens
    are all there are; the tokenizer adds none of its own.

    Args:
        as_text: whether control tokens in its messages are read as the text that they are; else as control tokens.
            A chat without any has the same tokens either way.
        style: what the template is told beside the messages.

    Raises:
        ControlTokenError: they can't be. Whatever a template raises about a chat that it does not take.
    """
    messages, how = prepared(chat, style), told(tokenizer, style)
    control = control_tokens_of(tokenizer)
    texts = [*(message["content"] for message in messages), *_texts_in(style.arguments)]
    if as_text and any(map(control.in_text, texts)):
        return _spelled(tokenizer, control, messages, add_generation_prompt=True, **how)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False, **how)
    return [int(i) for i in ids]


def answer_start(tokenizer: Any, style: ChatStyle = PLAIN) -> list[int]:
    """The tokens with which every prompt ends, whatever was asked: where the answer begins.

    Empty, where the template writes nothing between the two, or takes no chat.
    """
    chats = [[{"role": "user", "content": text}] for text in ("mqzxkw", "4+4=", "So.\n")]
    asked = chats[0][0]
    chats.append([asked, {"role": "assistant", "content": "wkxzqm"}, {"role": "user", "content": "Why?"}])
    chats += [[{"role": "system", "content": text}, asked] for text in ("zqkwm", "Be brief.")]
    prompts = []
    for chat in chats:
        try:
            prompts.append(encode_chat(tokenizer, chat, style=style)[::-1])
        except Exception:  # it takes no such chat: no prompt is one
            continue
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return [column[0] for column in same][::-1]


def _texts_in(value: Any) -> list[str]:
    """Every text in an argument of a template."""
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts_in(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts_in(each)]
    return [value] if isinstance(value, str) else []


def stranger_problem(tokenizer: Any, n_embeddings: int, style: ChatStyle = PLAIN) -> str | None:
    """Why a model can read no chat: its template writes tokens that it has no embeddings for; ``None``: it can."""
    for roles in (("user",), ("system", "user")):
        try:
            ids = encode_chat(tokenizer, [{"role": role, "content": "a"} for role in roles], style=style)
        except Exception:  # the template takes no such chat, which is said elsewhere
            continue
        strangers = [i for i in ids if i >= n_embeddings]
        if strangers:
            name = tokenizer.convert_ids_to_tokens(strangers[0])
            has = f"the model has embeddings for 0 to {n_embeddings - 1}"
            return f"its chat template writes {name!r}, token {strangers[0]}, and {has}; resize them"
        return None
    return None


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text alone, control tokens in it read as text. Raises ControlTokenError: they can't be."""
    control = control_tokens_of(tokenizer)
    if not control.in_text(text):
        return [int(i) for i in tokenizer(text, add_special_tokens=False).input_ids]
    bare = "{{ messages[0]['content'] }}"
    return _spelled(tokenizer, control, [{"role": "user", "content": text}], chat_template=bare)


def without_end(tokenizer: Any, text: str, ids: frozenset[int] | None = None, style: ChatStyle = PLAIN) -> str:
    """A text without the end token that may close it, as in texts decoded with their special tokens.

    Args:
        ids: the model's end tokens; ``None``: the template's and the tokenizer's own.
        style: what the template is told beside the messages.
    """
    if ids is None:
        own = closing_of(tokenizer, style).token_id, tokenizer.eos_token_id
        ids = frozenset(each for each in own if each is not None)
    bare = text.rstrip()
    names = [name for name in tokenizer.convert_ids_to_tokens(sorted(ids)) if name and bare.endswith(name)]
    return bare.removesuffix(max(names, key=len)) if names else text


def _spelled(tokenizer: Any, control: ControlTokens, messages: list[dict[str, str]], **how: Any) -> list[int]:
    for message in messages:
        if control.hidden_in(message["content"]):
            what = f"a control token appears as the tokenizer normalises {message['content']!r:.60}"
            raise ControlTokenError(f"{what}; remove it")
    tokenizer.chat_control_tokens = sorted(control.tokens)
    try:
        ids = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=False, sanitize_control_tokens=True, **how
        )
    except (ValueError, NotImplementedError) as error:
        raise ControlTokenError(f"control tokens in a text can't be spelled out ({error}); remove them") from error
    return [int(i) for i in ids]
