"""Between planned cells and rows: prompts in tokens, completions and dead letters as rows of the data contract."""

from __future__ import annotations

from typing import Any

from mpg.models.ends import answer_text
from mpg.models.pieces import answer_pieces
from mpg.request import Completion
from personas.text import storable
from pipeline.plan.cells import PlannedCell, Sources


def to_dead_letter(cell: PlannedCell, reason: str, message: str) -> dict[str, Any]:
    """A row of the table ``rejected``; what UTF-8 can't hold is spelled out in it."""
    found: dict[str, Any] = storable(cell.columns() | {"reason": reason, "message": message})
    return found


def to_row(bank: Any, cell: PlannedCell, completion: Completion, sources: Sources) -> dict[str, Any]:
    """A generation row under the data contract; nothing in it depends on time, host or batch."""
    revisions, terms = dict(sources.adapter_revisions), completion.token_log_ratios
    return cell.columns() | {
        "response": answer_text(bank.tokenizer, completion.token_ids, bank.eos_ids),
        "finish_reason": completion.finish_reason,
        "n_tokens": len(completion.token_ids),
        "strengths": [cell.decoder.strength_of(name) for name, _ in cell.weights],
        "log_prob_reference": completion.log_prob_reference,
        "log_prob_untold": completion.log_prob_untold,
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
        "tokens": None if terms is None else answer_pieces(bank.tokenizer, completion.token_ids, bank.eos_ids),
        "token_log_ratios": None if terms is None else [terms[name] for name, _ in cell.weights],
    }
