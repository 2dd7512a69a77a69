"""The card's template: Jinja2, the one that ships or an author's own, which may replace single blocks of it.

What a template puts in is escaped unless it is Markdown already (:class:`pipeline.publish.card.words.Md`), so that no
template can forget it; ``| markdown`` says that a value of its own (a macro's) is meant as Markdown. Templates come
from job files and, with their data sets, from others: they run in Jinja2's sandbox.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import (
    FunctionLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    Undefined,
    nodes,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from personas.text import one_line
from pipeline.job.model import Job
from pipeline.publish.card.words import Md, code, inline
from pipeline.store.copies import here
from pipeline.store.places import joined

TEMPLATE = Path(__file__).with_name("card.md")
# What an author's template extends to replace blocks of the one that ships.
SHIPPED, OWN = "card.md", "the template"
# Templates are a few kilobytes; they are kept in run.json.
MOST_BYTES = 1_000_000


class TemplateProblem(ValueError):
    """A template that no card can be made of; one line: what, where, and the remedy."""


def template_text(job: Job) -> str | None:
    """The job's own template; ``None``: it has none.

    Raises:
        TemplateProblem: it can't be read.
    """
    given = job.card.template
    if given is None:
        return None
    where = f"card.template: {given!r} (in {str(job.folder)!r})"
    try:
        content = here(joined(job.folder, given)).read_bytes()
    except OSError as error:
        raise TemplateProblem(f"{where}: {error.strerror or 'can not be read'}; check the path") from error
    if len(content) > MOST_BYTES:
        raise TemplateProblem(f"{where}: {len(content):,} bytes are no template; at most {MOST_BYTES:,}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TemplateProblem(f"{where}: is not UTF-8 ({error.reason}); save it as such") from error


def render(text: str | None, values: Mapping[str, Any]) -> str:
    """A card's text below its front matter.

    Args:
        text: of an author's template; ``None``: the one that ships.
        values: see :func:`pipeline.publish.card.values.values_of`.

    Raises:
        TemplateProblem: one line with the line of the template and what is wrong there.
    """
    try:
        template = _environment(text).get_template(SHIPPED if text is None else OWN)
        body = template.render(values)
    except TemplateError as error:
        raise TemplateProblem(_problem(error)) from error
    except RecursionError as error:
        raise TemplateProblem("it includes or extends itself; extend 'card.md' alone") from error
    except Exception as error:  # whatever its expressions come to
        raise TemplateProblem(f"{_line(error)}{type(error).__name__}: {one_line(error)}; mend it there") from error
    if body.lstrip().startswith("---\n"):
        raise TemplateProblem("it begins with front matter; remove it: the card's own is written before the template")
    return body.strip() + "\n"


def _refuse_unheard(text: str) -> None:
    """Raises TemplateProblem: Jinja2 drops what a template that extends the one that ships has in no block of that."""
    environment = _environment(text)
    own = environment.parse(text, OWN)
    if not any(isinstance(node, nodes.Extends) for node in own.body):
        return
    theirs = [block.name for block in environment.parse(TEMPLATE.read_text("utf-8")).find_all(nodes.Block)]
    for node in own.body:
        if isinstance(node, nodes.Block) and node.name not in theirs:
            near = difflib.get_close_matches(node.name, theirs, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(theirs)}"
            raise TemplateProblem(f"line {node.lineno}: block {node.name!r} is none of card.md's; {meant}")
        if isinstance(node, nodes.Output) and not all(
            isinstance(each, nodes.TemplateData) and not each.data.strip() for each in node.nodes
        ):
            raise TemplateProblem(
                f"line {_first_line(node)}: stands in no block, and would not be shown; put it into one"
            )


def _first_line(output: nodes.Output) -> int:
    """Of what is not white space."""
    for each in output.nodes:
        if not isinstance(each, nodes.TemplateData):
            return each.lineno
        if each.data.strip():
            return each.lineno + each.data[: len(each.data) - len(each.data.lstrip())].count("\n")
    return output.lineno


def template_problem(job: Job) -> str | None:
    """What is wrong with a job's own template, in a line, known before anything is run; ``None``: nothing.

    It is tried on invented data sets: judged, and with nothing judged.
    """
    from pipeline.publish.card.sample import samples

    try:
        text = template_text(job)
        if text is not None:
            for values in samples(job):
                render(text, values)
            _refuse_unheard(text)
    except TemplateProblem as problem:
        said = str(problem)
        return said if said.startswith("card.template") else f"card.template: {job.card.template!r}: {said}"
    return None


def _environment(text: str | None) -> ImmutableSandboxedEnvironment:
    def load(name: str) -> tuple[str, str, None] | None:
        source = TEMPLATE.read_text("utf-8") if name == SHIPPED else text if name == OWN else None
        return None if source is None else (source, name, None)  # by its name in tracebacks, too

    environment = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(load),
        undefined=StrictUndefined,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # HTML's; Markdown's is `finalize`
    )
    environment.filters |= {"markdown": Md, "code": code}
    return environment


def _safe(value: Any) -> Any:
    """What stands in the card for a value; an undefined one is an error when it is made text."""
    return value if isinstance(value, Md | Undefined) else inline(value)


def _problem(error: TemplateError) -> str:
    where = _line(error)
    if isinstance(error, TemplateSyntaxError):
        where = f"line {error.lineno}: "
    if isinstance(error, TemplateNotFound):  # whose message is the name alone
        return f"{where}there is no {one_line(error.message)!r} here; extend 'card.md' alone"
    return f"{where}{one_line(error.message or type(error).__name__)}; see docs/publishing.md for what it may use"


def _line(error: BaseException) -> str:
    """``line 3: ``, of the author's template."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == OWN:
            found = trace.tb_lineno
        trace = trace.tb_next
    return "" if found is None else f"line {found}: "
