"""A plan on storage: prompts and personas, in order, each once, where every worker reads what it needs of them.

What travels through Beam is :class:`StoredPlan`, whose size does not depend on the grid's, and places in that grid
(:mod:`pipeline.beam.to_do`): a cell's place gives its prompt, persona and sample by ``divmod``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from personas import Cell, Grid, Message, Persona, Prompt
from pipeline.plan.cells import PlannedCell
from pipeline.plan.rule import Rule
from pipeline.store.copies import here
from pipeline.store.files import listing, make_folder, remove_tree, write_bytes
from pipeline.store.places import expanded

PLANS = "plan"  # in the work folder: a folder for the plan's content
_DONE = "whole"  # in it, last
_GROUP = 1024  # prompts, or personas, that are read at once
_GROUPS_KEPT = 8
T = TypeVar("T")


@dataclass(frozen=True)
class StoredPlan:
    """How a worker finds the plan.

    Attributes:
        rule: its sources as they travel, where workers are elsewhere (:mod:`pipeline.beam.travel`).
        folder: of the prompts and personas.
        samples: of each cell of the grid.
    """

    rule: Rule
    folder: str
    samples: int

    def grid(self) -> Grid:
        """The grid, of which only what is asked for is read. Raises OSError."""
        folder = here(expanded(self.folder))
        prompts = _Records(folder / "prompts.parquet", _prompt_of)
        return Grid(prompts, _Records(folder / "personas.parquet", _persona_of), self.samples)

    def cells(self, grid: Sequence[Cell], places: Sequence[int], tokenizer: Any) -> list[PlannedCell]:
        """The cells at some places."""
        return self.rule.cells((grid[place] for place in places), tokenizer, places)


def content_of(grid: Grid) -> str:
    """A name for a grid's prompts and personas, in their order: what a stored plan's folder is called."""
    digest = hashlib.sha256()
    for each in chain(map(_of_prompt, grid.prompts), map(_of_persona, grid.personas)):
        digest.update(each.encode() + b"\n")
    return digest.hexdigest()[:24]


def store_plan(work: Path, rule: Rule, grid: Grid) -> StoredPlan:
    """Write a grid's prompts and personas into the work folder, unless they are there. Raises OSError.

    Texts are JSON in ASCII: a prompt that is no valid Unicode is a dead letter with its reason, not an error here.
    """
    folder = work / PLANS / content_of(grid)
    if _DONE not in listing(folder):
        remove_tree(work / PLANS)  # of other plans: nobody asks for them again
        make_folder(folder)
        write_bytes(_table(map(_of_prompt, grid.prompts)), folder / "prompts.parquet")
        write_bytes(_table(map(_of_persona, grid.personas)), folder / "personas.parquet")
        write_bytes(b"", folder / _DONE)
    return StoredPlan(rule, str(folder), grid.samples_per_cell)


class PlannedCells(Sequence[PlannedCell]):
    """The planned cells of a grid whose cells all come to rows of their own, each made when it is asked for.

    Args:
        grid: see :meth:`pipeline.plan.plan.Plan.distinct`. tokenizer: of the reference.
    """

    def __init__(self, rule: Rule, grid: Grid, tokenizer: Any) -> None:
        self._rule, self._grid, self._tokenizer = rule, grid, tokenizer

    def __len__(self) -> int:
        return len(self._grid)

    @overload
    def __getitem__(self, place: int) -> PlannedCell: ...
    @overload
    def __getitem__(self, place: slice) -> list[PlannedCell]: ...
    def __getitem__(self, place: int | slice) -> PlannedCell | list[PlannedCell]:
        places = range(len(self))[place]
        if isinstance(places, int):
            return self.at([places])[0]
        return self.at(places)

    @property
    def n_control(self) -> int:
        """How many have control tokens in their texts."""
        return self._rule.n_control(self._grid, self._tokenizer)

    def n_control_of(self, drawn: NDArray[np.int32]) -> int:
        """The same of the first few samples of each prompt and persona.

        Args:
            drawn: how many: [prompts x personas].
        """
        prompts, personas = map(np.array, self._rule.marked(self._grid, self._tokenizer))
        return int(drawn.reshape(len(prompts), -1)[prompts[:, None] | personas[None, :]].sum(dtype=np.int64))

    def at(self, places: Sequence[int]) -> list[PlannedCell]:
        """Those at some places."""
        return self._rule.cells((self._grid[place] for place in places), self._tokenizer, places)


class _Records(Sequence[T]):
    """What a Parquet file holds, by places; only those groups are read that are asked for."""

    def __init__(self, path: Path, made: Callable[[Any], T]) -> None:
        file = pq.ParquetFile(path, memory_map=True)
        self._n = file.metadata.num_rows
        self._group = lru_cache(_GROUPS_KEPT)(lambda i: file.read_row_group(i).column(0))
        self._made = lru_cache(_GROUP)(lambda i: made(json.loads(self._group(i // _GROUP)[i % _GROUP].as_py())))

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(self._n))]
        return self._made(range(self._n)[place])


def _table(records: Iterable[str]) -> bytes:
    sink, schema = pa.BufferOutputStream(), pa.schema([pa.field("json", pa.string(), nullable=False)])
    records = iter(records)
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        while group := list(islice(records, _GROUP)):
            writer.write_table(pa.table([group], schema=schema), row_group_size=_GROUP)
    return sink.getvalue().to_pybytes()


def _of_prompt(prompt: Prompt) -> str:
    return json.dumps([prompt.prompt_id, [[message.role, message.content] for message in prompt.messages]])


def _prompt_of(record: list[Any]) -> Prompt:
    return Prompt(record[0], tuple(Message(role, content) for role, content in record[1]))


def _of_persona(persona: Persona) -> str:
    mappings = {name: dict(getattr(persona, name)) for name in ("weights", "strengths")}
    return json.dumps({"name": persona.name, **mappings, **persona.texts})


def _persona_of(record: dict[str, Any]) -> Persona:
    return Persona(**record)
