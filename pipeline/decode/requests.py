"""Planned cells as the engine takes them: prompts in tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpg.models.chat import encode_chat
from mpg.models.control_tokens import ControlTokenError
from mpg.models.invocation import check_prompts
from mpg.models.template import fate_of
from mpg.request import Request, stranger_in
from pipeline.plan.cells import PlannedCell


class RejectedCell(Exception):
    """A cell that can't be decoded; ``reason`` is a word, the text says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Prompts:
    """Prompt tokens: of the reference, and of the attributes that read something else."""

    reference: list[int]
    own: dict[str, list[int]]


def request_of(bank: Any, cell: PlannedCell) -> Request:
    """A cell as the engine takes it. Raises RejectedCell, see :func:`encode`."""
    prompts = encode(bank, cell)
    return Request(prompts.reference, dict(cell.weights), cell.seed, prompts.own)


def encode(bank: Any, cell: PlannedCell) -> Prompts:
    """Prompt tokens through the model's own chat template, see :mod:`mpg.models.chat`.

    Args:
        bank: what has the reference's ``tokenizer``, ``max_positions`` and ``n_embeddings``, and ``invocations`` of
            its adapters.

    Raises:
        RejectedCell: an empty prompt, text that is not valid Unicode, control tokens that the job does not take or the
            tokenizer can't spell out, a chat whose text the template does not take or drops in silence, tokens that
            the model has no embeddings for, a prompt too long for it, or one without what an adapter waits for.
    """
    if not any(content.strip() for role, content in cell.messages if role == "user"):
        raise RejectedCell("empty_prompt", "the prompt has no text; give it some or remove it")
    for role, content in cell.messages:
        half = next((char for char in content if "\ud800" <= char <= "\udfff"), None)
        if half is not None:
            raise RejectedCell("encoding", f"the {role}'s text holds half a surrogate pair ({half!r}); remove it")
    if cell.control == "reject":
        raise RejectedCell("control_tokens", "a text holds control tokens of the model; remove them, or let the job's "
                           "control_tokens be text")  # fmt: skip
    own = {name: _encode(bank, cell, chat) for name, chat in cell.own_chats().items()}
    prompts = Prompts(_encode(bank, cell, cell.reference_chat()), own)
    if cell.decoder.facts.weighted:
        try:
            check_prompts(
                getattr(bank, "invocations", {}),
                [name for name, _ in cell.weights],
                lambda name: prompts.own.get(str(name), prompts.reference),
            )
        except ValueError as error:
            raise RejectedCell("no_invocation", str(error)) from error
    return prompts


def _encode(bank: Any, cell: PlannedCell, chat: list[dict[str, str]]) -> list[int]:
    fate = fate_of(bank.tokenizer, tuple(message["role"] for message in chat), cell.style)
    if fate is not None:
        remedy = "set model.system_role: fold" if fate.of_system else "leave the chat out, or mend the template"
        raise RejectedCell("system_role" if fate.of_system else "template", f"{fate.what}; {remedy}")
    try:
        ids = encode_chat(bank.tokenizer, chat, as_text=cell.control == "text", style=cell.style)
    except ControlTokenError as error:
        raise RejectedCell("control_tokens", f"{error} (or set the job's control_tokens: allow)") from error
    except Exception as error:  # a tokenizer or a template may raise anything: one row's text is at fault
        raise RejectedCell("encoding", f"{type(error).__name__}: {error}") from error
    stranger = stranger_in(ids, bank.n_embeddings)
    if stranger is not None:
        name = bank.tokenizer.convert_ids_to_tokens(next(i for i in ids if i >= bank.n_embeddings))
        raise RejectedCell("no_embedding", f"{stranger}: the tokenizer reads {name!r} so; take it out of the text, or "
                           "resize the model's embeddings")  # fmt: skip
    needed = len(ids) + cell.decoder.max_new_tokens
    if bank.max_positions is not None and needed > bank.max_positions:
        raise RejectedCell(
            "too_long",
            f"{len(ids)} prompt tokens and {cell.decoder.max_new_tokens} new ones exceed the model's "
            f"{bank.max_positions}",
        )
    return ids
