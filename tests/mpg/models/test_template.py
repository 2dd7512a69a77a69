"""What a model's own chat template is told, what it does with it, and what of that is known before a chat is read."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from mpg.models.chat import encode_chat, stranger_problem
from mpg.models.template import (
    ChatStyle,
    Fate,
    argument_problem,
    fate_of,
    folded,
    names_in,
    reads_clock,
    template_problem,
)
from mpg.settings import DEFAULT_DATE
from tests.fakes import spelling_tokenizer
from tests.templates import KINDS, tokenizer_of

USER = [{"role": "user", "content": "what now?"}]
TOLD = [{"role": "system", "content": "be brief"}, *USER]
CLOCKS = [name for name, kind in KINDS.items() if kind.clock]
OFF = ChatStyle.of({"enable_thinking": False})


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {name: tokenizer_of(name) for name in KINDS}


def written(tokenizer: Any, chat: list[dict[str, str]] = USER, style: ChatStyle = OFF) -> str:
    return str(tokenizer.decode(encode_chat(tokenizer, chat, style=style)))


def on_another_day(monkeypatch: pytest.MonkeyPatch, day: datetime.datetime) -> None:
    """The clock that transformers' templates read."""

    class Faked(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return day

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Faked)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_begins_with_one_bos_at_most(kind: str, tokenizers: dict[str, Any]) -> None:
    tokenizer, ids = tokenizers[kind], encode_chat(tokenizers[kind], USER)
    facts = KINDS[kind]
    assert ids.count(tokenizer.bos_token_id) == (1 if facts.adds_bos else 0)
    if facts.adds_bos:  # the kind's point: tokenised as other texts are, the rendered chat has two
        text = tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True)
        assert tokenizer(text).input_ids[:2] == [tokenizer.bos_token_id] * 2


@pytest.mark.parametrize("kind", CLOCKS)
def test_a_chat_is_the_same_on_every_day(
    kind: str, tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, style = tokenizers[kind], ChatStyle.of(date="2025-03-09")
    on_another_day(monkeypatch, datetime.datetime(2031, 5, 17, 23, 59))
    seen = [written(tokenizer, style=style), written(tokenizer, style=ChatStyle())]
    bare = tokenizer.apply_chat_template(USER, tokenize=False)
    on_another_day(monkeypatch, datetime.datetime(2032, 6, 18))
    assert seen == [written(tokenizer, style=style), written(tokenizer, style=ChatStyle())]
    assert bare != tokenizer.apply_chat_template(USER, tokenize=False)  # it does read the clock
    assert "2025" in seen[0] and "Mar" in seen[0] and "09" in seen[0]
    assert "2024" in seen[1] and DEFAULT_DATE == "2024-07-26"


@pytest.mark.parametrize("kind", CLOCKS)
def test_a_day_is_written_as_the_clock_would(
    kind: str, tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers[kind]
    on_another_day(monkeypatch, datetime.datetime(2025, 3, 9))
    for chat in (USER, TOLD):
        wanted = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert encode_chat(tokenizer, chat, style=ChatStyle.of(date="2025-03-09")) == wanted


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%A, %B %-d", "100%% %d%%d", "%H:%M %p %y%j", "no day"])
def test_every_form_of_a_day(form: str) -> None:
    head = "{% if true %}"  # a template's first tag may stand after blanks, on a line of its own
    tokenizer = spelling_tokenizer(template="  " + head + "\n{{ strftime_now('" + form + "') }}\n{% endif %}x")
    wanted = datetime.datetime(2025, 3, 9).strftime(form)
    assert written(tokenizer, style=ChatStyle.of(date="2025-03-09")) == f"{wanted}\nx"


def test_whether_the_clock_is_read_depends_on_the_chat(tokenizers: dict[str, Any]) -> None:
    read = {name: [reads_clock(t, chat) for chat in (USER, TOLD)] for name, t in tokenizers.items()}
    assert {name: each for name, each in read.items() if any(each)} == {
        "llama3": [True, True],
        "smollm3": [True, True],
        "granite": [True, False],  # only where it writes a system message of its own
    }
    given = ChatStyle.of({"date_string": "1 Jan 2020"})  # then it does not ask
    assert not reads_clock(tokenizers["llama3"], USER, given)
    assert "1 Jan 2020" in written(tokenizers["llama3"], style=given)
    named_in_text = spelling_tokenizer(template="strftime_now {# strftime_now('%d') #}{{ messages[0].content }}")
    assert not names_in(named_in_text.chat_template).clock and not reads_clock(named_in_text, USER)


@pytest.mark.parametrize(
    ("kind", "thought"), [("qwen3", "<think>\n\n</think>\n\n"), ("smollm3", "<think>\n\n</think>\n")]
)
def test_thinking_is_switched_off_in_the_prompt(kind: str, thought: str, tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers[kind]
    off, on = encode_chat(tokenizer, USER, style=OFF), encode_chat(tokenizer, USER)
    assert tokenizer.decode(off).endswith(thought) and "<think>" not in tokenizer.decode(on)
    assert tokenizer.convert_tokens_to_ids("<think>") in off  # as one token, not spelled out
    marked = [{"role": "user", "content": "<think>what</think> now?"}]
    spelled = encode_chat(tokenizer, marked, style=OFF)
    assert spelled.count(tokenizer.convert_tokens_to_ids("<think>")) == 1  # the template's own, and not the text's
    assert tokenizer.decode(spelled).count("<think>") == 2


def test_control_tokens_in_an_argument_are_text_in_every_row(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["llama3"]
    style = ChatStyle.of({"date_string": "a<|eot_id|>b"})
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    plain = encode_chat(tokenizer, USER).count(end)
    for text in ("hello", "hello <|eot_id|>"):
        assert encode_chat(tokenizer, [{"role": "user", "content": text}], style=style).count(end) == plain


def test_arguments_that_do_nothing_are_refused_by_name(tokenizers: dict[str, Any]) -> None:
    assert argument_problem(tokenizers["qwen3"], OFF) is None
    wrong = argument_problem(tokenizers["qwen3"], ChatStyle.of({"enable_thinkin": False}))
    assert wrong == "enable_thinkin: the chat template never reads it (it reads enable_thinking); remove it"
    for name in (
        "messages",
        "add_generation_prompt",
        "tokenize",
        "chat_template",
        "bos_token",
        "strftime_now",
        "tools",
    ):
        refused = argument_problem(tokenizers["llama3"], ChatStyle.of({name: 1}))
        assert refused is not None and refused.startswith(f"{name}: is not the job's to give")


# --------------------------------------------------------------------------- system messages


@pytest.mark.parametrize("kind", KINDS)
def test_what_becomes_of_a_system_message(kind: str, tokenizers: dict[str, Any]) -> None:
    tokenizer, system = tokenizers[kind], KINDS[kind].system
    fate = fate_of(tokenizer, ("system", "user"))
    assert (fate is not None and fate.of_system) == (system in ("refused", "dropped"))
    fold = ChatStyle.of(fold_system=True)
    assert fate_of(tokenizer, ("system", "user"), fold) is None and fate_of(tokenizer, ("user",)) is None
    assert "be brief\n\nwhat now?" in written(tokenizer, TOLD, fold)
    assert encode_chat(tokenizer, USER, style=fold) == encode_chat(tokenizer, USER)


def test_a_turn_that_is_dropped_is_known_whosever_it_is() -> None:
    last = spelling_tokenizer(template="{{ messages[-1].content }}")
    assert fate_of(last, ("user",)) is None
    for roles in (("system", "user"), ("user", "assistant", "user")):
        assert "leaves out" in fate_of(last, roles).what
    assert not fate_of(last, ("user", "assistant", "user")).of_system
    assert fate_of(tokenizer_of("gemma"), ("user", "user")) is None  # refused for another reason: the row says why


def test_system_messages_are_folded_wherever_they_stand() -> None:
    chat = [("system", "a"), ("system", "b"), ("user", "c"), ("assistant", "d"), ("system", "e"), ("user", "f")]
    messages = [{"role": role, "content": text} for role, text in chat]
    assert [(m["role"], m["content"]) for m in folded(messages)] == [
        ("user", "a\n\nb\n\nc"), ("assistant", "d"), ("user", "e\n\nf"),
    ]  # fmt: skip
    assert folded(messages[-2:-1]) == [{"role": "user", "content": "e"}]


# --------------------------------------------------------------------------- templates that no chat can be read by


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('never') }}", "refuses every chat (TemplateError: never)"),
        ("{% if %}", "refuses every chat (TemplateSyntaxError"),
        ("{{ messages[0].content | nofilter }}", "refuses every chat ("),
        ("{{ ['a', 'b'] | random }}{{ messages[0].content }}", "draws at random (random)"),
        ("{{ lipsum() }}", "draws at random (lipsum)"),
    ],
)
def test_a_template_that_takes_no_chat(template: str, says: str) -> None:
    problem = template_problem(spelling_tokenizer(template=template))
    assert problem is not None and says in problem and "\n" not in problem


def test_the_others_take_some(tokenizers: dict[str, Any]) -> None:
    assert not any(map(template_problem, tokenizers.values()))
    needs_system = "{% if messages[0].role != 'system' %}{{ raise_exception('x') }}{% endif %}{{ messages }}"
    assert template_problem(spelling_tokenizer(template=needs_system)) is None


def test_a_template_that_writes_tokens_beyond_the_embeddings(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["phi3"]
    assert stranger_problem(tokenizer, len(tokenizer)) is None
    problem = stranger_problem(tokenizer, 600)
    assert problem is not None and "'<|user|>', token 601, and the model has embeddings for 0 to 599" in problem


def test_a_chat_becomes_tokens_in_one_place() -> None:
    """What training, measuring and decoding read can't differ as long as nobody else renders a chat."""
    root = Path(__file__).parents[3]
    files = [path for name in ("mpg", "pipeline", "evaluation", "tools") for path in (root / name).rglob("*.py")]
    render = {str(path.relative_to(root)) for path in files if "apply_chat_template" in path.read_text("utf-8")}
    assert render == {"mpg/models/chat.py", "mpg/models/template.py"}


def test_what_a_template_refuses_a_system_message_with_is_in_its_own_words() -> None:
    """Some say that they take none, some only see that turns do not alternate."""
    alternating = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    fate = fate_of(tokenizer_of("gemma", template=alternating), ("system", "user"))
    assert fate == Fate(
        "the chat template refuses a chat with a system message ('roles must alternate')", of_system=True
    )
