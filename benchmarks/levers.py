"""What each lever of a decoder does alone: ``python -m benchmarks.levers``.

A job is run once as it is and once with each lever moved: who is told what the attributes are like, in which words,
at which strength, by which aggregate, strengths of its attributes as ``mpg calibrate`` chooses them, texts chosen by
one judge; beside it stand the decoders that people would take instead. Prompts, personas and the run's seed are the
same throughout. The table says how many texts were drawn for each, how many carry all of their persona's attributes
(joint adherence), their mean score, and their perplexity under the reference that is told nothing: compare at equal
perplexity. What the other judge than the one that chooses says of a line stands in columns of its own. Killed, the same
command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from evaluation.tables import aligned
from personas.telling import DEFAULT_WORDING, WORDINGS
from pipeline.calibrate.run import Asked, calibrate
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job
from pipeline.plan.errors import RunError
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.read import NoTexts, read_data_set
from pipeline.run.run import run_job

ROOT = Path(__file__).parent.parent
# Two types with no pole in common, so that what a model writes anyway can't carry both.
_TYPES = [{"name": name, "weights": dict.fromkeys(name, 0.25)} for name in ("ENTJ", "ISFP")]
_DEMO = (f"attributes={json.dumps([*'ENTJISFP'])}", f"personas={json.dumps({'kind': 'explicit', 'weights': _TYPES})}")
# From what each lever is moved: the product at twice the trained strength, untold.
BASE = ("decoder.name=scr-exact", "decoder.aggregate=product", "decoder.strength=2", "decoder.tell=none")
CHOOSES = "classifier"
_JUDGES = f"judges=[{{kind: {CHOOSES}}}, {{kind: encoder}}]"
_ACCEPT = f"accept={{min_score: 0.7, rows_per_cell: 1, max_candidates: 8, by: [{CHOOSES}]}}"
_OTHER_WORDINGS = tuple(name for name in WORDINGS if name != DEFAULT_WORDING)

# Name -> what is changed of the base.
LEVERS: dict[str, tuple[str, ...]] = {
    "base": (),
    **{f"tell {who}": (f"decoder.tell={who}",) for who in ("reference", "all")},
    **{f"tell all, {words}": ("decoder.tell=all", f"decoder.wording={words}") for words in _OTHER_WORDINGS},
    **{f"strength {strength}": (f"decoder.strength={strength}",) for strength in (1, 3, 4)},
    "sum": ("decoder.aggregate=sum",),
    "prompting": ("decoder.name=prompting",),
    **{f"prompting, {words}": ("decoder.name=prompting", f"decoder.wording={words}") for words in _OTHER_WORDINGS},
    "soup": ("decoder.name=soup",),
    "accept": (_ACCEPT,),
    "prompting, accept": ("decoder.name=prompting", _ACCEPT),
    "soup, accept": ("decoder.name=soup", _ACCEPT),
}
# Its settings are what a pilot finds: the largest lift that all attributes have at no more than 1.25 times the
# reference's perplexity.
CALIBRATED = "calibrated"
_BUDGET, _GRID, _PILOT_TEXTS = 1.25, (0.5, 1.0, 1.5, 2.0, 3.0), 20
_SMOKE = ("prompts.limit=1", "decoder.max_new_tokens=4")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, help="job file whose levers are moved (default: the demo's, two types)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "levers", help="folder: a data set a lever")
    parser.add_argument("--prompts", type=int, default=40)
    names = [*LEVERS, CALIBRATED]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="LEVER")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of every job")
    parser.add_argument("--smoke", action="store_true", help="one prompt and four tokens: whether it runs")
    options = parser.parse_args(arguments)
    if options.prompts < 1:
        parser.error(f"--prompts: {options.prompts} is none; give 1 or more")
    of_all = _SMOKE if options.smoke else (f"prompts.limit={options.prompts}",)
    lines = []
    for name in options.only:
        changes = [*of_all, *options.set]
        try:
            if name == CALIBRATED:
                changes.append(calibrated(options.job, options.output, changes))
            job = job_of(name, options.job, options.output, changes)
            run_job(job)
        except JobError as error:
            parser.error("\n".join(error.lines))
        except RunError as error:
            parser.error(f"{name}: {error}")
        lines.append([name, *_measured(job.output_folder)])
    print(f"{date.today()}, from {', '.join(BASE)}")
    head = ["lever", "texts", "drawn", "joint", "score", "joint by the other", "score by the other", "perplexity"]
    print(aligned(head, lines))


def job_of(lever: str, path: Path | None, output: Path, changes: Sequence[str] = ()) -> Job:
    """The job with a lever moved.

    Args:
        path: of the job file; ``None``: the demo's, with two types for personas.
        output: folder of all levers' data sets.
    """
    folder = output.resolve() / lever.replace(", ", "-").replace(" ", "-")
    moved = [
        *(_DEMO if path is None else ()), _JUDGES, *BASE, *LEVERS.get(lever, ()), *changes, f"output={folder}"
    ]  # fmt: skip
    return load_job(ROOT / "workflows" / "demo.yaml" if path is None else path, moved)


def calibrated(path: Path | None, output: Path, changes: Sequence[str]) -> str:
    """The change of strengths that a pilot of the base finds; a note and none, where no strengths are within budget."""
    asked = Asked(budget=_BUDGET, grid=_GRID, texts=_PILOT_TEXTS)
    found = calibrate(job_of("base", path, output, changes), asked, output.resolve() / "calibration")
    print(f"{CALIBRATED}: {', '.join(f'{name} {strength:.3g}' for name, strength in found.strengths.items())}")
    if found.choice.lift is None:
        print(f"{CALIBRATED}: nothing is within {_BUDGET} times the reference's perplexity: the base's strengths")
    return f"decoder.strength={json.dumps(dict(found.strengths))}"


def _measured(folder: Path) -> list[str]:
    """A line's cells. Without ``accept`` by both judges, too."""
    try:
        other = Measures(read_data_set(folder, [CHOOSES]))
    except NoTexts:
        return ["0", *["-"] * 6]
    accept = other.of.run.get("accept")
    n = int((~other.of.control).sum())
    both = ["-", "-"]
    if accept is None:
        measures = Measures(read_data_set(folder))
        both = [measures.joint.shown, measures.adherence.shown]
    drawn = "1" if accept is None else f"{accept['candidates'] / n:.1f}"
    return [f"{n}", drawn, *both, other.joint.shown, other.adherence.shown, f"{other.perplexity:.2f}"]


if __name__ == "__main__":
    main()
