"""The data set's card: README.md with explicit configs, so that `datasets` opens the folder as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from evaluation.items import is_independent
from evaluation.tables import code, escaped, markdown
from mpg.settings import EXACT_DECODERS
from pipeline.job.model import Job
from pipeline.publish.summary import Summary, header, table_rows
from pipeline.store.dataset import FOLDERS
from pipeline.store.shards import write_bytes

CARD_FILE = "README.md"


def write_card(output: Path, job: Job, tables: Mapping[str, pa.Table], summary: Summary, run: dict[str, Any]) -> None:
    """Write README.md: what the corpus is, how it was made, how well it carries its attributes. Raises OSError."""
    configs = [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{folder}/train-*.parquet"}]}
        | ({"default": True} if name == "generations" else {})
        for name, folder in FOLDERS.items()
        if tables[name].num_rows
    ]
    front = {
        "pretty_name": job.name,
        "language": ["en"],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "personalization", "mpg-scr"],
        "configs": configs,
    }
    decoder, judgments = job.decoder, tables["judgments"]
    table = markdown(header(summary), table_rows(summary))
    attributes = escaped(", ".join(job.attribute_names))
    exact = "approximates its target (see `tv_bound`)"
    if decoder.name in EXACT_DECODERS:
        exact = "samples its target exactly"
    text = f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()}
---

# {escaped(job.name)}

Synthetic texts by {code(run["model"])} ({run["dtype"]}), whose personality was composed at
decoding time from the attributes {attributes} (Multi-Personality Generation, arXiv 2511.01891).
No text was written by a person; the prompts are the job's.

- decoder `{decoder.name}`, aggregate `{decoder.aggregate}`, horizon {decoder.horizon}, temperature
  {decoder.temperature:g}, top-p {decoder.top_p:g}: {exact}
- {run["counts"]["rows"]} rows, {run["counts"]["rejected"]} rejected{_broken(run)}, seed {job.seed}{_partial(run)}
{_accepted(run)}- how it was made, to the version: {_made(run)}

## Judged adherence

Mean score of the judges that count ({_judges(run)}) by persona and attribute, 0 to 1.{_beside(run, judgments)}
Acceptance: share of draft tokens (`scr`: chunks) kept. Perplexity: under the reference at the decoder's temperature.
The classifier that ships was trained on pairs of the same source as
the adapters; it tells poles apart, it does not measure a person.
`±?`: fewer than three prompts, or so few that their interval says nothing.

{own_judges(run)}{table}

## Columns

`row_id` names a row by all that its text depends on. `attributes`, `weights`, `strengths`, `log_ratios` and `adapters`
run in parallel; all are empty for the control persona `reference`. `log_ratios` and `log_prob_reference` are in nats.
Config `judgments` joins on `row_id`; a `score` is null unless `status` is `ok`.
"""
    write_bytes(text.encode("utf-8", "backslashreplace"), output / CARD_FILE)


def _judges(run: dict[str, Any]) -> str:
    return ", ".join(code(label) for label in run["judges"] if is_independent(label)) or "none"


def _beside(run: dict[str, Any], judgments: pa.Table) -> str:
    """Whose judgments are there, too, and are in no mean of the table."""
    there = set(judgments.column("judge").to_pylist())
    others = sorted(there - {label for label in run["judges"] if is_independent(label)})
    return (
        f"\nConfig `judgments` has those of {', '.join(map(code, others))}, too, which are in no mean."
        if others
        else ""
    )


def _broken(run: dict[str, Any]) -> str:
    """Rows of the prompts' source that are no prompts; they stand among the rejected."""
    n = run["counts"].get("broken_prompts", 0)
    return f" (and {n} rows of the prompts' source that are no prompts)" if n else ""


def _made(run: dict[str, Any]) -> str:
    return "`job.json`, `run.json`" if _is_complete(run) else "`run.json`"


def _is_complete(run: dict[str, Any]) -> bool:
    return bool(run.get("ended", {"complete": True})["complete"])


def _partial(run: dict[str, Any]) -> str:
    """What is missing, of a data set that is not complete."""
    if _is_complete(run):
        return ""
    return f"\n- **not complete**: {escaped(run['ended']['why'])}"


def own_judges(run: Mapping[str, Any]) -> str:
    """What judges beside adapters are worth, a line each and a blank one; empty where there is none."""
    lines = [f"- {name}, by `{each['judge']}`: {each['worth']}" for name, each in run.get("own_judges", {}).items()]
    return "".join(f"{line}\n" for line in lines) + ("\n" if lines else "")


def _accepted(run: dict[str, Any]) -> str:
    found = run["accept"]
    if found is None:
        return ""
    return (
        f"- kept: of {found['candidates']} candidates the first {found['rows_per_cell']} of each prompt and persona "
        f"whose judged score is {found['min_score']:g} or more; {len(found['short'])} cells fell short. The judge that "
        "chose them also judged them below: its scores of them are no independent measure\n"
    )
