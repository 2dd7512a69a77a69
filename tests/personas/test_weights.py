"""Grids of weight vectors: their sizes, their sums, their names, and that they stay the same."""

from __future__ import annotations

import math

import pytest

from personas.attributes import Persona
from personas.weights import at_strengths, control, cover, dirichlet, explicit, one_hot, simplex_lattice, simplex_size


@pytest.mark.parametrize(
    ("n_attributes", "steps", "size"), [(1, 5, 1), (2, 1, 2), (2, 2, 3), (4, 2, 10), (4, 3, 20), (8, 2, 36)]
)
def test_a_lattice_has_the_size_it_announces(n_attributes: int, steps: int, size: int) -> None:
    personas = simplex_lattice("ABCDEFGH"[:n_attributes], steps)
    assert len(personas) == simplex_size(n_attributes, steps) == size
    assert len({persona.weights for persona in personas}) == size
    assert len({persona.name for persona in personas}) == size
    for persona in personas:
        assert math.isclose(math.fsum(persona.weights.values()), 1, abs_tol=1e-12)
        assert all(round(weight * steps) / steps == weight for weight in persona.weights.values())
        assert list(persona.weights) == list("ABCDEFGH"[:n_attributes])


def test_a_lattice_begins_with_the_first_attribute_alone() -> None:
    assert [persona.name for persona in simplex_lattice(["E", "N", "T"], 2)] == [
        "E1.00",
        "E0.50+N0.50",
        "E0.50+T0.50",
        "N1.00",
        "N0.50+T0.50",
        "T1.00",
    ]


def test_a_fine_lattice_gets_the_decimals_that_tell_its_personas_apart() -> None:
    names = [persona.name for persona in simplex_lattice(["E", "N"], 400)]
    assert len(set(names)) == 401
    assert names[1] == "E0.998+N0.003"


def test_the_size_of_a_huge_lattice_costs_nothing() -> None:
    assert simplex_size(8, 1000) == math.comb(1007, 7)


def test_one_hot_and_control() -> None:
    assert [dict(persona.weights) for persona in one_hot(["E", "N"])] == [{"E": 1, "N": 0}, {"E": 0, "N": 1}]
    assert [persona.name for persona in one_hot(["E", "N"])] == ["E1.00", "N1.00"]
    assert control().is_control and control().name == "reference"


def test_explicit_fills_in_zeros_in_the_attributes_order() -> None:
    persona = explicit(["E", "N", "T"], {"T": 0.5, "E": 0.5})
    assert list(persona.weights.items()) == [("E", 0.5), ("N", 0.0), ("T", 0.5)]
    assert persona.name == "E0.50+T0.50"
    assert explicit(["E"], {"E": 1}, name="loud").name == "loud"


def test_explicit_normalises_only_when_asked() -> None:
    assert explicit(["E", "N"], {"E": 3, "N": 1}, normalize=True).weights == {"E": 0.75, "N": 0.25}
    with pytest.raises(ValueError, match="sum to 4, not to 1"):
        explicit(["E", "N"], {"E": 3, "N": 1})


@pytest.mark.parametrize(
    ("weights", "normalize", "message"),
    [
        ({"Q": 1.0}, False, "'Q' is not among the attributes E, N"),
        ({}, False, "sum to 0"),
        ({}, True, "at least one weight above 0"),
        ({"E": 0.0}, True, "at least one weight above 0"),
        ({"E": 3.0, "N": -1.0}, True, "weight of N is -0.5"),
        ({"E": math.nan}, True, "at least one weight above 0"),
    ],
)
def test_explicit_weights_that_do_not_work(weights: dict[str, float], normalize: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explicit(["E", "N"], weights, normalize=normalize)


def test_dirichlet_draws_are_fixed_by_the_seed() -> None:
    names = ["E", "N", "T", "J"]
    personas = dirichlet(names, 20, 1.0, seed=3)
    assert personas == dirichlet(names, 20, 1.0, seed=3)
    assert [p.weights for p in personas[:5]] == [p.weights for p in dirichlet(names, 5, 1.0, seed=3)]
    assert {p.weights for p in personas}.isdisjoint({p.weights for p in dirichlet(names, 20, 1.0, seed=0)})
    assert len({p.name for p in personas}) == len({p.weights for p in personas}) == 20


@pytest.mark.parametrize("concentration", [1e-3, 0.1, 1.0, 100.0])
def test_dirichlet_weights_sum_to_one(concentration: float) -> None:
    for persona in dirichlet(list("ABCDEFGH"), 50, concentration):
        assert math.isclose(math.fsum(persona.weights.values()), 1, abs_tol=1e-12)
        assert all(weight == round(weight, 6) for weight in persona.weights.values())


def test_concentration_draws_towards_equal_weights() -> None:
    spread = {
        concentration: max(max(p.weights.values()) for p in dirichlet(list("ABCD"), 20, concentration))
        for concentration in (0.1, 1000.0)
    }
    assert spread[0.1] > 0.9 and spread[1000.0] < 0.35


def test_dirichlet_says_when_there_are_not_so_many() -> None:
    with pytest.raises(ValueError, match=r"n: 2 distinct weight vectors over 1 attribute\(s\)"):
        dirichlet(["E"], 2)
    assert dirichlet(["E"], 1)[0].weights == {"E": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simplex_lattice([], 2), "none given"),
        (lambda: simplex_lattice(["E"], 0), "steps: 0"),
        (lambda: one_hot(["E", "E"]), "names one twice"),
        (lambda: dirichlet(["E"], 0), "n: 0"),
        (lambda: dirichlet(["E"], 1, 0.0), "concentration: 0.0"),
        (lambda: dirichlet(["E"], 1, math.inf), "concentration: inf"),
    ],
)
def test_arguments_out_of_range(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("method", ["sobol", "latin"])
def test_a_cover_fills_the_simplex_more_evenly_than_chance(method: str) -> None:
    """Largest error of a share of the simplex over the half-spaces w_i <= c, against Dirichlet(1) draws."""

    def error(personas: list[Persona]) -> float:
        worst = 0.0
        for name in "ENT":
            weights = sorted(persona.weights[name] for persona in personas)
            for count, weight in enumerate(weights, start=1):
                worst = max(worst, abs(count / len(weights) - (1 - (1 - weight) ** 2)))  # Beta(1, 2)
        return worst

    even = cover("ENT", 64, method, seed=1)
    assert len(even) == 64 == len({p.weights for p in even}) == len({p.name for p in even})
    assert all(math.isclose(math.fsum(p.weights.values()), 1, abs_tol=1e-9) for p in even)
    of_covers = [error(cover("ENT", 64, method, seed=s)) for s in range(20)]
    by_chance = [error(dirichlet("ENT", 64, seed=s)) for s in range(20)]
    assert sum(of_covers) < 0.8 * sum(by_chance)
    assert cover("ENT", 64, method, seed=1) == even != cover("ENT", 64, method, seed=2)


def test_a_longer_sobol_cover_begins_with_the_shorter_one() -> None:
    short, long = cover("ENTJ", 5), cover("ENTJ", 11)
    assert [p.weights for p in long[:5]] == [p.weights for p in short]


def test_each_persona_at_each_strength() -> None:
    built = at_strengths([control(), *one_hot("EN")], [0.5, 2.0])
    assert [p.name for p in built] == ["reference", "E1.00x0.5", "E1.00x2", "N1.00x0.5", "N1.00x2"]
    assert built[2].strengths["E"] == 2.0 and not built[0].strengths
    with pytest.raises(ValueError, match="1, 1 has one twice"):
        at_strengths(one_hot("E"), [1.0, 1.0])
    with pytest.raises(ValueError, match="strength of E is 0"):
        at_strengths(one_hot("E"), [0.0])
    with pytest.raises(ValueError, match="3 points over 1 attribute"):
        cover("E", 3)
