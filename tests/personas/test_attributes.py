"""Attributes and personas: checked at once, immutable, readable."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from personas.attributes import MBTI, MBTI_SCALES, Attribute, Persona, Weights, mbti_type, weights_name
from personas.preferences import OPPOSITE


def test_weights_are_an_immutable_mapping_that_pickles() -> None:
    weights = Weights({"N": 0.25, "E": 0.75})
    assert list(weights) == ["N", "E"] and dict(weights) == {"E": 0.75, "N": 0.25}
    assert weights == Weights({"E": 0.75, "N": 0.25}) == {"E": 0.75, "N": 0.25}
    assert hash(weights) == hash(Weights({"E": 0.75, "N": 0.25}))
    assert pickle.loads(pickle.dumps(weights)) == copy.deepcopy(weights) == weights
    assert "T" not in weights and weights.get("T", 0.0) == 0.0
    with pytest.raises(TypeError):
        weights["E"] = 1.0  # type: ignore[index]


def test_a_persona_cannot_change() -> None:
    given = {"E": 0.5, "N": 0.5}
    persona = Persona("x", given)
    given["E"] = 9.0
    assert persona.weights == {"E": 0.5, "N": 0.5}
    assert hash(persona) == hash(Persona("x", {"E": 0.5, "N": 0.5}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        persona.name = "y"  # type: ignore[misc]
    with pytest.raises(TypeError):
        persona.weights["E"] = 1.0  # type: ignore[index]


def test_empty_weights_are_the_control() -> None:
    assert Persona("reference", {}).is_control
    assert not Persona("E", {"E": 1}).is_control
    assert Persona("E", {"E": 1, "N": 0}).active == {"E": 1.0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"E": 0.5, "N": 0.4}, "sum to 0.9"),
        ({"E": 0.5, "N": 0.5 + 2e-6}, "sum to 1.000002"),
        ({"E": 0.0}, "sum to 0"),
        ({"E": 1.5, "N": -0.5}, "weight of N is -0.5"),
        ({"E": float("nan")}, "weight of E is nan"),
        ({"E": float("inf")}, "weight of E is inf"),
    ],
)
def test_weights_that_are_none(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Persona("x", weights)


def test_weights_may_miss_one_by_the_tolerance() -> None:
    assert Persona("x", {"E": 1 / 3, "N": 1 / 3, "T": 0.3333337}).weights["T"] == 0.3333337


def test_names_are_readable() -> None:
    assert weights_name({"E": 0.5, "T": 0.0, "N": 0.5}) == "E0.50+N0.50"
    assert weights_name({"E": 1 / 3, "N": 2 / 3}, digits=4) == "E0.3333+N0.6667"
    assert weights_name({}) == "reference"


def test_the_eight_poles() -> None:
    assert {name: pole.opposite for name, pole in MBTI.items()} == OPPOSITE
    assert {frozenset(scale) for scale in MBTI_SCALES} == {frozenset(pair) for pair in OPPOSITE.items()}
    assert all(isinstance(pole, Attribute) and len(pole.description) > 40 for pole in MBTI.values())
    assert len({pole.description for pole in MBTI.values()}) == 8


def test_an_mbti_type_weighs_its_poles_equally() -> None:
    persona = mbti_type("ENTJ")
    assert persona.name == "ENTJ"
    assert persona.weights == {"E": 0.25, "N": 0.25, "T": 0.25, "J": 0.25}


@pytest.mark.parametrize("code", ["", "ENT", "ENTJX", "NETJ", "entj", "EITJ", "EEEE"])
def test_what_is_no_mbti_type(code: str) -> None:
    with pytest.raises(ValueError, match=f"'{code}' is not an MBTI type; give one letter each"):
        mbti_type(code)
