"""The tasks of a comparison with what their files hold, and which of their prompts each stage may use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from personas import Message, Persona
from pipeline.compare.arms import Stage, job_of, weighed
from pipeline.compare.model import FINAL, SCREENING, Comparison, Task
from pipeline.exit_status import ExitStatus
from pipeline.plan.errors import RunError

# Of a stage: of fewer nothing could be said of how prompts differ.
LEAST_PROMPTS = 2

_Chat = tuple[Message, ...]


@dataclass(frozen=True)
class TaskOfRun:
    """A task with what its files hold.

    Attributes:
        n_screening: prompts that the screening may use, the first. skip, n_final: the final's, after so many.
    """

    task: Task
    personas: tuple[Persona, ...]
    weighed: tuple[str, ...]
    n_screening: int
    skip: int
    n_final: int

    def screening(self, comparison: Comparison) -> Stage:
        """So many prompts that there are enough texts, and samples where there are too few prompts."""
        wanted, personas = comparison.screening.texts, len(self.personas)
        limit = min(self.n_screening, max(2, -(-wanted // personas)))
        return Stage(SCREENING, 0, limit, -(-wanted // (limit * personas)))


def tasks_of(comparison: Comparison) -> dict[str, TaskOfRun]:
    """By their names. The final's prompts are none that the screening may use, of whatever task.

    Raises:
        RunError: a task has too few prompts.
    """
    jobs = [job_of(comparison, task) for task in comparison.tasks]
    chats = [[prompt.messages for prompt in job.load_prompts()] for job in jobs]
    firsts = [_first(i, task, comparison, chats[i]) for i, task in enumerate(comparison.tasks)]
    seen = {chat for own, n in zip(chats, firsts, strict=True) for chat in own[:n]}
    found = {}
    for i, (task, job, own, n) in enumerate(zip(comparison.tasks, jobs, chats, firsts, strict=True)):
        skip = _after(own, seen)
        if task.is_in(FINAL) and comparison.final.finalists and len(own) - skip < LEAST_PROMPTS:
            words = f"{len(own)}, of which {len(own) - skip} come after all that the screening may use"
            raise RunError(f"tasks[{i}].prompts: {words}; give {LEAST_PROMPTS} more at least", ExitStatus.BAD_INPUT)
        found[task.name] = TaskOfRun(task, job.build_personas(), weighed(job), n, skip, len(own) - skip)
    return found


def _first(index: int, task: Task, comparison: Comparison, own: Sequence[_Chat]) -> int:
    """How many prompts the screening may use."""
    if not task.is_in(SCREENING):
        return 0
    least = LEAST_PROMPTS * (1 + task.is_in(FINAL))
    if len(own) < least:
        stages = "two stages take two each" if task.is_in(FINAL) else "the screening takes two"
        text = f"{len(own)}, of which {stages}; give {least} at least"
        raise RunError(f"tasks[{index}].prompts: {text}", ExitStatus.BAD_INPUT)
    share = math.floor(len(own) * comparison.screening.prompts)
    return min(max(LEAST_PROMPTS, share), len(own) - LEAST_PROMPTS * task.is_in(FINAL))


def _after(own: Sequence[_Chat], seen: set[_Chat]) -> int:
    """Behind the last of those that are seen."""
    return max((i + 1 for i, chat in enumerate(own) if chat in seen), default=0)
