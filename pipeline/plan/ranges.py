"""What is left to do of a plan, divided as the plan alone divides it."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from pipeline.plan.cells import PlannedCell


def shards_of(
    cells: Sequence[PlannedCell], to_do: AbstractSet[str], size: int, dead: AbstractSet[str] = frozenset()
) -> tuple[list[list[PlannedCell]], list[list[PlannedCell]]]:
    """What is left to do, as shards. The plan alone divides it: a shard that was not finished is made again as it was.

    Returns:
        those of the plan; what is left of others that are there in part (the plan has grown, a run was stopped), put
        together anew.

    Args:
        to_do: ids of rows to write. dead: of those that can't be; they are tried again where their shard's others are.
    """
    whole: list[list[PlannedCell]] = []
    left: list[PlannedCell] = []
    for first in range(0, len(cells), size):
        shard = list(cells[first : first + size])
        mine = [cell for cell in shard if cell.row_id in to_do]
        if mine and all(cell.row_id in to_do or cell.row_id in dead for cell in shard):
            whole.append(shard)
        else:
            left += mine
    return whole, [left[i : i + size] for i in range(0, len(left), size)]
