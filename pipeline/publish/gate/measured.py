"""What the gate knows of a data set: counts, adherence and perplexity by persona, what it was made and judged with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from evaluation.statistics.aggregate import PANEL_RULES, Mean
from pipeline.job.fields import Decoder
from pipeline.publish.report.measures import Measures, OfPersona
from pipeline.publish.report.read import DataSet, read_data_set, read_rows
from pipeline.store.dataset import FOLDERS
from pipeline.store.layout import files_in
from pipeline.store.manifest import files_of

MOST_COMPARED = 20_000  # texts that are looked at for near-duplicates
_ADDED = "metadata_"  # columns of the prompts' own, which come and go with them


@dataclass(frozen=True, eq=False)
class Measured:
    """See the module.

    Attributes:
        name: that it is called by in what is said.
        of: as it was read.
    """

    name: str
    of: DataSet

    @classmethod
    def at(cls, folder: Path, name: str) -> Measured:
        """Of a whole data set on this machine. Raises ReportError: it can't be read."""
        return cls(name, read_data_set(folder))

    @cached_property
    def measures(self) -> Measures:
        return Measures(self.of)

    @property
    def rows(self) -> int:
        return self.of.n

    @cached_property
    def rejected(self) -> tuple[int, int]:
        """Rows that were rejected, and that were planned."""
        counts = self.run.get("counts", {})
        n = _whole(counts.get("rejected"))
        return n, max(_whole(counts.get("planned")), self.rows + n)

    @cached_property
    def unscored(self) -> tuple[int, int]:
        """Judgments without a score, and all, of the judges that count: of each every text by all that it judges."""
        wanted = sum(self.rows * len(names) for names in self._judged_by.values())
        counted = [self.of.judges.index(label) for label in self._judged_by]
        return wanted - int(np.count_nonzero(~np.isnan(self.of.given[:, :, counted]))), wanted

    @cached_property
    def _judged_by(self) -> dict[str, set[str]]:
        """Judge that counts -> the attributes that it has judged any text by."""
        found: dict[str, set[str]] = {label: set() for label in self.of.counting}
        for path in files_in(self.of.folder / FOLDERS["judgments"]):
            pairs = pq.read_table(path, columns=["judge", "attribute"]).group_by(["judge", "attribute"]).aggregate([])
            for row in pairs.to_pylist():
                if row["judge"] in found:
                    found[row["judge"]].add(row["attribute"])
        return found

    @cached_property
    def personas(self) -> dict[str, OfPersona]:
        return {each.name: each for each in self.measures.personas}

    @cached_property
    def adherence(self) -> dict[str, Mean]:
        """Persona -> its mean; those that are to carry nothing that is judged have none."""
        return {name: each.adherence for name, each in self.personas.items() if each.adherence.value is not None}

    @property
    def perplexity(self) -> float:
        return self.measures.perplexity

    @property
    def judges(self) -> tuple[str, ...]:
        """Labels, with versions, of those whose scores count."""
        return self.of.counting

    @property
    def panel(self) -> str:
        """The rule by which several judges' scores are one."""
        rule = self.of.job.get("panel")
        return str(rule) if rule in PANEL_RULES else PANEL_RULES[0]

    @property
    def run(self) -> dict[str, Any]:
        return self.of.run

    @property
    def interval(self) -> str | None:
        found = self.of.job.get("interval")
        return found if isinstance(found, str) else None

    @cached_property
    def files(self) -> dict[str, str]:
        """File -> SHA-256, of its tables."""
        return {name: str(entry["sha256"]) for name, entry in files_of(self.of.folder).items()}

    @cached_property
    def columns(self) -> dict[str, str]:
        """``table.column`` -> its type."""
        found: dict[str, str] = {}
        for name, place in FOLDERS.items():
            for path in list(files_in(self.of.folder / place))[:1]:
                schema = pq.read_schema(path)
                found |= {f"{name}.{each.name}": str(each.type) for each in schema if not each.name.startswith(_ADDED)}
        return found

    @cached_property
    def made_with(self) -> dict[str, str]:
        """What a row's text may depend on and is no measure, in words."""
        adapters = self.run.get("adapters")
        known = adapters if isinstance(adapters, Mapping) else {}
        versions = self.run.get("versions")
        return {
            "interval": self.interval or "none",
            "model": str(self.run.get("model")),
            "adapters": ", ".join(f"{name} {value}" for name, value in known.items()) or "unknown",
            "decoder": ", ".join(self.of.decoders),
            **self._decoder_settings,
            "judges": ", ".join(self.judges) or "none",
            "panel": self.panel,
            **{f"version of {name}": str(v) for name, v in (versions if isinstance(versions, dict) else {}).items()},
        }

    @property
    def _decoder_settings(self) -> dict[str, str]:
        """As the job says them; what an older record lacks is the default, as it was."""
        given = self.of.job.get("decoder")
        if not isinstance(given, Mapping):
            return {}
        found = {**Decoder.model_validate({}).model_dump(mode="json"), **given}
        del found["name"]
        return {f"decoder.{name}": json.dumps(value, sort_keys=True) for name, value in found.items()}

    def n_repeats(self, most: Mapping[str, int]) -> tuple[int, int]:
        """How many texts almost repeat an earlier one of their persona, and of how many, in the files' order.

        Args:
            most: persona -> texts of it that are looked at.
        """
        from evaluation.statistics.duplicates import near_duplicates

        wanted = [
            np.flatnonzero(self.of.persona_of == index)[: most.get(name, 0)]
            for index, name in enumerate(self.of.personas)
        ]
        texts = np.sort(np.concatenate(wanted)).tolist() if wanted else []
        rows = read_rows(self.of, texts, ["response", "persona"])
        found = near_duplicates([str(row["response"]) for row in rows], [row["persona"] for row in rows])
        return found.n_repeats, found.n_texts


def repeats_of(new: Measured, old: Measured | None) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Of both, of as many texts a persona: the more texts, the more of them are alike."""
    n = {name: each.n for name, each in new.personas.items()}
    if old is not None:
        shared = {name: min(size, old.personas[name].n) for name, size in n.items() if name in old.personas}
        n = shared or n
    each = max(1, MOST_COMPARED // max(1, len(n)))
    most = {name: min(size, each) for name, size in n.items()}
    return new.n_repeats(most), None if old is None else old.n_repeats(most)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
