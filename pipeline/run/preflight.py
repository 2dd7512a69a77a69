"""All that can be known of a job before a model's weights are loaded: what `mpg check` says and a run looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mpg.models.embedded import PREFIX, EmbeddedModelError, unpacked
from mpg.models.ends import Ends
from mpg.models.template import fate_of
from mpg.settings import DEFAULT_DATE
from personas import Cell, Persona, Prompt, control
from pipeline.beam.at_work import problem_of
from pipeline.decode.requests import RejectedCell, encode
from pipeline.job.model import Job
from pipeline.plan.computed_with import cores
from pipeline.plan.defaults import default_problem
from pipeline.plan.errors import RunError
from pipeline.plan.plan import Plan
from pipeline.plan.read_with import problem_with
from pipeline.plan.sources import SourcesUnreachable, chat_style
from pipeline.publish.card import template_problem
from pipeline.run.judges import judge_problems, rubric_problems
from pipeline.run.trained import trained_otherwise
from pipeline.store.errors import what_happened
from pipeline.store.interval import interval_problem
from pipeline.store.look import in_use, output_problem

# Prompts (each under each system message that it is read with) that are put into tokens at most: seconds.
MOST_READ = 20_000
_REMEDIES = {
    "too_long": "shorten them, or lower decoder.max_new_tokens",
    "empty_prompt": "give them a text",
    "control_tokens": "remove those, or set control_tokens: text",
    "no_invocation": "put the adapter's invocation tokens into them, or into the attribute's system message",
    "system_role": "set model.system_role: fold",
    "no_embedding": "take those out, or resize the model's embeddings",
}


@dataclass(frozen=True)
class Findings:
    """What a look at a job found, in lines.

    Attributes:
        problems: it can't run so: field, value, remedy.
        notes: worth a word.
        unknown: what could not be looked at, and why.
        unreachable: who can't be asked now, the Hub or a job service of Beam's: a run can't begin.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()


def preflight(
    job: Job,
    prompts: Sequence[Prompt],
    beam_arguments: Sequence[str] = (),
    *,
    runs: bool = True,
    asks: bool = True,
) -> Findings:
    """Look at Beam's options, the output, the judges, models and adapters, and at every prompt in tokens.

    Nothing is written, no weights of a model are loaded.

    Args:
        runs: whether the job is to be run: else judges behind endpoints need no keys, and prompts that can't be
            decoded are notes.
        asks: whether the run asks its judges.
    """
    problems, notes, unknown, unreachable = list[str](), list[str](), list[str](), list[str]()
    if beam_arguments:
        from pipeline.beam.arguments import look_at
        from pipeline.beam.options import cost_note

        wrong, silent, words = look_at(beam_arguments, job.output)
        problems, unreachable, notes = problems + wrong, unreachable + silent, notes + words
        if job.device_price and not wrong:
            notes += filter(None, [cost_note(beam_arguments)])
    output = job.output_folder
    unusable = output_problem(output)
    problems += filter(None, [unusable])
    if unusable is None:
        problems += filter(None, [interval_problem(output, job.interval), default_problem(output, job)])
    notes += filter(None, [in_use(output), problem_of(output)])
    problems += judge_problems(job, keys=runs and asks)
    problems += filter(None, [template_problem(job)])
    if job.threads is not None and job.threads > cores():
        notes.append(f"threads: {job.threads}, where this machine (or OMP_NUM_THREADS) gives {cores()}: it is slower")
    try:
        if job.model.id.startswith(PREFIX) and unpacked(job.model.id) is None:
            unknown.append("prompts: not looked at in tokens: the first run unpacks the embedded model")
        else:
            plan = Plan.of(job, "float32", unreachable=unreachable)
            problems += rubric_problems(job) if not unreachable else []
            problems += filter(None, [problem_with(output, plan)]) if unusable is None else []
            notes += end_notes(plan.tokenizer, plan.ends)
            if not unreachable:
                with_system = any(message.role == "system" for prompt in prompts for message in prompt.messages)
                notes += trained_otherwise(plan, told=with_system or _tells(plan))
            told = _told_problem(plan)
            if told is not None:
                problems.append(told)
            else:
                found = read_prompts(plan, prompts)
                (problems if runs else notes).extend(found.problems(job.max_rejected_fraction))
                notes += found.notes(job)
    except SourcesUnreachable as error:
        unreachable.append(str(error))
        unknown.append("models, adapters and prompts in tokens are not looked at, for want of the model's tokenizer")
    except EmbeddedModelError as error:
        problems.append(f"model.id: {error}")
    except RunError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"output: {what_happened(error, output)}")
    return Findings(tuple(problems), tuple(notes), tuple(unknown), tuple(unreachable))


@dataclass
class Reading:
    """Prompts in tokens: what becomes of the cells that read them.

    Attributes:
        n_cells: looked at; ``of``: that there are.
        rejected: reason -> cells that can't be decoded; ``examples``: reason -> one of them in words.
        marked: cells with control tokens in their texts.
        dated: cells in whose chats the template reads the clock.
    """

    of: int
    n_cells: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    marked: int = 0
    dated: int = 0

    @property
    def _looked_at(self) -> str:
        return f"{self.n_cells:,}" if self.n_cells >= self.of else f"{self.n_cells:,} looked at (of {self.of:,})"

    def _rejections(self) -> str:
        each = [f"{n:,} {reason}: {self.examples[reason]}" for reason, n in self.rejected.most_common()]
        return f"{sum(self.rejected.values()):,} of {self._looked_at} texts would be rejected ({'; '.join(each)})"

    def problems(self, most: float) -> list[str]:
        """Whether more would be rejected than a share of ``most``."""
        if sum(self.rejected.values()) <= most * self.n_cells:
            return []
        remedies = [_REMEDIES[reason] for reason in self.rejected if reason in _REMEDIES] or ["mend them"]
        return [
            f"prompts: {self._rejections()}, more than max_rejected_fraction {most:g} allows; {'; '.join(remedies)}"
        ]

    def notes(self, job: Job) -> list[str]:
        """What is rejected within bounds, the texts with control tokens, and those that know the day."""
        found = []
        if self.dated and job.day is None:
            found.append(
                f"model.date: not set, and the chat template asks for today's date in {self.dated:,} of "
                f"{self._looked_at} texts: all read {DEFAULT_DATE}; set the day that they should read"
            )
        elif job.model.date is not None and not self.dated:
            found.append(f"model.date: {job.model.date}: the chat template asks for no date; remove it")
        if self.rejected and not self.problems(job.max_rejected_fraction):
            found.append(f"prompts: {self._rejections()}")
        if self.marked:
            became = {"text": "read as text", "reject": "rejected", "allow": "read as control tokens"}
            found.append(
                f"control_tokens: {job.control_tokens}: {self.marked:,} of {self._looked_at} texts hold control tokens "
                f"of the model in their prompt, system message or persona: {became[job.control_tokens]}"
            )
        return found


def read_prompts(plan: Plan, prompts: Sequence[Prompt], most: int = MOST_READ) -> Reading:
    """Put prompts into tokens as a run will; where there are more than ``most``, so many of them, evenly spread."""
    readers = _readers(plan)
    n = len(prompts) * len(readers)
    found = Reading(of=len(prompts) * sum(size for _, size in readers))
    for step in range(min(n, most)):
        index = step if n <= most else step * n // most
        prompt, (persona, size) = prompts[index // len(readers)], readers[index % len(readers)]
        (cell,) = plan.cells([Cell(prompt, persona, 0)])
        found.n_cells += size
        found.marked += size if cell.control is not None else 0
        found.dated += size if cell.reads_clock else 0
        try:
            encode(plan, cell)
        except RejectedCell as error:
            found.rejected[error.reason] += size
            found.examples.setdefault(error.reason, f"prompt {prompt.prompt_id!r}: {error}")
    return found


def end_notes(tokenizer: Any, ends: Ends) -> list[str]:
    """What is worth a word of the tokens that end a text."""
    names = ", ".join(repr(name) for name in tokenizer.convert_ids_to_tokens(sorted(ends.ids)))
    remedy = "if texts run on, add the token to eos_token_id in the model's generation_config.json"
    if not ends.ids:
        return [f"model.id: it has no end token: every text has decoder.max_new_tokens tokens; {remedy}"]
    closing = ends.closing
    if closing.token_id is None:
        if not closing.after.strip() and ends.named:  # the model's files say what no chat shows
            return []
        how = f"with {closing.after!r}, no control token" if closing.after.strip() else "with nothing"
        how = f"in a way that is {closing.after}" if closing.after.startswith("unknown") else how
        return [f"model.id: its chat template closes an answer {how}: texts end at {names} alone; {remedy}"]
    if closing.token_id not in ends.stated:
        name = tokenizer.convert_ids_to_tokens(closing.token_id)
        return [f"model.id: texts end at {name!r} too, with which its chat template closes an answer (in all: {names})"]
    return []


def _told_problem(plan: Plan) -> str | None:
    """Whether the template takes no system message, and the job gives some."""
    if _tells(plan):
        fate = fate_of(plan.tokenizer, ("system", "user"), chat_style(plan.job))
        if fate is not None and fate.of_system:
            return f"model.system_role: template: {fate.what}; set fold"
    return None


def _tells(plan: Plan) -> bool:
    """Whether the job puts a system message before some prompt."""
    facts = plan.settings.facts
    readers = [persona if facts.weighted else control() for persona, _ in _readers(plan)]
    return any(
        plan.systems.for_reference(reader, told=plan.settings.tells) is not None or plan.systems.for_attributes(reader)
        for reader in readers
    )


def _readers(plan: Plan) -> list[tuple[Persona, int]]:
    """One persona of those that are told the same before a prompt, and how many texts they write to each.

    Those whose adapters wait for tokens in it (aLoRA) are others than those whose do not.
    """
    facts = plan.settings.facts
    found: dict[tuple[object, ...], tuple[Persona, int]] = {}
    for persona in plan.job.build_personas():
        reader = persona if facts.weighted else control()
        told = plan.systems.for_reference(reader, told=plan.settings.tells)
        waiting = tuple(name for name in reader.active if name in plan.invocations)
        key = (told, waiting, *plan.systems.for_attributes(reader).items())
        first, size = found.get(key, (persona, 0))
        found[key] = (first, size + plan.job.samples_per_cell)
    return list(found.values())
