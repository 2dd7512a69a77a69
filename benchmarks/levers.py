"""What each lever of a decoder does alone: ``python -m benchmarks.levers``.

A job is run once as it is and once with each lever moved: who is told what the attributes are like, in which words,
at which strength, by which aggregate; beside it stand the decoders that people would take instead. Prompts, personas
and the run's seed are the same throughout. The table says how many texts carry all of their persona's attributes (joint
adherence), their mean score, and their perplexity under the reference that is told nothing: compare at equal
perplexity. Killed, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from evaluation.tables import aligned
from personas.telling import DEFAULT_WORDING, WORDINGS
from pipeline.job.load import load_job
from pipeline.job.model import Job
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.read import read_data_set
from pipeline.run.run import run_job

ROOT = Path(__file__).parent.parent
# Two types with no pole in common, so that what a model writes anyway can't carry both.
_TYPES = [{"name": name, "weights": dict.fromkeys(name, 0.25)} for name in ("ENTJ", "ISFP")]
_DEMO = (f"attributes={json.dumps([*'ENTJISFP'])}", f"personas={json.dumps({'kind': 'explicit', 'weights': _TYPES})}")
# From what each lever is moved: the product at twice the trained strength, untold.
BASE = ("decoder.name=scr-exact", "decoder.aggregate=product", "decoder.strength=2", "decoder.tell=none")
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
}
_SMOKE = ("prompts.limit=1", "decoder.max_new_tokens=4")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=Path, help="job file whose levers are moved (default: the demo's, two types)")
    parser.add_argument("--output", type=Path, default=ROOT / "out" / "levers", help="folder: a data set a lever")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--only", nargs="*", choices=list(LEVERS), default=list(LEVERS), metavar="LEVER")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of every job")
    parser.add_argument("--smoke", action="store_true", help="one prompt and four tokens: whether it runs")
    options = parser.parse_args(arguments)
    of_all = _SMOKE if options.smoke else (f"prompts.limit={options.prompts}",)
    lines = []
    for name in options.only:
        job = job_of(name, options.job, options.output, (*of_all, *options.set))
        run_job(job)
        lines.append([name, *_measured(job.output_folder)])
    print(f"{date.today()}, from {', '.join(BASE)}")
    print(aligned(["lever", "texts", "joint adherence", "mean score", "perplexity"], lines))


def job_of(lever: str, path: Path | None, output: Path, changes: Sequence[str] = ()) -> Job:
    """The job with a lever moved.

    Args:
        path: of the job file; ``None``: the demo's, with two types for personas.
        output: folder of all levers' data sets.
    """
    folder = output.resolve() / lever.replace(", ", "-").replace(" ", "-")
    moved = [*(_DEMO if path is None else ()), *BASE, *LEVERS[lever], *changes, f"output={folder}"]
    return load_job(ROOT / "workflows" / "demo.yaml" if path is None else path, moved)


def _measured(folder: Path) -> list[str]:
    measures = Measures(read_data_set(folder))
    n = int((~measures.of.control).sum())
    return [f"{n}", measures.joint.shown, measures.adherence.shown, f"{measures.perplexity:.2f}"]


if __name__ == "__main__":
    main()
