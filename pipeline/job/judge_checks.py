"""What a job's judges may have wrong, and whether they can say which texts pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evaluation.items import is_independent, why_uncounted
from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE, OwnJudge
from evaluation.judges.weights_card import JudgeWeightsError
from personas.words import show
from pipeline.job.adapters import folder_of, own_judges
from pipeline.job.errors import Problem, did_you_mean
from pipeline.job.judge_fields import ClassifierJudge
from pipeline.job.known import choosing, counted, is_remote
from pipeline.job.model import Job


def _choosing_problems(job: Job) -> Iterator[Problem]:
    """Kinds of judges that choose and are none of the job's, or leave none to report what they chose."""
    if job.accept is None or job.accept.by is None:
        return
    kinds = list(dict.fromkeys(spec.kind for spec in job.judges))
    for index, kind in enumerate(job.accept.by):
        if kind not in kinds:
            yield Problem(
                f"accept.by[{index}]", f"{kind!r} is no kind of this job's judges; {did_you_mean(kind, kinds)}"
            )
        elif not is_independent(kind):
            yield Problem(f"accept.by[{index}]", f"{kind!r} does not count ({why_uncounted(kind)}); name another")
    if all(kind in job.accept.by for kind in kinds if is_independent(kind)):
        text = f"{show(list(job.accept.by))} leaves no judge that counts to say what they chose; add one to judges"
        yield Problem("accept.by", text)


def judge_problems(job: Job) -> Iterator[Problem]:
    """What judges lack: a description to grade by, files beside an adapter, an attribute that counts for ``accept``."""
    if any(map(is_remote, job.judges)):
        for index, (entry, described) in enumerate(zip(job.attributes, job.described_attributes(), strict=True)):
            here = entry.adapter is None or folder_of(job, entry) is not None
            if here and not described.description:  # else its card may have one, once it is downloaded
                remedy = "which a judge behind an endpoint grades by; give one here, or to mpg train --description"
                yield Problem(f"attributes[{index}].description", f"{described.name!r} has none, {remedy}")
    wrong = list(_choosing_problems(job))
    yield from wrong
    try:
        own = own_judges(job)
    except JudgeWeightsError as error:
        remedy = f"fit it again with mpg train, or remove {WEIGHTS_FILE} and {CARD_FILE} there"
        yield Problem("attributes", f"{error}; {remedy}")
        return
    if job.accept is not None and not wrong:
        yield from accept_problems(job, own)


def accept_problems(job: Job, own: Mapping[str, OwnJudge]) -> Iterator[Problem]:
    """Attributes and personas whose texts no judge could let pass; an adapter that is not here may have a judge."""
    judged = counted(choosing(job), job.attribute_names, own)
    if any(isinstance(spec, ClassifierJudge) for spec in choosing(job)):
        judged += [each.name for each in job.attributes if each.adapter and folder_of(job, each) is None]
    poor = [f"{name}: {each.worth}" for name, each in own.items() if name not in judged]
    beside = f" ({'; '.join(poor)})" if poor else ""
    if not judged:
        names = ", ".join(job.attribute_names)
        yield Problem("accept", f"no independent judge of this job knows {names}{beside}; add one to judges")
    for persona in job.build_personas():
        if judged and persona.active and not any(name in judged for name in persona.active):
            names = ", ".join(persona.active)
            yield Problem(
                "accept", f"no independent judge of this job knows {names} of persona {persona.name!r}{beside}; add one"
            )
            return
