"""The contract of a row: which cell it fills, its id and its seed.

A *cell* is prompt x persona x sample index. A row's id is a hash of everything its text depends
on, and of nothing else: not of time, host, worker, batch or the personas' and prompts' names. It
gives resume, deduplication and seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from personas.attributes import Persona
from personas.prompts import Prompt, canonical_json

# Hex digits of a row id: 128 bits, so that no two rows of any data set collide.
ROW_ID_DIGITS = 32
# Of what a row's identity is made of. It was the tables' schema version once, and stays at its last value: a table may
# gain a column, but the ids of rows that exist never change.
_IDENTITY_VERSION = 3


@dataclass(frozen=True)
class Cell:
    """One text to write."""

    prompt: Prompt
    persona: Persona
    sample_index: int


@dataclass(frozen=True)
class Grid(Sequence[Cell]):
    """All cells of a job: prompt x persona x sample, the cells of one prompt side by side.

    Its length is known and any cell can be had by position without building the others.
    """

    prompts: Sequence[Prompt]
    personas: Sequence[Persona]
    samples_per_cell: int = 1

    def __len__(self) -> int:
        return len(self.prompts) * len(self.personas) * self.samples_per_cell

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> list[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | list[Cell]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # negative indices and IndexError as in any sequence
        position, sample = divmod(position, self.samples_per_cell)
        prompt, persona = divmod(position, len(self.personas))
        return Cell(self.prompts[prompt], self.personas[persona], sample)

    def __iter__(self) -> Iterator[Cell]:
        return (self[i] for i in range(len(self)))


def row_id(
    cell: Cell,
    *,
    model: str,
    adapters: Mapping[str, str],
    decoder: Mapping[str, Any],
    seed: int,
    prompts: Mapping[str, Any] | None = None,
    control_tokens: str | None = None,
    template: Mapping[str, Any] | None = None,
) -> str:
    """The id of a cell's row: 32 hex digits of the SHA-256 of all that its text depends on.

    Whatever is added to it later has to be left out where it changes nothing that is drawn (as ``prompts`` is), or
    every row of every data set becomes another one.

    Args:
        cell: its prompt's messages, its persona's weights above zero and its sample index count.
        model: id and revision of the reference model.
        adapters: attribute -> revision or hash of its adapter.
        decoder: settings by name; numbers, text, null and mappings of them.
        seed: of the run.
        prompts: who reads something else than the cell's prompt -> what they read.
        template: what the model's chat template is told beside the messages, and which tokens end a text, where that
            is not what it always was.
        control_tokens: how a text that holds control tokens is read, where it is not as them; ``None``: no text does.

    Raises:
        ValueError: a setting that is not finite. TypeError: one that JSON can't hold.
    """
    identity: dict[str, Any] = {
        "messages": cell.prompt.as_chat(),
        "weights": cell.persona.active,
        "sample_index": cell.sample_index,
        "model": model,
        "adapters": adapters,
        "decoder": decoder,
        "seed": seed,
        "schema_version": _IDENTITY_VERSION,
    }
    if prompts:
        identity["prompts"] = dict(prompts)
    if template:
        identity["template"] = dict(template)
    if control_tokens is not None:
        identity["control_tokens"] = control_tokens
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:ROW_ID_DIGITS]


def row_seed(run_seed: int, row_id: str) -> int:
    """The seed of a row's random stream, in [0, 2^63): from run seed and row id alone."""
    digest = hashlib.sha256(f"{run_seed}:{row_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
