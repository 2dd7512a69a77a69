"""What each column means, for people: the data set's card shows it. A column of the schema without words here is a
mistake that a test finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.store.schema import TABLES

_CELL = {
    "row_id": "Names the row by all that its text depends on; the same job gives the same ids.",
    "prompt_id": "Names the prompt, as its source does, or by a hash of its messages.",
    "prompt": "The chat that the text answers.",
    "persona": "Readable name of the persona; `reference` is the control, the reference model alone.",
    "profile": "Who the (invented) persona is, in words; null where it has none.",
    "personality": "What the persona is like, in words; null where it has none.",
    "system": "The system message that the reference model read before the prompt; null for none.",
    "attributes": "The attributes with a weight above 0, in the job's order; empty for the control.",
    "weights": "Their weights, in the order of `attributes`; they sum to 1.",
    "sample_index": "Counts the texts of one prompt and persona, from 0.",
}

_PERSONA = {
    "prompt_id": _CELL["prompt_id"],
    "persona": "Whose text is taught.",
    "attributes": _CELL["attributes"],
    "weights": _CELL["weights"],
}
_OF_ROW = {"row_id": "The text that is taught: joins with `row_id` of `default`.", **_PERSONA}
# Table, or form to train on -> column -> what it means, in Markdown.
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "generations": {
        **_CELL,
        "response": "The text that the model wrote.",
        "finish_reason": "`stop`: it ended by itself; `length`: it was cut off at `max_new_tokens`.",
        "n_tokens": "Tokens of the text, the one that ended it included.",
        "strengths": "Exponents of the attributes' density ratios, in the order of `attributes`; 1: as trained.",
        "log_prob_reference": "Log-probability of the text under the reference model, given `system` and the prompt, "
        "in nats, at the decoder's temperature.",
        "log_ratios": "Of each of `attributes`: log-probability of the text under its preference model less that under "
        "the model it was trained from, in nats.",
        "decoder": "How the text was drawn.",
        "exact": "Whether the decoder samples its target exactly.",
        "acceptance_rate": "Share of the drafts that was accepted (tokens; for `scr`: chunks); null where nothing is "
        "drafted.",
        "n_chunks": "Chunks that were drafted; 0 for decoders that go token by token.",
        "n_clipped": "Of `scr` and `sequence-rejection`: chunks whose density ratio was above the bound, which biases "
        "the text towards the reference.",
        "n_salvaged": "Of `scr`: rejected chunks of which the longest accepted prefix was kept.",
        "n_fallbacks": "Of `scr`: tokens drawn from the target after too many rejections; of `sequence-rejection`: 1 "
        "if no response was accepted.",
        "tv_bound": "Estimated bound on the total variation distance between a chunk's law and its target; 0 for exact "
        "decoders, null where none is known.",
        "model": "The reference model, id@revision.",
        "adapters": "Revisions of the adapters, in the order of `attributes`.",
        "dtype": "Number format of the weights.",
        "seed": "The row's own seed, made from the run's seed and the row's id.",
        "config_hash": "Of the decoder's settings that texts depend on.",
        "tokens": "The text's pieces, one a token, which join to `response`; null where the job did not ask for them.",
        "token_log_ratios": "Each token's share of `log_ratios`, in nats: a list for each of `attributes`, a number "
        "for each of `tokens`; null where the job did not ask for them.",
        "log_prob_untold": "The same as `log_prob_reference` of the reference model that is not told what the "
        "attributes are like: what texts are compared by. Null where `system` does not say it, so that "
        "`log_prob_reference` is that (and in rows of `prompting` before schema 6).",
    },
    "judgments": {
        "row_id": "The text that was judged: joins with `row_id` of `default`.",
        "attribute": "What it was judged on.",
        "judge": "Who judged, name@version.",
        "score": "How far the text carries the attribute, 0 to 1; null unless `status` is `ok`: unscored is not zero.",
        "status": "`ok`, `parse_error`, `refused`, `throttled` or `failed`.",
        "rationale": "The judge's reason, or why there is no score; null where it gives none.",
        "prompt_tokens": "Tokens that the judge read; null for judges that count none.",
        "completion_tokens": "Tokens that the judge wrote; null for judges that count none.",
        "judged_hash": "Of what was judged (text, prompt, persona); null before schema 4.",
    },
    "rejected": {
        **{name: f"{said.removesuffix('.')}; null for a row of the source." for name, said in _CELL.items()},
        "reason": "Why there is no text, in a word.",
        "message": "The same in a sentence.",
        "source": "Of a row of the prompts' source that is no prompt: where it stands.",
        "raw": "That row as it stands there, cut where it is very long.",
    },
    "messages": {**_OF_ROW, "messages": "The chat with its answer."},
    "prompt-completion": {**_OF_ROW, "prompt": "The chat.", "completion": "Its answer."},
    "preference": {
        "chosen_row_id": "The text that was judged better: joins with `row_id` of `default`.",
        "rejected_row_id": "The other one.",
        **_PERSONA,
        "rejected_persona": "Whose text the other one is.",
        "chosen_score": "What the better text has of the persona's attributes, by their weights, 0 to 1.",
        "rejected_score": "What the other one has of them.",
        "prompt": "The chat.",
        "chosen": "The better answer.",
        "rejected": "The other answer.",
    },
}
METADATA = "metadata_"
_OF_METADATA = "From the prompt's source; null where that prompt has none."


def meaning_of(table: str, column: str) -> str:
    """What a column means, in Markdown; empty for one that nobody described."""
    found = MEANINGS.get(table, {}).get(column)
    return found if found is not None else _OF_METADATA if column.startswith(METADATA) else ""


def type_of(feature: Any) -> str:
    """A column's type in words, of what `datasets` writes into a card: ``list of text``, ``float64``."""
    if isinstance(feature, list):
        return "{" + ", ".join(f"{each['name']}: {type_of(each)}" for each in feature) + "}"
    if isinstance(feature, Mapping):
        for name in ("list", "sequence", "large_list"):
            if name in feature:
                return f"list of {type_of(feature[name])}"
        return type_of(feature.get("dtype", feature.get("struct", "null")))
    return {"string": "text", "large_string": "text", "bool": "true or false", "null": "none"}.get(
        str(feature), str(feature)
    )


def undescribed(schemas: Mapping[str, pa.Schema] = TABLES) -> list[str]:
    """Columns of tables or forms that :data:`MEANINGS` lacks, and those there that they lack: ``table.column``."""
    found = {f"{table}.{name}" for table, schema in schemas.items() for name in schema.names}
    return sorted(found ^ {f"{table}.{name}" for table in schemas for name in MEANINGS.get(table, ())})
