"""What a persona's own strengths do to its rows: their settings and their ids."""

from __future__ import annotations

from mpg.settings import DecoderSettings
from personas import Grid, Message, Persona, Prompt, control
from pipeline.plan.cells import PlannedCell, Sources, plan_cells
from pipeline.plan.systems import Systems

SOURCES = Sources("m", "m@1", None, (), (), (("E", "e"), ("N", "n")), "float32")
WEIGHTS = {"E": 0.5, "N": 0.5, "T": 0.0}


def plan(persona: Persona, systems: Systems | None = None, **settings: object) -> PlannedCell:
    grid = Grid((Prompt("p", (Message("user", "Hi"),)),), (persona,))
    (cell,) = plan_cells(grid, DecoderSettings(**settings), SOURCES, 0, systems)  # type: ignore[arg-type]
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


EVE = Persona("eve", WEIGHTS, profile="She hikes.", personality="Calm.")
SYSTEMS = Systems(
    reference="Be {profile}",
    attributes={"E": "P: {profile} {personality}", "T": "never"},
    descriptions={"E": "loud", "N": "dreamy", "T": "cool"},
)


def test_each_model_reads_its_own_prompt() -> None:
    cell = plan(EVE, SYSTEMS)
    user = {"role": "user", "content": "Hi"}
    assert cell.chat() == [user]  # what the row records as its prompt
    assert cell.reference_chat() == [{"role": "system", "content": "Be She hikes."}, user]
    assert cell.own_chats() == {"E": [{"role": "system", "content": "P: She hikes. Calm."}, user]}  # T has no weight
    columns = cell.columns()
    assert (columns["profile"], columns["personality"], columns["system"]) == ("She hikes.", "Calm.", "Be She hikes.")


def test_the_control_reads_what_needs_no_persona() -> None:
    assert plan(control(), SYSTEMS).reference_chat() == [{"role": "user", "content": "Hi"}]
    assert plan(control(), Systems("Be brief.")).system == "Be brief."


def test_an_id_knows_what_was_read_and_nothing_else_of_a_persona() -> None:
    bare = plan(Persona("a", WEIGHTS))
    assert plan(EVE).row_id == bare.row_id  # nobody reads her profile
    assert plan(EVE, SYSTEMS).row_id != bare.row_id
    other = Persona("eve", WEIGHTS, profile="She hikes.", personality="Loud.")
    assert plan(other, SYSTEMS).row_id != plan(EVE, SYSTEMS).row_id
    told_to_reference = plan(EVE, Systems("P: She hikes. Calm.")).row_id
    assert told_to_reference != plan(EVE, Systems(None, {"E": "P: She hikes. Calm."})).row_id


def test_prompting_describes_the_attributes_with_their_weights() -> None:
    cell = plan(EVE, SYSTEMS, name="prompting")
    assert cell.system is not None
    assert cell.system.startswith("Be She hikes.\n\n") and cell.system.endswith("- loud (50%)\n- dreamy (50%)")
    assert plan(EVE, Systems(descriptions={"E": "shy", "N": "dreamy"}), name="prompting").row_id != cell.row_id
