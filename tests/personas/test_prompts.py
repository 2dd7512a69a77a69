"""Prompts: what is read, the ids they get, and what is said about a bad line."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from personas.chats import Message
from personas.prompts import (
    Prompt,
    PromptError,
    PromptTable,
    load_prompts_dataset,
    load_prompts_jsonl,
    read_prompts,
)


def write(folder: Path, *lines: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_both_forms_of_a_line(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße!"}]
    path = write(
        tmp_path,
        {"prompt": "Hi", "id": "hi"},
        "",
        {"messages": chat, "topic": "x"},
        {"prompt": "Yo", "id": 7},
    )
    first, second, third = load_prompts_jsonl(path)
    assert first == Prompt("hi", (Message("user", "Hi"),))
    assert second.as_chat() == chat and len(second.prompt_id) == 16
    assert third.prompt_id == "7"
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.prompt_id = "x"  # type: ignore[misc]


def test_an_id_made_from_the_messages_stays(tmp_path: Path) -> None:
    (plain,) = load_prompts_jsonl(write(tmp_path, {"prompt": "Hi"}))
    (chat,) = load_prompts_jsonl(write(tmp_path, {"messages": [{"role": "user", "content": "Hi"}]}))
    assert plain == chat
    assert plain.prompt_id == "8b1450277179b15b"  # in every release: rows are resumed by it


def test_a_limit_leaves_the_rest_unread(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "a"}, {"prompt": "b"}, "not JSON")
    assert [p.messages[0].content for p in load_prompts_jsonl(path, limit=2)] == ["a", "b"]


def test_byte_order_mark_and_crlf_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
    assert len(load_prompts_jsonl(path)) == 2


TEXT = "I told nobody about it"


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [{"role": TEXT, "content": "user"}]},
        {"messages": [{"role": TEXT.replace(" ", "_"), "content": "user"}]},
        {"messages": [{"role": [TEXT], "content": TEXT}]},
        {"messages": [{"role": {"a": TEXT}, "content": TEXT}]},
        {"messages": [{"from": TEXT, "value": "human"}]},
        {"messages": [{"role": "user", "content": [TEXT]}]},
        {"messages": [{"role": "user", "content": {"text": TEXT}}]},
        {"messages": [TEXT]},
        {"messages": TEXT},
        {"messages": [{"role": "assistant", "content": TEXT}]},
        {"prompt": [TEXT]},
        {"prompt": {"text": TEXT}},
        {"prompt": TEXT, "id": [TEXT]},
        {"prompt": TEXT, "id": {"a": TEXT}},
        {"prompt": TEXT, "messages": [{"role": "user", "content": TEXT}]},
        f'{{"prompt": "{TEXT}"',
        f'"{TEXT}"',
        [TEXT],
    ],
    ids=str,
)
def test_what_is_said_of_a_bad_line_quotes_no_text(tmp_path: Path, line: object) -> None:
    """It is logged when a run begins, where no text of a prompt may stand."""
    path = write(tmp_path, {"prompt": "first", "id": "one"}, line)
    with pytest.raises(PromptError) as caught:
        load_prompts_jsonl(path)
    assert not any(word in str(caught.value) for word in ("told", "nobody"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": ', r"line 2: not JSON \(Expecting value at column 12\)"),
        ("3", "line 2: a number in place of an object"),
        ("{}", "line 2: needs 'prompt' or 'messages' and has neither, but nothing"),
        ({"text": "x"}, "line 2: needs 'prompt' or 'messages' and has neither, but 'text'"),
        ({"prompt": "x", "messages": []}, "line 2: .*has both"),
        ({"prompt": None}, "line 2: 'prompt': null in place of text"),
        ({"prompt": 7}, "line 2: 'prompt': a number in place of text or a list of messages"),
        ({"messages": "x"}, "line 2: 'messages': text in place of a list; give one, or use 'prompt'"),
        ({"messages": []}, "line 2: 'messages': an empty list in place of"),
        ({"messages": ["x"]}, "line 2: 'messages': message 1 is text"),
        (
            {"messages": [{"role": "human", "content": "x"}]},
            "line 2: 'messages': message 1 has the role 'human'; choose from",
        ),
        ({"messages": [{"role": "user"}]}, "line 2: 'messages': message 1 has null as its content; give text"),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            "line 2: 'messages': the last message is the assistant's",
        ),
        ({"prompt": "x", "id": ""}, "line 2: 'id': ''; give text"),
        ({"prompt": "x", "id": True}, "line 2: 'id': True is no id"),
        ('{"prompt": "x", "id": "\\ud83d"}', "line 2: 'id': holds half a surrogate pair"),
        ({"prompt": "b", "id": "one"}, "line 2: id 'one' is taken by line 1"),
        ({"prompt": "first"}, "line 2: the same prompt as on line 1"),
        ("[" * 100_000, "line 2: nested too deeply"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path, {"prompt": "first", "id": "one"}, line)
    with pytest.raises(PromptError, match=message) as caught:
        load_prompts_jsonl(path)
    assert str(caught.value).startswith(f"{path}: line 2: ")
    assert len(str(caught.value).splitlines()) == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_text_that_no_model_can_read_costs_its_own_rows_only(tmp_path: Path) -> None:
    """It is loaded, with an id, and goes to the dead letters when its turn comes."""
    path = write(tmp_path, {"prompt": "  "}, '{"prompt": "\\ud83d"}', {"prompt": "fine"})
    prompts = load_prompts_jsonl(path)
    assert [prompt.messages[0].content for prompt in prompts] == ["  ", "\ud83d", "fine"]
    assert len({prompt.prompt_id for prompt in prompts}) == 3


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "\xfc"}\n')
    with pytest.raises(PromptError, match="line 2: not UTF-8 at byte 13"):
        load_prompts_jsonl(path)


def test_no_file_and_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no such file"):
        load_prompts_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(PromptError, match="directory"):
        load_prompts_jsonl(tmp_path)
    with pytest.raises(PromptError, match="holds no prompt; give it rows with a prompt"):
        load_prompts_jsonl(write(tmp_path, "", " "))


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    import datasets

    folder = tmp_path_factory.mktemp("dataset")
    chats = [[{"role": "user", "content": text}] for text in ("a", "b", "a")]
    data = datasets.Dataset.from_dict(
        {"prompt": ["a", "b", "a"], "chat": chats, "number": [1, 2, 3], "gap": ["a", None, "b"]}
    )
    datasets.DatasetDict({"train": data}).save_to_disk(str(folder))
    return str(folder)


def test_a_dataset_of_text_or_chats(dataset_folder: str) -> None:
    prompts = load_prompts_dataset(dataset_folder)
    assert [prompt.messages[0].content for prompt in prompts] == ["a", "b"]  # repeated ones are dropped
    assert load_prompts_dataset(dataset_folder, column="chat") == prompts
    assert load_prompts_dataset(dataset_folder, limit=1) == prompts[:1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "question"}, r"has no column 'question' \(columns: prompt, chat, number, gap\)"),
        ({"split": "test"}, "has no split 'test'; choose from train"),
        ({"column": "number"}, "row 1: 'number': a number in place of text"),
        ({"column": "gap"}, "row 2: 'gap': null in place of text"),
    ],
)
def test_a_dataset_that_does_not_fit(dataset_folder: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        load_prompts_dataset(dataset_folder, **options)
    assert str(caught.value).startswith(dataset_folder)


def test_a_folder_of_jsonl_is_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, {"prompt": "Hi"})
    assert [prompt.messages[0].content for prompt in load_prompts_dataset(folder)] == ["Hi"]
    with pytest.raises(PromptError, match=r"can't be opened \("):
        load_prompts_dataset(tmp_path / "nowhere")


# --------------------------------------------------------------------------- rows as people have them


def table_of(folder: Path, *rows: object, **options: object) -> PromptTable:
    return read_prompts(write(folder, *rows), **options)  # type: ignore[arg-type]


def test_broken_rows_are_kept_apart_with_their_place(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "id": "x"},
        {"prompt": None},
        "nope",
        {"prompt": "b", "id": "x"},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "user", "content": "c"}]},
        {"prompt": "d"},
        {"prompt": "a", "id": "y"},
        {"prompt": "d"},
    ]
    found = table_of(tmp_path, *rows)
    assert [prompt.messages[0].content for prompt in found.prompts] == ["a", "d"]
    assert [(row.source, row.reason) for row in found.broken] == [
        ("prompts.jsonl: line 2", "bad_prompt"),
        ("prompts.jsonl: line 3", "broken_row"),
        ("prompts.jsonl: line 4", "repeated_id"),
        ("prompts.jsonl: line 5", "bad_prompt"),
    ]
    assert found.broken[2].problem == "id 'x' is taken by line 1; give another"
    assert json.loads(found.broken[0].raw) == {"prompt": None} and found.broken[1].raw == "nope"
    assert found.repeated == ("line 7: the same prompt as on line 1", "line 8: the same prompt as on line 6")
    assert found.notes == (
        "prompts.jsonl: 4 of 6 rows can't be used and are listed in the table `rejected`; the first: line 2: "
        "'prompt': null in place of text or a list of messages",
        "prompts.jsonl: 2 rows repeat an earlier prompt and are left out; the first: line 7: the same prompt as on "
        "line 1",
    )


def test_skip_and_limit_count_prompts_and_leave_out_the_broken_rows_of_the_rest(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, "1", {"prompt": "b"}, "2", {"prompt": "c"}, "3", {"prompt": "d"}]
    found = table_of(tmp_path, *rows, skip=1, limit=2)
    assert [prompt.messages[0].content for prompt in found.prompts] == ["b", "c"]
    assert [row.place for row in found.broken] == ["line 2", "line 4"] and found.skipped == 1


def test_what_a_job_does_not_use_comes_along(tmp_path: Path) -> None:
    (prompt,) = table_of(tmp_path, {"prompt": "a", "id": 1, "category": "x", "n": {"k": 1}, "gap": None}).prompts
    assert prompt.metadata == {"category": "x", "n": {"k": 1}} and prompt == Prompt("1", prompt.messages)
    assert hash(prompt) == hash(Prompt("1", prompt.messages))
    (prompt,) = table_of(tmp_path, {"q": "a", "id": 1, "qid": "z"}, column="q", id_column="qid").prompts
    assert prompt.prompt_id == "z" and prompt.metadata == {"id": 1}


def test_csv_as_people_have_it(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    chat = json.dumps([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]).replace('"', '""')
    path.write_text(
        f"id,prompt,topic\n001,10:30,NA\n002,\"{chat}\",\n,null,x\n003,,y\n4,\"[{{'role': 'user'}}]\",z\n5,a\n"
    )
    found = read_prompts(path)
    assert [(p.prompt_id, [m.content for m in p.messages], dict(p.metadata)) for p in found.prompts[:2]] == [
        ("001", ["10:30"], {"topic": "NA"}),
        ("002", ["S", "U"], {}),
    ]
    assert found.prompts[2].messages[0].content == "null" and len(found.prompts[2].prompt_id) == 16
    assert [row.place for row in found.broken] == ["line 5", "line 6", "line 7"]
    assert "looks like a list of messages, and is no JSON" in found.broken[1].problem


def test_columns_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text("question\tqid\nWhat?\t007\n")
    (prompt,) = read_prompts(path, column="question", id_column="qid").prompts
    assert (prompt.prompt_id, prompt.messages[0].content) == ("007", "What?")
    for options, says in (
        ({}, r"has no column 'prompt' \(columns: question, qid\); name the prompts' with prompts.column"),
        ({"column": "q"}, "has no column 'q'"),
        ({"column": "question", "id_column": "i"}, "has no column 'i' .*name the ids' with prompts.id_column"),
    ):
        with pytest.raises(PromptError, match=says):
            read_prompts(path, **options)
    found = table_of(tmp_path, {"q": "a"}, {"p": "b"}, {"q": "c", "id": ""}, column="q", id_column="id")
    assert [row.problem for row in found.broken] == [
        "'id': None; give text, or leave it out",
        "has no 'q', but 'p'",
        "'id': ''; give text, or leave it out",
    ]


def test_conversations_are_read_without_their_last_answer(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "S"}, {"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}]
    chat = [{"role": "user", "content": "V"}, {"role": "assistant", "content": "A"}]
    first, second = table_of(tmp_path, {"conversations": turns}, {"messages": chat}).prompts
    assert [message.content for message in first.messages] == ["S", "U"]
    assert second.as_chat() == chat[:1]


def test_a_file_of_no_known_name_is_read_line_by_line(tmp_path: Path) -> None:
    write(tmp_path, {"prompt": "a"}).rename(tmp_path / "prompts")
    assert len(load_prompts_jsonl(tmp_path / "prompts")) == 1
