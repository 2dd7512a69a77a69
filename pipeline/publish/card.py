"""The data set's card: README.md with explicit configs, so that `datasets` opens the folder as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

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
    decoder = job.decoder
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
- {run["counts"]["rows"]} rows, {run["counts"]["rejected"]} rejected, seed {job.seed}{_partial(run)}
{_accepted(run)}- how it was made, to the version: `job.json`, `run.json`

## Judged adherence

Mean score of the judges ({_judges(run)}) by persona and attribute, 0 to 1.
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
    return ", ".join(map(code, run["judges"])) or "none"


def _partial(run: dict[str, Any]) -> str:
    """What is missing, of a data set that is not complete."""
    if run.get("ended", {"complete": True})["complete"]:
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
