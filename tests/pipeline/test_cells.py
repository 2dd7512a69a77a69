"""What a persona's own strengths do to its rows: their settings and their ids."""

from __future__ import annotations

from mpg.settings import DecoderSettings
from personas import Grid, Message, Persona, Prompt, control
from pipeline.cells import PlannedCell, Sources, plan_cells

SOURCES = Sources("m", "m@1", None, (), (), (("E", "e"), ("N", "n")), "float32")
WEIGHTS = {"E": 0.5, "N": 0.5, "T": 0.0}


def plan(persona: Persona, **settings: object) -> PlannedCell:
    grid = Grid((Prompt("p", (Message("user", "Hi"),)),), (persona,))
    (cell,) = plan_cells(grid, DecoderSettings(**settings), SOURCES, seed=0)  # type: ignore[arg-type]
    return cell


def test_a_personas_strengths_come_before_the_decoders() -> None:
    cell = plan(Persona("a", WEIGHTS, {"E": 2.0}), strength=0.5)
    assert (cell.decoder.strength_of("E"), cell.decoder.strength_of("N")) == (2.0, 0.5)


def test_an_id_knows_the_strengths_and_not_where_they_were_written() -> None:
    plain = plan(Persona("a", WEIGHTS), strength=2.0)
    assert plan(Persona("a", WEIGHTS, {"E": 2.0, "N": 2.0})).row_id == plain.row_id
    assert plan(Persona("a", WEIGHTS), strength={"E": 2.0, "N": 2.0, "T": 9.0}).row_id == plain.row_id
    assert plan(Persona("a", WEIGHTS, {"T": 9.0}), strength=2.0).row_id == plain.row_id  # T has no weight
    assert plan(Persona("a", WEIGHTS, {"E": 1.9}), strength=2.0).row_id != plain.row_id
    assert plan(Persona("a", WEIGHTS)).row_id != plain.row_id


def test_the_control_knows_no_strength() -> None:
    assert plan(control(), strength=2.0).row_id == plan(control()).row_id
