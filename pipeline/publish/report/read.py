"""A data set read for a report: numbers of every text in arrays, the texts themselves only of those that are shown."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evaluation.items import heard, of_kinds
from evaluation.statistics.aggregate import PANEL_RULES, panel
from evaluation.tables import plain
from pipeline.store.dataset import FOLDERS, JOB_FILE, RUN_FILE
from pipeline.store.manifest import DATASET_MANIFEST
from pipeline.store.schema import TABLES, NewerSchema, refuse_newer

# Without these there is no report; all other columns may be missing, as in an older schema.
_NEEDED = {
    "generations": ("row_id", "prompt_id", "persona", "attributes", "weights", "n_tokens", "log_prob_reference"),
    "judgments": ("row_id", "attribute", "judge", "score", "status"),
}
_COUNTS = ("n_chunks", "n_clipped", "n_salvaged", "n_fallbacks")
_MEASURED = ("exact", "acceptance_rate", "tv_bound", "log_prob_untold", "decoder", "finish_reason", *_COUNTS)
# Longest names that are shown, in characters.
_MOST_NAME = 60


class ReportError(ValueError):
    """A data set that no report can be made of; one line."""


class NoTexts(ReportError):
    """A folder without texts: no data set, or one of which none was kept."""


class AllRejected(ReportError):
    """A data set without texts, as all its rows were rejected.

    Attributes:
        n: rows. why: in words.
    """

    def __init__(self, folder: Path, n: int) -> None:
        self.n, self.why = n, f"all {n} rows were rejected, and rejected/ says why"
        super().__init__(f"{folder}: holds no texts: {self.why}; mend what the reasons name, and run the job again")


@dataclass(frozen=True, eq=False)
class DataSet:
    """What a report knows of a data set. Arrays are over texts, in the order of the files.

    Attributes:
        folder: it is in. name: it is called by in the report, unlike any other's there.
        run, job: ``run.json`` and ``job.json``; empty where they are missing.
        attributes: that any text has a weight above 0 of. judged: those, then all others that are judged.
        row_ids: ``[texts]``. personas: names; persona_of: ``[texts]``, index of each text's.
        prompts, prompt_of: likewise. splits: ``[texts]``, by the files' names.
        weights: ``[texts, attributes]``; 0 where a persona has none.
        n_tokens, log_probs: ``[texts]``; nats under the reference that is told nothing of the attributes.
        exact: ``[texts]``. acceptance, tv_bound: ``[texts]``, nan where unknown. counts: by column, summed.
        judges: labels, sorted. given: ``[texts, judged, judges]``, scores; nan: none.
        scores: ``[texts, judged]``, of the judges that count, by the job's rule; nan: none.
        is_judged: ``[texts, judged]``, whether a judge that counts was asked.
        statuses: (judge, status) -> judgments.
        counting: labels of judges that count for some attribute.
    """

    folder: Path
    name: str
    run: dict[str, Any]
    job: dict[str, Any]
    attributes: tuple[str, ...]
    judged: tuple[str, ...]
    row_ids: pa.Array
    personas: tuple[str, ...]
    persona_of: np.ndarray
    prompts: tuple[str, ...]
    prompt_of: np.ndarray
    splits: tuple[str, ...]
    weights: np.ndarray
    n_tokens: np.ndarray
    log_probs: np.ndarray
    exact: np.ndarray
    acceptance: np.ndarray
    tv_bound: np.ndarray
    decoders: tuple[str, ...]
    counts: dict[str, int]
    judges: tuple[str, ...]
    given: np.ndarray
    scores: np.ndarray
    is_judged: np.ndarray
    statuses: Counter[tuple[str, str]]
    counting: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.persona_of)

    @cached_property
    def control(self) -> np.ndarray:
        """Whether a text is of the reference alone, ``[texts]``."""
        return np.logical_not((self.weights > 0).any(axis=1))

    @cached_property
    def state(self) -> str:
        """Names what is in the folder: 12 hex digits that any other file, run or judgment changes."""
        digest = hashlib.sha256()
        for name in (DATASET_MANIFEST, RUN_FILE):
            path = self.folder / name
            digest.update(path.read_bytes() if path.is_file() else b"-")
        for path in _files(self.folder):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()[:12]


def read_data_set(folder: Path, not_counted: Collection[str] = ()) -> DataSet:
    """Read a data set, by the name of its job.

    Args:
        not_counted: kinds of judges whose scores count no more than those of the judges that chose its texts.

    Raises:
        ReportError: no data set there, one that can't be read, or of a later schema; AllRejected: one without texts.
    """
    try:
        return _read(folder, not_counted)
    except (OSError, pa.ArrowException) as error:
        raise ReportError(f"{folder}: can't be read ({_line(error)}); mpg verify says what is damaged") from error


def _read(folder: Path, not_counted: Collection[str]) -> DataSet:
    table, splits = _table(folder, "generations", _MEASURED)
    run, job = _json(folder / RUN_FILE), _json(folder / JOB_FILE)
    if table is None or not table.num_rows:
        counts = run.get("counts")
        rejected = counts.get("rejected") if isinstance(counts, dict) else 0
        if isinstance(rejected, int) and rejected:
            raise AllRejected(folder, rejected)
        raise NoTexts(f"{folder}: holds no texts in data/*.parquet; give the folder of a data set of mpg run")
    codes, personas = _coded(table.column("persona"))
    prompt_of, prompts = _coded(table.column("prompt_id"))
    found, weights = _weights(table)
    said = [each.get("name") for each in job.get("attributes", ()) if isinstance(each, dict)]
    order = [each for each in said if each in found] + [each for each in found if each not in said]
    row_ids = table.column("row_id").combine_chunks()
    judgments, _ = _table(folder, "judgments", ())
    judged = _Judged.of(judgments, row_ids, order, run, job, not_counted)
    counts = {each: int(pc.sum(table.column(each)).as_py() or 0) for each in _COUNTS}
    return DataSet(
        folder=folder,
        name=plain(str(run.get("job") or job.get("name") or folder.resolve().name), _MOST_NAME),
        run=run,
        job=job,
        attributes=tuple(order),
        row_ids=row_ids,
        personas=personas,
        persona_of=codes,
        prompts=prompts,
        prompt_of=prompt_of,
        splits=splits,
        weights=weights[:, [found.index(each) for each in order]],
        n_tokens=_numbers(table.column("n_tokens")),
        log_probs=_numbers(pc.coalesce(table.column("log_prob_untold"), table.column("log_prob_reference"))),
        exact=np.asarray(pc.fill_null(table.column("exact"), False)),
        acceptance=_numbers(table.column("acceptance_rate")),
        tv_bound=_numbers(table.column("tv_bound")),
        decoders=tuple(sorted({each for each in pc.unique(table.column("decoder")).to_pylist() if each})),
        counts=counts,
        **vars(judged),
    )


def _files(folder: Path, name: str | None = None) -> list[Path]:
    """Parquet files, of one kind of table or of all; those that are hidden are half written."""
    places = [FOLDERS[name]] if name else sorted(FOLDERS.values())
    return [p for place in places for p in sorted((folder / place).glob("*.parquet")) if p.name[0] != "."]


def _table(folder: Path, name: str, more: Sequence[str]) -> tuple[pa.Table | None, tuple[str, ...]]:
    """Columns of a table from its files, and of each row the split that its file is of."""
    tables, splits = [], list[str]()
    for path in _files(folder, name):
        tables.append(_columns(path, name, (*_NEEDED[name], *more)))
        splits += [path.name.partition("-")[0]] * tables[-1].num_rows
    return (pa.concat_tables(tables) if tables else None), tuple(splits)


def _columns(path: Path, name: str, wanted: Sequence[str]) -> pa.Table:
    """Columns of a file; one that it lacks is null. Raises ReportError: one is needed, or the schema is a later one."""
    file = pq.ParquetFile(path)
    try:
        refuse_newer(file.schema_arrow)
    except NewerSchema as error:
        raise ReportError(f"{path}: {error}") from error
    there = set(file.schema_arrow.names)
    for each in wanted:
        if each in _NEEDED[name] and each not in there:
            raise ReportError(f"{path}: has no column {each!r}; give the folder of a data set of mpg run")
    read = file.read(columns=[each for each in wanted if each in there])
    columns = {}
    for each in wanted:
        kind = TABLES[name].field(each).type if each in TABLES[name].names else None
        if each not in there:
            columns[each] = pa.nulls(read.num_rows, kind or pa.null())
        else:
            columns[each] = read.column(each) if kind is None else read.column(each).cast(kind)
    return pa.table(columns)


def read_rows(data_set: DataSet, indices: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Columns of some texts, file by file, so that no more than a file's is held at a time.

    Args:
        indices: of texts, rising.
        columns: one that a file lacks is ``None``.
    """
    rows: list[dict[str, Any]] = []
    first, wanted = 0, np.asarray(indices, dtype=np.int64)
    for path in _files(data_set.folder, "generations"):
        file = pq.ParquetFile(path)
        there = [each for each in columns if each in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            n = file.metadata.row_group(group).num_rows
            mine = wanted[(wanted >= first) & (wanted < first + n)] - first
            if len(mine):
                found = file.read_row_group(group, columns=there).take(pa.array(mine)).to_pylist()
                rows += [dict.fromkeys(columns) | row for row in found]
            first += n
    return rows


def read_judgments(data_set: DataSet, row_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Row id -> its judgments with their reasons, of some texts."""
    wanted = pa.array(list(row_ids), pa.string())
    found: dict[str, list[dict[str, Any]]] = {}
    for path in _files(data_set.folder, "judgments"):
        table = _columns(path, "judgments", (*_NEEDED["judgments"], "rationale"))
        for row in table.filter(pc.is_in(table.column("row_id"), value_set=wanted)).to_pylist():
            found.setdefault(row["row_id"], []).append(row)
    return found


def _coded(column: pa.ChunkedArray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values as indices into the different ones, in the order in which they appear."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.indices.to_numpy(), tuple(coded.dictionary.to_pylist())


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """As float64; null is nan."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _weights(table: pa.Table) -> tuple[list[str], np.ndarray]:
    """Attributes with a weight above 0, as they appear, and the weights, ``[texts, attributes]``."""
    lists = table.column("attributes").combine_chunks()
    coded = lists.flatten().dictionary_encode()
    names = coded.dictionary.to_pylist()
    weights = np.zeros((table.num_rows, len(names)))
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    values = _numbers(table.column("weights").combine_chunks().flatten())
    if len(values) != len(coded):
        raise ReportError("data: a row has more or fewer weights than attributes; mpg verify says what is damaged")
    weights[np.repeat(np.arange(table.num_rows), lengths), coded.indices.to_numpy()] = values
    used = (weights != 0).any(axis=0)
    return [name for name, there in zip(names, used, strict=True) if there], weights[:, used]


@dataclass(frozen=True)
class _Judged:
    """What judges gave, see :class:`DataSet`."""

    judged: tuple[str, ...]
    judges: tuple[str, ...]
    given: np.ndarray
    scores: np.ndarray
    is_judged: np.ndarray
    statuses: Counter[tuple[str, str]]
    counting: tuple[str, ...]

    @classmethod
    def of(
        cls,
        table: pa.Table | None,
        row_ids: pa.Array,
        attributes: Sequence[str],
        run: dict[str, Any],
        job: dict[str, Any],
        not_counted: Collection[str],
    ) -> _Judged:
        n = len(row_ids)
        if table is None or not table.num_rows:
            empty = np.full((n, len(attributes)), np.nan)
            return cls(tuple(attributes), (), empty[:, :, None][:, :, :0], empty, empty > 0, Counter(), ())
        place = pc.index_in(table.column("row_id"), value_set=row_ids).combine_chunks()
        table, place = table.filter(pc.is_valid(place)), place.drop_null().to_numpy()  # of texts that are gone: none
        of_attribute, names = _coded(table.column("attribute"))
        of_judge, labels = _coded(table.column("judge"))
        judged = (*attributes, *(each for each in names if each not in attributes))
        column = np.array([judged.index(each) for each in names], dtype=int)[of_attribute] if names else of_attribute
        given = np.full((n, len(judged), len(labels)), np.nan)
        asked = np.zeros(given.shape, dtype=bool)
        scores = _numbers(table.column("score"))
        asked[place, column, of_judge] = True
        scored = ~np.isnan(scores)  # a row judged twice keeps its score
        given[place[scored], column[scored], of_judge[scored]] = scores[scored]
        statuses = Counter(
            {
                (row["judge"], row["status"]): row["judge_count"]
                for row in table.group_by(["judge", "status"]).aggregate([("judge", "count")]).to_pylist()
            }
        )
        known = run["judges"] if isinstance(run.get("judges"), list) else labels
        accept = run.get("accept")
        chose = (accept.get("by") if isinstance(accept, dict) else None) or ()
        counts = heard(of_kinds(known, {*chose, *not_counted}, but=True))
        counted = np.array([[counts(label, each) for label in labels] for each in judged], dtype=bool)
        counted = counted.reshape(len(judged), len(labels))
        rule = job.get("panel") if job.get("panel") in PANEL_RULES else PANEL_RULES[0]
        return cls(
            judged,
            tuple(labels),
            given,
            _panel(np.where(counted, given, np.nan), str(rule)),
            (asked & counted).any(axis=2),
            statuses,
            tuple(sorted(label for label, some in zip(labels, counted.T, strict=True) if some.any())),
        )


def _panel(given: np.ndarray, rule: str) -> np.ndarray:
    """One score of several judges', ``[texts, judged]``; where at most one gave any, a mean or median is that one."""
    n_voices = (~np.isnan(given)).sum(axis=2)
    scores = np.where(n_voices > 0, np.nansum(given, axis=2), np.nan)
    several = n_voices > (0 if rule == "majority" else 1)
    for i, j in zip(*np.nonzero(several), strict=True):
        found = panel([None if np.isnan(each) else float(each) for each in given[i, j]], rule)
        scores[i, j] = np.nan if found is None else found
    return scores


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
