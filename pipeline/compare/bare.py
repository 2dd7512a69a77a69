"""Texts under the bare reference: told nothing, at the base's temperature, whoever wrote them and whatever they read.

All arms are measured alike: the text as the tokenizer reads it, without the token that ended it. (What a row says of
its reference, `log_prob_reference`, is of the reference as that arm told it, over the tokens as they were drawn.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.compare.banks import keep_loaded
from pipeline.job.model import Job
from pipeline.store.files import exists, read_parquet, write_bytes

logger = logging.getLogger(__name__)

FILE = "bare.parquet"
SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("log_prob", pa.float64(), nullable=False),  # nats
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Bare:
    """A text under the bare reference: its log-probability in nats, over so many tokens; 0 of both without any."""

    log_prob: float
    n_tokens: int


class BareBook:
    """What is known of texts by their row ids and the reference's temperature, in a file of the comparison's folder."""

    def __init__(self, output: Path) -> None:
        """What can't be understood is said, and worked out again. Raises OSError: the file can't be read."""
        self._path = output / FILE
        self._known: dict[tuple[str, float], Bare] = {}
        if exists(self._path):
            try:
                found = read_parquet(self._path).cast(SCHEMA).to_pylist()
            except (pa.ArrowException, ValueError) as error:
                logger.warning("%s: is not what a comparison writes (%s); worked out again", self._path, error)
                found = []
            for row in found:
                self._known[row["row_id"], row["temperature"]] = Bare(row["log_prob"], row["n_tokens"])

    def of(self, job: Job, dtype: str, temperature: float, rows: Sequence[Mapping[str, Any]]) -> list[Bare]:
        """Of an arm's rows; those that are new are scored and noted.

        Args:
            job: that wrote them. dtype: that it was computed in. rows: ``row_id``, ``prompt``, ``response``.

        Raises:
            RunError: the model can't be loaded. OSError: the file can't be written.
        """
        new = [row for row in rows if (row["row_id"], temperature) not in self._known]
        if new:
            self._known |= {(key, temperature): bare for key, bare in _scored(job, dtype, temperature, new)}
            self._write()
        return [self._known[row["row_id"], temperature] for row in rows]

    def _write(self) -> None:
        import io

        import pyarrow.parquet as pq

        found = [{"row_id": key, "temperature": t, **vars(bare)} for (key, t), bare in self._known.items()]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(found, schema=SCHEMA), buffer)
        write_bytes(buffer.getvalue(), self._path)


def _scored(job: Job, dtype: str, temperature: float, rows: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, Bare]]:
    from mpg.models.chat import encode_chat
    from mpg.score.texts import reference_log_probs
    from pipeline.decode.bank import ProcessBank
    from pipeline.decode.machine import passes_of
    from pipeline.plan.computed_with import cores
    from pipeline.plan.plan import Plan

    plan = Plan.of(job, dtype, job.attribute_names)
    handle = ProcessBank(plan.sources, threads=job.threads or cores(), batch_size=job.batch_size, load=keep_loaded)
    tokenizer, as_text = handle.bank.tokenizer, job.control_tokens == "text"
    texts, found = list[tuple[list[int], list[int]]](), dict[str, Bare]()
    scored = []
    for row in rows:
        response = tokenizer(row["response"], add_special_tokens=False).input_ids
        if response:
            prompt = encode_chat(tokenizer, row["prompt"], as_text=as_text, style=plan.sources.style)
            texts.append((prompt, response))
            scored.append(row["row_id"])
        else:
            found[row["row_id"]] = Bare(0.0, 0)
    with passes_of(handle.threads):
        log_probs = reference_log_probs(handle.bank, texts, temperature=temperature, batch_size=job.batch_size)
    for row_id, each in zip(scored, log_probs, strict=True):
        found[row_id] = Bare(float(each.sum()), len(each))
    return found.items()
