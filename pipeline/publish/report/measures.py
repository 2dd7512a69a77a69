"""What a report says of a data set in numbers: by attribute, by persona, by cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation.statistics.aggregate import Mean, clustered_mean
from evaluation.statistics.agreement import Agreement, agreements
from evaluation.statistics.control import ControlCurve, Leakage, control_curve, leakage
from evaluation.statistics.joint import carries_all, joint_adherence, share, worst_attribute
from evaluation.statistics.pareto import pareto_front, perplexity
from pipeline.publish.report.read import DataSet


@dataclass(frozen=True)
class OfPersona:
    """One persona's texts.

    Attributes:
        index: among the data set's personas. n: texts. weights: attribute -> weight, those above 0.
        adherence: mean over texts of a text's mean score of the persona's attributes; without a value for the control.
        joint: share of texts that carry all of them. worst: the attribute with the lowest mean, and that.
        perplexity: under the reference; n_tokens: of all texts.
        acceptance: mean, least and greatest; ``None`` where unknown. n_exact: texts of an exact decoder.
        tv_bound: mean and greatest; ``None`` where no text has a bound. n_unbounded: texts that are neither exact nor
            have one.
        on_front: whether no other persona has both a lower perplexity and a higher adherence.
    """

    index: int
    name: str
    n: int
    weights: dict[str, float]
    adherence: Mean
    joint: Mean
    worst: tuple[str, Mean] | None
    perplexity: float
    n_tokens: int
    acceptance: tuple[float, float, float] | None
    n_exact: int
    tv_bound: tuple[float, float] | None
    n_unbounded: int
    on_front: bool = False


@dataclass(frozen=True, eq=False)
class Measures:
    """All numbers of a data set's report; each is worked out when it is asked for."""

    of: DataSet

    @cached_property
    def clusters(self) -> list[int]:
        """One each a text: its prompt."""
        return self.of.prompt_of.tolist()

    @cached_property
    def is_judged(self) -> bool:
        """Whether any judge that counts was asked about any attribute that is weighted."""
        return bool(self.of.is_judged[:, : len(self.of.attributes)].any())

    def scores(self, column: int, texts: np.ndarray) -> tuple[list[float | None], list[int]]:
        """Scores of one attribute and their clusters, of those of some texts about which a judge was asked."""
        mine = texts[self.of.is_judged[texts, column]]
        values = self.of.scores[mine, column].tolist()
        return [None if s != s else s for s in values], self.of.prompt_of[mine].tolist()

    @cached_property
    def curves(self) -> dict[str, ControlCurve]:
        """Attribute -> its curve, over texts that are not of the reference alone; attributes that are judged."""
        found = {}
        for column, name in enumerate(self.of.attributes):
            texts = np.flatnonzero(~self.of.control & self.of.is_judged[:, column])
            if len(texts):
                scores, clusters = self.scores(column, texts)
                found[name] = control_curve(self.of.weights[texts, column].tolist(), scores, clusters)
        return found

    @cached_property
    def of_reference(self) -> dict[str, Mean]:
        """Attribute -> the mean score of the reference's own texts; empty without a control."""
        texts = np.flatnonzero(self.of.control)
        found = {name: clustered_mean(*self.scores(i, texts)) for i, name in enumerate(self.of.judged)}
        return {name: mean for name, mean in found.items() if mean.value is not None}

    @cached_property
    def leakage(self) -> Leakage | None:
        """See :func:`evaluation.statistics.control.leakage`; ``None`` where nothing is judged or weighted."""
        if not self.is_judged:
            return None
        return leakage(self.of.weights, self.of.scores, self.clusters)

    @cached_property
    def personas(self) -> tuple[OfPersona, ...]:
        """In the order in which they first appear."""
        order = np.argsort(self.of.persona_of, kind="stable")
        ends = np.searchsorted(self.of.persona_of[order], np.arange(len(self.of.personas) + 1))
        found = [self._persona(i, order[ends[i] : ends[i + 1]]) for i in range(len(self.of.personas))]
        points = [(each.perplexity, each.adherence.value) for each in found]
        front = set(pareto_front(points, more_is_better=(False, True)))
        return tuple(OfPersona(**vars(each) | {"on_front": i in front}) for i, each in enumerate(found))

    def _persona(self, index: int, texts: np.ndarray) -> OfPersona:
        of = self.of
        mine = np.flatnonzero(of.weights[texts[0]] > 0)
        asked = texts[self.is_asked[texts]]
        clusters = of.prompt_of[asked].tolist()
        scores = {
            of.attributes[j]: [None if s != s else s for s in of.scores[asked, j].tolist()]
            for j in mine[self.columns_judged[mine]]
        }
        known = of.acceptance[texts][~np.isnan(of.acceptance[texts])]
        bounds = of.tv_bound[texts][~np.isnan(of.tv_bound[texts])]
        n_tokens = int(of.n_tokens[texts].sum())
        return OfPersona(
            index=index,
            name=of.personas[index],
            n=len(texts),
            weights={of.attributes[j]: float(of.weights[texts[0], j]) for j in mine},
            adherence=self._mean(self.own_scores, asked),
            joint=self._share(asked),
            worst=worst_attribute(scores, clusters),
            perplexity=perplexity(float(of.log_probs[texts].sum()), n_tokens),
            n_tokens=n_tokens,
            acceptance=(float(known.mean()), float(known.min()), float(known.max())) if len(known) else None,
            n_exact=int(of.exact[texts].sum()),
            tv_bound=(float(bounds.mean()), float(bounds.max())) if len(bounds) else None,
            n_unbounded=int((~of.exact[texts] & np.isnan(of.tv_bound[texts])).sum()),
        )

    def _mean(self, values: np.ndarray, texts: np.ndarray) -> Mean:
        """Of a value each text, nan: unscored; over some texts."""
        return clustered_mean(
            [None if v != v else v for v in values[texts].tolist()], self.of.prompt_of[texts].tolist()
        )

    def _share(self, texts: np.ndarray) -> Mean:
        """Of :attr:`carried`, over some texts."""
        values = self.carried[texts].tolist()
        return share([None if v != v else v for v in values], self.of.prompt_of[texts].tolist())

    @cached_property
    def columns_judged(self) -> np.ndarray:
        """Whether any judge that counts was asked about an attribute, ``[attributes]``; others are in no mean."""
        return np.asarray(self.of.is_judged[:, : len(self.of.attributes)].any(axis=0))

    @cached_property
    def wanted(self) -> np.ndarray:
        """Whether a text is to carry an attribute that is judged, ``[texts, attributes]``."""
        return np.logical_and(self.of.weights > 0, self.columns_judged)

    @cached_property
    def is_asked(self) -> np.ndarray:
        """Whether any judge was asked about any attribute that a text is to carry, ``[texts]``."""
        return np.asarray((self.wanted & self.of.is_judged[:, : len(self.of.attributes)]).any(axis=1))

    @cached_property
    def own_scores(self) -> np.ndarray:
        """A text's mean score of what it is to carry, ``[texts]``; nan: any of it is unscored, or there is nothing."""
        scores = np.where(self.wanted, self.of.scores[:, : len(self.of.attributes)], 0.0)
        n = self.wanted.sum(axis=1)
        return np.where(n > 0, scores.sum(axis=1) / np.maximum(1, n), np.nan)

    @cached_property
    def carried(self) -> np.ndarray:
        """Whether a text carries all that it is to, ``[texts]``, see :func:`carries_all`; nan likewise."""
        found = [carries_all(row) if row else None for row in self._own_rows(range(self.of.n))]
        return np.array([np.nan if each is None else each for each in found])

    def _own_rows(self, texts: Iterable[int]) -> list[list[float | None]]:
        """Of each text the scores of what it is to carry."""
        rows = []
        for i in texts:
            mine = self.of.scores[i, : len(self.of.attributes)][self.wanted[i]]
            rows.append([None if s != s else s for s in mine.tolist()])
        return rows

    @cached_property
    def joint(self) -> Mean:
        """Of all texts that are to carry anything."""
        texts = np.flatnonzero(self.is_asked)
        return joint_adherence(self._own_rows(texts.tolist()), self.of.prompt_of[texts].tolist())

    @cached_property
    def joint_by_size(self) -> dict[int, Mean]:
        """How many attributes a text is to carry -> share of those texts that carry them all."""
        sizes = self.wanted.sum(axis=1)
        return {
            size: self._share(np.flatnonzero(self.is_asked & (sizes == size)))
            for size in sorted({int(each) for each in sizes[self.is_asked]})
        }

    @cached_property
    def adherence(self) -> Mean:
        """Mean of :attr:`own_scores`."""
        return self._mean(self.own_scores, np.flatnonzero(self.is_asked))

    @cached_property
    def perplexity(self) -> float:
        """Of all texts but the reference's own, or of these where there are no others."""
        texts = ~self.of.control if (~self.of.control).any() else self.of.control
        return perplexity(float(self.of.log_probs[texts].sum()), int(self.of.n_tokens[texts].sum()))

    @cached_property
    def agreements(self) -> dict[str, dict[tuple[str, str], Agreement]]:
        """Attribute -> every two judges that scored any text of it."""
        found = {}
        for column, name in enumerate(self.of.judged):
            given = {
                label: [None if s != s else s for s in self.of.given[:, column, k].tolist()]
                for k, label in enumerate(self.of.judges)
                if not np.isnan(self.of.given[:, column, k]).all()
            }
            if len(given) > 1:
                found[name] = agreements(given)
        return found

    def grid(self, values: np.ndarray, personas: Sequence[int], prompts: Sequence[int]) -> np.ndarray:
        """Means by cell, ``[personas, prompts]``, over samples; nan where there is none.

        Args:
            values: ``[texts]``. personas, prompts: indices of those wanted.
        """
        rows, columns = np.full(len(self.of.personas), -1), np.full(len(self.of.prompts), -1)
        rows[list(personas)], columns[list(prompts)] = np.arange(len(personas)), np.arange(len(prompts))
        r, c = rows[self.of.persona_of], columns[self.of.prompt_of]
        mine = (r >= 0) & (c >= 0) & ~np.isnan(values)
        total, n = np.zeros((len(personas), len(prompts))), np.zeros((len(personas), len(prompts)))
        np.add.at(total, (r[mine], c[mine]), values[mine])
        np.add.at(n, (r[mine], c[mine]), 1)
        return np.where(n > 0, total / np.maximum(1, n), np.nan)
