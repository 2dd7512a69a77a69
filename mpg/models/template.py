"""A model's own chat template: what it is told beside the messages, and what it does with them.

What a template writes depends on the messages, on arguments that a job may give it (``enable_thinking``) and, in
templates that call ``strftime_now``, on the day. Here the day is fixed: such a template is rendered with a macro of
that name before it, which hides the clock. (A function among the arguments would reach no template: transformers makes
plain data of them.)
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from mpg.settings import DEFAULT_DATE

Message = Mapping[str, str]
_CLOCK = "strftime_now"
_CLOCK_WAS_READ = "mpg: the clock was read"
# Directives of strftime that depend on the day alone (%s, %z, %Z: on the machine's time zone, too).
_DIRECTIVES = "aAbBcdDeFgGhHIjklmMnpPrRStTuUVwWxXyYC"
_PERCENT = "\ue0f0"  # stands for %% while the others are replaced
# What draws at random in jinja: a row would depend on chance.
_RANDOM = ("random", "lipsum")
# What jinja and transformers put into every template beside its arguments.
_ENVIRONMENT = frozenset({"raise_exception", _CLOCK, "dict", "namespace", "range", "lipsum", "cycler", "joiner"})


@dataclass(frozen=True)
class ChatStyle:
    """How a job's chats are put to a model's template.

    Attributes:
        arguments_json: what the template is given beside the messages, as JSON of a mapping.
        date: the day that it reads, YYYY-MM-DD; ``None``: ``DEFAULT_DATE``.
        fold_system: whether a system message stands in front of the next turn of the user, for templates without one.
    """

    arguments_json: str = "{}"
    date: str | None = None
    fold_system: bool = False

    @classmethod
    def of(
        cls, arguments: Mapping[str, Any] | None = None, date: str | None = None, *, fold_system: bool = False
    ) -> ChatStyle:
        """Raises ValueError: arguments that JSON can't hold."""
        return cls(json.dumps(dict(arguments or {}), sort_keys=True, allow_nan=False), date, fold_system)

    @property
    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.arguments_json)
        return found

    def described(self) -> dict[str, Any]:
        """What of it is not as it is by default, for cards."""
        found: dict[str, Any] = {"arguments": self.arguments} if self.arguments else {}
        found |= {"date": self.date} if self.date is not None else {}
        return found | ({"system_role": "fold"} if self.fold_system else {})


PLAIN = ChatStyle()


class _Generation(Extension):
    """The tag ``generation`` of transformers' templates, which marks a part and changes none."""

    tags = {"generation"}  # noqa: RUF012 (as jinja has it)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True)
class Names:
    """What a template reads beside its messages; ``random``: what of it draws at random."""

    arguments: frozenset[str] = frozenset()
    clock: bool = False
    random: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def names_in(template: str) -> Names:
    """What a template's text names. Nothing, where it is no template: rendering it says so."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols", _Generation], autoescape=False)
    try:
        tree = environment.parse(template)
        unknown = meta.find_undeclared_variables(tree)
    except (TemplateSyntaxError, RecursionError):
        return Names()
    loaded = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}
    drawn = {node.name for node in tree.find_all(nodes.Filter)} | loaded
    return Names(frozenset(unknown) - _ENVIRONMENT, _CLOCK in loaded, tuple(sorted(drawn & set(_RANDOM))))


def told(tokenizer: Any, style: ChatStyle) -> dict[str, Any]:
    """What ``apply_chat_template`` is given beside the messages. Raises ValueError: there is no template."""
    how = style.arguments
    template = tokenizer.get_chat_template()
    if names_in(template).clock:
        how["chat_template"] = _macro(_on(style.date or DEFAULT_DATE)) + template
    return how


def reads_day(tokenizer: Any) -> bool:
    """Whether the template asks for today's date in some chats. Raises ValueError: there is no template."""
    return names_in(tokenizer.get_chat_template()).clock


def _macro(body: str) -> str:
    # The line break ends a line of its own, so that blanks before the template's first tag are stripped as ever.
    return f"{{% macro {_CLOCK}(format) %}}{body}{{% endmacro %}}\n"


@lru_cache(maxsize=64)
def _on(day: str) -> str:
    """``strftime`` of one day, as a template."""
    when, change = date.fromisoformat(day), [("%%", _PERCENT)]
    for letter in _DIRECTIVES:
        change += [(f"%{flag}{letter}", when.strftime(f"%{flag}{letter}")) for flag in ("", "-")]
    replaced = "".join(f" | replace({what!r}, {by!r})" for what, by in [*change, (_PERCENT, "%")])
    return "{{ format" + replaced + " }}"


def prepared(chat: Sequence[Message], style: ChatStyle) -> list[dict[str, str]]:
    """The messages as the template is given them."""
    messages = [dict(message) for message in chat]
    return folded(messages) if style.fold_system else messages


def folded(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Every system message in front of the user's turn after it, with an empty line between.

    One without a turn of the user after it becomes one.
    """
    found: list[dict[str, str]] = []
    before: list[str] = []
    for message in messages:
        if message["role"] == "system":
            before.append(message["content"])
        elif message["role"] == "user" and before:
            found.append({**message, "content": "\n\n".join([*before, message["content"]])})
            before = []
        else:
            found.append(dict(message))
    return [*found, {"role": "user", "content": "\n\n".join(before)}] if before else found


def rendered(tokenizer: Any, chat: Sequence[Message], style: ChatStyle = PLAIN, *, answers: bool = True) -> str:
    """A chat as text, up to where the answer begins (with ``answers``). Raises whatever the template raises."""
    return str(
        tokenizer.apply_chat_template(
            prepared(chat, style), tokenize=False, add_generation_prompt=answers, **told(tokenizer, style)
        )
    )


def reads_clock(tokenizer: Any, chat: Sequence[Message], style: ChatStyle = PLAIN) -> bool:
    """Whether the template asks for the day where it writes this chat (it may do so in some chats alone)."""
    template = tokenizer.get_chat_template()
    if not names_in(template).clock:
        return False
    stopped = _macro("{{ raise_exception(" + repr(_CLOCK_WAS_READ) + ") }}") + template
    try:
        tokenizer.apply_chat_template(
            prepared(chat, style),
            tokenize=False,
            add_generation_prompt=True,
            **(told(tokenizer, style) | {"chat_template": stopped}),
        )
    except TemplateError as error:
        return str(error) == _CLOCK_WAS_READ
    except Exception:  # the chat can't be written at all: its row says why
        return False
    return False


# --------------------------------------------------------------------------- what can be known before a chat


def template_problem(tokenizer: Any, style: ChatStyle = PLAIN) -> str | None:
    """Why no chat, or none twice alike, can be written with the template, in one line; ``None``: nothing known."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        return "its tokenizer has no chat template; use an instruction-tuned model"
    random = names_in(template).random
    if random:
        return f"its chat template draws at random ({random[0]}), so that no row could be made again; give it another"
    refusals = [_refusal(tokenizer, roles, style) for roles in (("user",), ("system", "user"))]
    if refusals[0] is not None and refusals[1] is not None:
        what = f"{type(refusals[0]).__name__}: {' '.join(str(refusals[0]).split())}"
        return f"its chat template refuses every chat ({what}); give it what it asks for, or another model"
    return None


def argument_problem(tokenizer: Any, style: ChatStyle) -> str | None:
    """The first of the arguments that the template does not take: ``name: why; remedy``."""
    given = style.arguments
    if not given:
        return None
    reads = names_in(tokenizer.get_chat_template()).arguments - _taken(tokenizer)
    for name in given:
        if name in _taken(tokenizer):
            return f"{name}: is not the job's to give: transformers, or the tokenizer, does; remove it"
        if name not in reads:
            named = ", ".join(sorted(reads)) or "nothing"
            return f"{name}: the chat template never reads it (it reads {named}); remove it"
    return None


def _taken(tokenizer: Any) -> frozenset[str]:
    """Names that a template gets from elsewhere."""
    signature = inspect.signature(tokenizer.apply_chat_template).parameters
    own = {"messages", "conversations", "self", *tokenizer.special_tokens_map}
    return frozenset(signature) | own | _ENVIRONMENT


def _refusal(tokenizer: Any, roles: Sequence[str], style: ChatStyle) -> Exception | None:
    """Why the template does not write a chat of such roles; ``None``: it does."""
    try:
        rendered(tokenizer, _sample(roles), style)
    except Exception as error:  # a template may raise anything
        return error.with_traceback(None)
    return None


@dataclass(frozen=True)
class Fate:
    """What becomes of a chat of some roles; ``what``: the matter, in words. ``of_system``: folding would mend it."""

    what: str
    of_system: bool


@lru_cache(maxsize=1024)
def fate_of(tokenizer: Any, roles: tuple[str, ...], style: ChatStyle = PLAIN) -> Fate | None:
    """Whether the template refuses a chat of such roles for its system message, or drops the text of a turn in silence.

    ``None``: neither. (An assistant's turn may be shortened: templates leave out what was thought. What it refuses for
    another reason, its rendering says.)
    """
    refused = _refusal(tokenizer, roles, style)
    if refused is not None:
        folding = ChatStyle(style.arguments_json, style.date, fold_system=True)
        if "system" in roles and _refusal(tokenizer, roles, folding) is None:
            says = " ".join(str(refused).split()) or type(refused).__name__
            return Fate(f"the chat template refuses a chat with a system message ({says!r})", of_system=True)
        return None
    sample = _sample(roles)
    text = rendered(tokenizer, sample, style).casefold()
    lost = [message["role"] for message in sample if message["content"].casefold() not in text]
    if "system" in lost:
        return Fate("the chat template leaves out a system message in silence", of_system=True)
    if "user" in lost:
        return Fate("the chat template leaves out a turn of the user in silence", of_system=False)
    return None


def _sample(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"mqzx{index}kw"} for index, role in enumerate(roles)]
