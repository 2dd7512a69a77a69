"""Between planned cells and rows: prompts in tokens, completions and dead letters as rows of the data contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpg.request import Completion, Request
from pipeline.plan.cells import PlannedCell, Sources


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
    """Prompt tokens through the model's own chat template.

    Raises:
        RejectedCell: an empty prompt, text that is not valid Unicode, or one too long for the model.
    """
    if not any(content.strip() for role, content in cell.messages if role == "user"):
        raise RejectedCell("empty_prompt", "the prompt has no text; give it some or remove it")
    for role, content in cell.messages:
        half = next((char for char in content if "\ud800" <= char <= "\udfff"), None)
        if half is not None:
            raise RejectedCell("encoding", f"the {role}'s text holds half a surrogate pair ({half!r}); remove it")
    own = {name: _encode(bank, cell, chat) for name, chat in cell.own_chats().items()}
    return Prompts(_encode(bank, cell, cell.reference_chat()), own)


def _encode(bank: Any, cell: PlannedCell, chat: list[dict[str, str]]) -> list[int]:
    try:
        ids = bank.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    except Exception as error:  # a tokenizer or a template may raise anything: one row's text is at fault
        raise RejectedCell("encoding", f"{type(error).__name__}: {error}") from error
    needed = len(ids) + cell.decoder.max_new_tokens
    if bank.max_positions is not None and needed > bank.max_positions:
        raise RejectedCell(
            "too_long",
            f"{len(ids)} prompt tokens and {cell.decoder.max_new_tokens} new ones exceed the model's "
            f"{bank.max_positions}",
        )
    return [int(i) for i in ids]


def to_dead_letter(cell: PlannedCell, reason: str, message: str) -> dict[str, Any]:
    """A row of the table ``rejected``; what UTF-8 can't hold is spelled out in it."""

    def storable(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, dict):
            return {name: storable(each) for name, each in value.items()}
        return [storable(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = storable(cell.columns() | {"reason": reason, "message": message})
    return found


def to_row(bank: Any, cell: PlannedCell, completion: Completion, sources: Sources) -> dict[str, Any]:
    """A generation row under the data contract; nothing in it depends on time, host or batch."""
    revisions = dict(sources.adapter_revisions)
    return cell.columns() | {
        "response": bank.tokenizer.decode(completion.token_ids, skip_special_tokens=True).strip(),
        "finish_reason": completion.finish_reason,
        "n_tokens": len(completion.token_ids),
        "strengths": [cell.decoder.strength_of(name) for name, _ in cell.weights],
        "log_prob_reference": completion.log_prob_reference,
        "log_ratios": [completion.log_ratios[name] for name, _ in cell.weights],
        "decoder": cell.decoder.name,
        "exact": completion.exact,
        "acceptance_rate": completion.acceptance_rate,
        "n_chunks": completion.n_chunks,
        "n_clipped": completion.n_clipped,
        "n_salvaged": completion.n_salvaged,
        "n_fallbacks": completion.n_fallbacks,
        "tv_bound": completion.tv_bound,
        "model": sources.model_label,
        "adapters": [revisions[name] for name, _ in cell.weights],
        "dtype": sources.dtype,
        "seed": cell.seed,
        "config_hash": cell.config_hash,
    }
