"""The decode stage: one model bank a process, and the DoFns that turn planned cells into rows."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from mpg.settings import Completion, DecoderSettings, Request
from pipeline.cells import PlannedCell, Sources
from pipeline.progress import Ticker
from pipeline.shards import shard_name, write_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Cells that one worker decodes together and writes as one file."""

    cells: tuple[PlannedCell, ...]


@dataclass
class DecodedShard:
    """What a worker made of a shard: rows, dead letters, and the time it took (for `run.json` only)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    started_s: float = 0.0
    ended_s: float = 0.0


class Handle:
    """A process's model bank and the lock that keeps threads from sharing a forward pass."""

    def __init__(self, sources: Sources, n_workers: int) -> None:
        import torch
        from accelerate import PartialState
        from transformers.utils import logging as transformers_logging

        from mpg import ModelBank

        transformers_logging.disable_progress_bar()  # the run has a bar of its own
        if n_workers > 1:
            # Processes that share a machine's cores must not each claim them all.
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // n_workers))
        self.lock = threading.Lock()
        self.bank = ModelBank.load(
            sources.model,
            dict(sources.adapters),
            dict(sources.references),
            revision=sources.hub_revision,
            dtype=getattr(torch, sources.dtype),
            device=PartialState().device,
        )
        if self.bank.tokenizer.chat_template is None:
            raise ValueError(
                f"model {sources.model}: its tokenizer has no chat template; use an instruction-tuned model"
            )


class RejectedCell(Exception):
    """A cell that can't be decoded; ``reason`` is a word, the text says why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DecodeFn(beam.DoFn):
    """Decode every cell of a shard; a cell that can't be goes to the dead letters, alone."""

    def __init__(self, sources: Sources, *, batch_size: int, n_workers: int, progress: str) -> None:
        self._sources, self._batch_size, self._n_workers, self._progress = sources, batch_size, n_workers, progress
        self._shared = Shared()

    def setup(self) -> None:
        self._handle: Handle = self._shared.acquire(lambda: Handle(self._sources, self._n_workers), tag=self._sources)
        self._ticker = Ticker(Path(self._progress))

    def teardown(self) -> None:
        self._ticker.close()

    def process(self, shard: Shard) -> Iterator[DecodedShard]:
        result = DecodedShard(started_s=time.time())
        prompts: dict[str, Prompts] = {}
        for cell in shard.cells:
            try:
                prompts[cell.row_id] = encode(self._handle.bank, cell)
            except RejectedCell as error:
                result.rejected.append(cell.columns() | {"reason": error.reason, "message": str(error)})
                self._ticker.tick()
        rows: dict[str, dict[str, Any]] = {}
        with self._handle.lock:
            for settings in dict.fromkeys(_hashable(cell.decoder) for cell in shard.cells):
                cells = [c for c in shard.cells if c.row_id in prompts and _hashable(c.decoder) == settings]
                for cell, completion in self._decode(cells, prompts):
                    rows[cell.row_id] = to_row(self._handle.bank, cell, completion, self._sources)
        result.rows = [rows[cell.row_id] for cell in shard.cells if cell.row_id in rows]
        result.ended_s = time.time()
        yield result

    def _decode(
        self, cells: list[PlannedCell], prompts: dict[str, Prompts]
    ) -> Iterable[tuple[PlannedCell, Completion]]:
        from mpg import decode

        if not cells:
            return []
        requests = [_request(cell, prompts[cell.row_id]) for cell in cells]
        completions = decode(
            self._handle.bank,
            requests,
            cells[0].decoder,
            batch_size=self._batch_size,
            on_done=lambda index, completion: self._ticker.tick(),
        )
        return zip(cells, completions, strict=True)


def _hashable(settings: DecoderSettings) -> str:
    return repr(settings)


@dataclass(frozen=True)
class Prompts:
    """Prompt tokens: of the reference, and of the attributes that read something else."""

    reference: list[int]
    own: dict[str, list[int]]


def _request(cell: PlannedCell, prompts: Prompts) -> Request:
    return Request(prompts.reference, dict(cell.weights), cell.seed, prompts.own)


def request_of(bank: Any, cell: PlannedCell) -> Request:
    """A cell as the engine takes it. Raises RejectedCell, see :func:`encode`."""
    return _request(cell, encode(bank, cell))


def encode(bank: Any, cell: PlannedCell) -> Prompts:
    """Prompt tokens through the model's own chat template.

    Raises:
        RejectedCell: an empty prompt, text that is not valid Unicode, or one too long for the model.
    """
    if not any(content.strip() for role, content in cell.messages if role == "user"):
        raise RejectedCell("empty_prompt", "the prompt has no text; give it some or remove it")
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


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard: its file (none if every cell was rejected), row ids, and counts."""

    path: str | None
    row_ids: tuple[str, ...]
    n_rejected: int
    n_tokens: int
    started_s: float
    ended_s: float


class WriteFn(beam.DoFn):
    """Write a decoded shard's rows and dead letters; only then does the shard count as done."""

    def __init__(self, work: str) -> None:
        self._work = work

    def process(self, shard: DecodedShard) -> Iterator[WrittenShard]:
        work = Path(self._work)
        ids = tuple(row["row_id"] for row in shard.rows)
        path = None
        if shard.rejected:
            name = shard_name(row["row_id"] for row in shard.rejected)
            write_rows(shard.rejected, "rejected", work / "rejected" / name)
        if shard.rows:
            path = str(work / "generations" / shard_name(ids))
            write_rows(shard.rows, "generations", Path(path))
        yield WrittenShard(
            path=path,
            row_ids=ids,
            n_rejected=len(shard.rejected),
            n_tokens=sum(row["n_tokens"] for row in shard.rows),
            started_s=shard.started_s,
            ended_s=shard.ended_s,
        )
