"""Chats in all the forms that tables have them in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from personas.chats import Message, chat_in_text, chat_messages, last_user_text


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Hi", ["user: Hi"]),
        ([turn("system", "S"), turn("user", "U")], ["system: S", "user: U"]),
        ([turn("developer", "S"), turn("user", "U")], ["system: S", "user: U"]),
        ([{"from": "system", "value": "S"}, {"from": "human", "value": "U"}], ["system: S", "user: U"]),
        (
            [{"from": "user", "value": "U"}, {"from": "gpt", "value": "A"}, {"from": "human", "value": "V"}],
            ["user: U", "assistant: A", "user: V"],
        ),
        ([turn("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], ["user: a\nb"]),
        # as Parquet has them: every message has the keys of all
        ([turn("user", "U", tool_calls=None, name=None, images=[])], ["user: U"]),
        ([turn("user", [{"type": "text", "text": "a", "image_url": None}])], ["user: a"]),
    ],
)
def test_forms_that_are_read(value: Any, expected: list[str]) -> None:
    assert [f"{message.role}: {message.content}" for message in chat_messages(value)] == expected


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "null in place of text or a list of messages"),
        (7, "a number in place of text"),
        ({"role": "user"}, "an object in place of text"),
        ([], "an empty list in place of"),
        ([turn("user", "U"), "x"], "message 2 is text"),
        ([turn("user", None)], "message 1 has null as its content; give text"),
        ([turn("user", [])], "message 1 has an empty list as its content"),
        ([turn("user", ["a"])], "message 1 has a part of type 'text'; only parts of text are read"),
        ([turn("user", [{"type": "image_url", "image_url": "x"}])], "message 1 has a part of type 'image_url'"),
        ([turn("user", [{"type": "text", "text": None}])], "message 1 has a part of type 'text'"),
        ([turn("tool", "x"), turn("user", "U")], "message 1 has the role 'tool'; choose from system, user, assistant"),
        ([turn("human", "U")], "message 1 has the role 'human'"),
        ([{"from": "bing", "value": "U"}], "message 1 has the role 'bing'"),
        ([{"content": "U"}], "message 1 has the role None"),
        (
            [turn("assistant", None, tool_calls=[{}]), turn("user", "U")],
            "message 1 has 'tool_calls', which a",
        ),
        ([turn("assistant", "", function_call={"name": "f"}), turn("user", "U")], "message 1 has 'function_call'"),
        ([turn("user", "U", images=["x"])], "message 1 has 'images'"),
        (
            [turn("user", "U"), turn("assistant", "A")],
            "the last message is the assistant's; end with one",
        ),
        ([turn("system", "S")], "the last message is the system's"),
    ],
)
def test_what_is_refused_by_name(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        chat_messages(value)


def test_a_chat_that_ends_with_the_assistant_loses_that_turn() -> None:
    asked, answered = turn("user", "U"), turn("assistant", "A")
    assert chat_messages([asked, answered], drop_answer=True) == (Message("user", "U"),)
    assert len(chat_messages([asked, answered, asked, answered, answered], drop_answer=True)) == 3
    for value in ([answered], [turn("system", "S"), answered]):
        with pytest.raises(ValueError, match="the last message is the"):
            chat_messages(value, drop_answer=True)
    with pytest.raises(ValueError, match="message 2 has 'tool_calls'"):
        chat_messages([asked, turn("assistant", "A", tool_calls=[{"id": 1}])], drop_answer=True)


def test_a_chat_in_a_cell_of_text() -> None:
    chat = [turn("user", "Hi")]
    assert chat_in_text(json.dumps(chat)) == chat and chat_in_text(f" {json.dumps(chat)}") == chat
    for text in ("Hi", "[1, 2]", "[{]", '[{"name": "x"}]', "[{'x': 1}]"):
        assert chat_in_text(text) == text
    for text in ("[{'role': 'user', 'content': 'Hi'}]", '[{"role": "user", "content": '):
        with pytest.raises(ValueError, match=r"looks like a list of messages, and is no JSON .*; write it as JSON"):
            chat_in_text(text)


def test_what_was_asked() -> None:
    assert last_user_text([turn("user", "U"), turn("assistant", None, tool_calls=[{}]), turn("tool", "x")]) == "U"
    assert last_user_text(None) == last_user_text([]) == last_user_text([turn("system", "S")]) == ""
    for value in (7, ["x"]):
        with pytest.raises(ValueError, match="in place of text or a list of messages"):
            last_user_text(value)
