"""Weight vectors and grids of them: explicit, one-hot, lattices on the simplex, Dirichlet draws, covers.

Every persona of a grid carries a weight for each attribute asked for, zeros included, in the
attributes' order. Each grid's size is known before it is built: ``len(attributes)`` for
``one_hot``, ``simplex_size`` for the lattice, ``n`` for Dirichlet draws and covers; ``at_strengths``
multiplies it by the number of strengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from personas.attributes import REFERENCE, Persona, weights_name

# Decimals of a random weight. Coarse enough that the last bits of a machine's logarithm, which
# numpy's gamma sampler goes through, can't change a row's identity; fine enough for any report.
DECIMALS = 6
# Draws per persona wanted after which a Dirichlet grid with too few distinct vectors gives up.
MAX_DRAWS_PER_PERSONA = 100


def control() -> Persona:
    """The reference model alone."""
    return Persona(REFERENCE, {})


def explicit(
    attributes: Sequence[str],
    weights: Mapping[str, float],
    *,
    name: str | None = None,
    normalize: bool = False,
    strengths: Mapping[str, float] | None = None,
    profile: str = "",
    personality: str = "",
) -> Persona:
    """One persona by its weights; attributes that are not named get 0.

    Where no name is given it is made from the weights, and from the strengths if there are any.

    Raises:
        ValueError: a weight on an attribute not in ``attributes``, a weight that is negative or
            not finite, a sum other than 1 (with ``normalize``: a sum that is not above 0), or a
            strength that is not above 0.
    """
    for key in weights:
        if key not in attributes:
            raise ValueError(f"{key!r} is not among the attributes {', '.join(attributes)}")
    total = math.fsum(weights.values())
    if normalize:
        if not total > 0:
            raise ValueError(f"the weights sum to {total:.10g}; give at least one weight above 0")
        weights = {key: weight / total for key, weight in weights.items()}
    elif not weights:
        raise ValueError("the weights sum to 0, not to 1; use the control for the reference alone")
    full = {attribute: float(weights.get(attribute, 0.0)) for attribute in attributes}
    strengths = strengths or {}
    made = weights_name(full) + ("x" + ",".join(f"{k}{v:g}" for k, v in strengths.items()) if strengths else "")
    return Persona(made if name is None else name, full, strengths, profile, personality)


def one_hot(attributes: Sequence[str]) -> list[Persona]:
    """Each attribute alone: ``len(attributes)`` personas."""
    _check(attributes)
    return _named(attributes, ([float(i == j) for j in range(len(attributes))] for i in range(len(attributes))))


def simplex_size(n_attributes: int, steps: int) -> int:
    """Number of weight vectors with multiples of ``1 / steps``: C(steps + n - 1, n - 1)."""
    return math.comb(steps + n_attributes - 1, n_attributes - 1)


def simplex_lattice(attributes: Sequence[str], steps: int) -> list[Persona]:
    """All weight vectors with multiples of ``1 / steps``, the first attribute's weight falling.

    Raises:
        ValueError: ``steps`` below 1, no attributes, or one named twice.
    """
    _check(attributes)
    if steps < 1:
        raise ValueError(f"steps: {steps!r} must be at least 1")
    return _named(attributes, ([part / steps for part in parts] for parts in _compositions(steps, len(attributes))))


def dirichlet(attributes: Sequence[str], n: int, concentration: float = 1.0, seed: int = 0) -> list[Persona]:
    """``n`` distinct weight vectors from a symmetric Dirichlet law, rounded to 6 decimals.

    The first ``k`` of them do not depend on ``n``.

    Args:
        attributes: the names, at least two where ``n`` is above 1.
        n: how many.
        concentration: 1 is uniform on the simplex; below 1 nearer to one-hot, above nearer to equal.
        seed: of numpy's default generator.

    Raises:
        ValueError: an argument out of range, or so few distinct vectors that ``n`` can't be had.
    """
    _check(attributes)
    if n < 1:
        raise ValueError(f"n: {n!r} must be at least 1")
    if not (concentration > 0 and math.isfinite(concentration)):
        raise ValueError(f"concentration: {concentration!r} must be above 0")
    generator = np.random.default_rng(seed)
    vectors: dict[tuple[float, ...], None] = {}
    for _ in range(n * MAX_DRAWS_PER_PERSONA):
        drawn = generator.dirichlet([concentration] * len(attributes)).tolist()
        vectors[rounded(drawn)] = None
        if len(vectors) == n:
            return _named(attributes, vectors)
    raise ValueError(
        f"n: {n!r} distinct weight vectors over {len(attributes)} attribute(s) could not be drawn, "
        f"only {len(vectors)}; give fewer, or a concentration above {concentration!r}"
    )


COVERS = ("sobol", "latin")


def cover(attributes: Sequence[str], n: int, method: str = "sobol", seed: int = 0) -> list[Persona]:
    """``n`` distinct weight vectors that fill the simplex more evenly than random ones, rounded to 6 decimals.

    Points of a scrambled Sobol sequence or a Latin hypercube in the unit cube, each coordinate turned
    into a standard exponential and divided by their sum: uniform on the simplex.

    Args:
        attributes: the names, at least two where ``n`` is above 1.
        n: how many; a Sobol sequence is best at powers of 2, and its first ``k`` do not depend on ``n``.
        method: ``sobol`` or ``latin``.
        seed: of the scrambling.

    Raises:
        ValueError: an argument out of range, or fewer than ``n`` distinct vectors.
    """
    from scipy.stats import qmc

    _check(attributes)
    if n < 1:
        raise ValueError(f"n: {n!r} must be at least 1")
    if method not in COVERS:
        raise ValueError(f"method: {method!r} is not a cover; choose from {', '.join(COVERS)}")
    dimensions, generator = len(attributes), np.random.default_rng(seed)
    if method == "latin":
        points = qmc.LatinHypercube(dimensions, rng=generator).random(n)
    else:
        sequence = qmc.Sobol(dimensions, rng=generator)
        points = sequence.random_base2(max(0, math.ceil(math.log2(n))))[:n]
    exponentials = -np.log1p(-points)  # points are in [0, 1)
    totals = exponentials.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, exponentials / np.where(totals > 0, totals, 1), 1 / dimensions)
    vectors = dict.fromkeys(rounded(point) for point in shares.tolist())
    if len(vectors) < n:
        raise ValueError(
            f"n: {n!r} points over {dimensions} attribute(s) make only {len(vectors)} distinct weight vectors; "
            "give fewer"
        )
    return _named(attributes, vectors)


def at_strengths(personas: Iterable[Persona], strengths: Sequence[float]) -> list[Persona]:
    """Every persona at every strength, one for all its attributes, named ``E1.00x0.5``; controls stay as they are.

    Raises:
        ValueError: a strength that is not above 0, or one given twice.
    """
    if len(set(strengths)) != len(strengths):
        raise ValueError(f"strengths: {', '.join(f'{s:g}' for s in strengths)} has one twice; remove it")
    built: list[Persona] = []
    for persona in personas:
        if persona.is_control:
            built.append(persona)
        else:
            for strength in strengths:
                name = f"{persona.name}x{strength:g}"
                built.append(replace(persona, name=name, strengths=dict.fromkeys(persona.weights, strength)))
    return built


def _check(attributes: Sequence[str]) -> None:
    if not attributes:
        raise ValueError("attributes: none given; name at least one")
    if len(set(attributes)) != len(attributes):
        raise ValueError(f"attributes: {', '.join(attributes)} names one twice")


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All tuples of ``parts`` whole numbers >= 0 that sum to ``total``, the first one falling."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def rounded(vector: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to 1 in multiples of 10^-6; the largest takes up what rounding left."""
    scale: int = 10**DECIMALS
    units = [round(weight * scale) for weight in vector]
    units[max(range(len(units)), key=units.__getitem__)] += scale - sum(units)
    return tuple(unit / scale for unit in units)


def _named(attributes: Sequence[str], vectors: Iterable[Sequence[float]]) -> list[Persona]:
    """Personas with readable names, with as many decimals as tell them apart."""
    weights = [dict(zip(attributes, vector, strict=True)) for vector in vectors]
    names: list[str] = []
    for digits in range(2, 18):  # 17 significant digits tell any two floats apart
        names = [weights_name(each, digits) for each in weights]
        if len(set(names)) == len(names):
            break
    return [Persona(name, each) for name, each in zip(names, weights, strict=True)]
