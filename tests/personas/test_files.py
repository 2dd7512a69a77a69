"""Personas in files: YAML by hand, tables of thousands, and the line that each mistake gets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from personas.attributes import Persona
from personas.files import PersonaError, load_personas, save_personas
from personas.weights import dirichlet

NAMES = ["E", "N", "T"]


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    saved = [
        Persona("ada", {"E": 0.25, "N": 0.75, "T": 0.0}, {"E": 1.5}),
        Persona("Zoë", {"E": 0.0, "N": 0.0, "T": 1.0}),
        Persona("Eve", {"E": 0.0, "N": 0.0, "T": 1.0}, profile="She hikes.", personality="She is calm."),
        *dirichlet(NAMES, 20),
    ]
    save_personas(tmp_path / "p.yaml", saved)
    assert load_personas(tmp_path / "p.yaml", NAMES) == saved


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_of_thousands(tmp_path: Path, kind: str) -> None:
    drawn = dirichlet(NAMES, 3000)
    columns: dict[str, list[object]] = {f"weight.{name}": [p.weights[name] for p in drawn] for name in NAMES}
    columns["strength.N"] = [2.0 if i % 2 else None for i in range(len(drawn))]
    columns["name"] = [f"p{i}" for i in range(len(drawn))]
    path, table = tmp_path / f"p.{kind}", pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        pyarrow.csv.write_csv(table, path)
    read = load_personas(path, NAMES)
    assert [p.weights for p in read] == [p.weights for p in drawn]
    assert [dict(p.strengths) for p in read[:3]] == [{}, {"N": 2.0}, {}]
    assert read[2999].name == "p2999"


def test_weights_are_normalised_when_asked(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("personas: [{weights: {E: 3, N: 1}}]")
    assert load_personas(tmp_path / "p.yaml", NAMES, normalize=True)[0].active == {"E": 0.75, "N": 0.25}
    with pytest.raises(PersonaError, match=r"personas\[0\]: .*sum to 4, not to 1"):
        load_personas(tmp_path / "p.yaml", NAMES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("personas: []", "holds no persona"),
        ("people: []", "must hold one field, 'personas'"),
        ("personas: [ada]", r"personas\[0\]: 'ada' is no mapping"),
        ("personas: [{weights: {E: 1}, age: 3}]", r"personas\[0\]: age: unknown field"),
        ("personas: [{weights: {Q: 1}}]", r"weights.Q: 'Q' is not among the attributes E, N, T"),
        ("personas: [{weights: {E: yes}}]", r"weights.E: True is no number"),
        ("personas: [{weights: {E: 2, N: -1}}]", "the weight of N is -1.0; give 0 or more"),
        ("personas: [{weights: {E: 1}, strengths: {E: 0}}]", "the strength of E is 0.0; give one above 0"),
        ("personas: [{name: '', weights: {E: 1}}]", "name: '' is no name"),
        ("personas: [{name: a}]", "weights: None is no mapping"),
        ("personas: [{weights: {E: 1}}, {weights: {E: 1}}]", r"personas\[1\]: .*of personas\[0\] again"),
        ("personas: [{name: reference, weights: {E: 1}}]", "the name 'reference' is taken by the control"),
        ("personas: [", r"line 1, column 12: 'personas: \[' is not YAML \("),
        ("personas: [{name: no, weights: {E: 1}}]", "name: False is no name; give text .*in quotation marks only"),
        ("personas:\n- {weights: {E: 1}}\npersonas: []", "personas: a second value on line 3, but line 1 gives it too"),
        ("personas: [{name: a, name: b, weights: {E: 1}}]", r"personas\[0\].name: 'b' on line 1, but line 1 gives it"),
        ("personas: [{name: 010, weights: {E: 1}}]", r"personas\[0\].name: 010 \(line 1\) is what YAML reads as 8"),
        ("personas: [{weights: {E: 1:30}}]", r"personas\[0\].weights.E: 1:30 \(line 1\) is what YAML reads as 90"),
    ],
)
def test_each_mistake_has_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PersonaError, match=says) as caught:
        load_personas(tmp_path / "p.yaml", NAMES)
    assert str(caught.value).startswith(str(tmp_path / "p.yaml")) and "\n" not in str(caught.value)


def test_mistakes_in_tables(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("name,weight.E,age\na,1,3\n")
    with pytest.raises(
        PersonaError, match=r"column 'age': unknown; a table has name, profile, personality, weight.<A>"
    ):
        load_personas(path, NAMES)
    path.write_text("name,weight.E,weight.N\na,1,\nb,.5,.4\n")
    with pytest.raises(PersonaError, match=r"line 3: the weights sum to 0.9|line 3: persona 'b'"):
        load_personas(path, NAMES)
    (tmp_path / "p.parquet").write_text("no")
    with pytest.raises(PersonaError, match=r"is no .parquet table"):
        load_personas(tmp_path / "p.parquet", NAMES)
    with pytest.raises(PersonaError, match="no such file"):
        load_personas(tmp_path / "q.parquet", NAMES)


def test_text_in_a_table_stays_text(tmp_path: Path) -> None:
    names = ["001", "10:30", "NA", "null", "José", "1e5", "True", "2024-01-01"]
    lines = [f"{name},{'1' if i % 2 else ''},{'' if i % 2 else '1e0'},p{i}" for i, name in enumerate(names)]
    text = "\n".join(["name,weight.E,weight.N,profile", *lines]) + "\n"
    for suffix, content in {
        ".csv": text.encode(),
        ".tsv": text.replace(",", "\t").encode(),
        ".csv.gz": gzip.compress(text.encode()),
        ".CSV": text.encode("utf-16"),
    }.items():
        (tmp_path / f"p{suffix}").write_bytes(content)
        read = load_personas(tmp_path / f"p{suffix}", NAMES)
        assert [persona.name for persona in read] == names
        assert [persona.active for persona in read[:2]] == [{"N": 1.0}, {"E": 1.0}]
    all_e = {"E": 1.0, "N": 0.0, "T": 0.0}
    more = [Persona("1e-1", all_e), Persona("no", all_e, profile="010")]
    save_personas(tmp_path / "p.yaml", [*read, *more])
    assert [p.name for p in load_personas(tmp_path / "p.yaml", NAMES)] == [*names, "1e-1", "no"]


@pytest.mark.parametrize("cell", ["0,5", "1_000", "50%", "x", "nan", "0x1", "010"])
def test_cells_that_are_no_numbers(tmp_path: Path, cell: str) -> None:
    (tmp_path / "p.csv").write_text(f'name,weight.E\na,"{cell}"\n')
    with pytest.raises(PersonaError, match=f"line 2: weight.E: '{cell}' is no number; write one like 0.5"):
        load_personas(tmp_path / "p.csv", NAMES)


def test_rows_of_json_have_weights_as_in_yaml(tmp_path: Path) -> None:
    rows = [{"name": "a", "weights": {"E": 1e-1, "N": 0.9}, "profile": {"age": 36}}, {"weight.T": 1}]
    (tmp_path / "p.json").write_text(json.dumps({"personas": rows}))
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(
        pa.Table.from_pylist([rows[0] | {"weight.T": None}, rows[1] | {"weights": None}]), tmp_path / "p.parquet"
    )
    for name in ("p.json", "p.jsonl", "p.parquet"):
        a, b = load_personas(tmp_path / name, NAMES)
        assert (a.name, a.active, a.profile) == ("a", {"E": 0.1, "N": 0.9}, "They are a 36-year-old person.")
        assert b.active == {"T": 1.0}


def test_profiles_are_text_fields_or_columns(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "personas:\n"
        "- {name: a, weights: {E: 1}, profile: {age: 36, gender: woman, hobbies: [hiking]}, personality: ' Calm. '}\n"
        "- {name: b, weights: {E: 1}, profile: He bakes.}\n"
    )
    first, second = load_personas(path, NAMES)
    assert first.texts == {"profile": "She is a 36-year-old woman. She loves hiking.", "personality": "Calm."}
    assert second.texts == {"profile": "He bakes.", "personality": ""}
    table = pa.table({"weight.E": [1.0, 1.0], "profile": ["He bakes.", None], "personality": ["", "Loud."]})
    for suffix, write in ((".parquet", pq.write_table), (".csv", pyarrow.csv.write_csv)):
        write(table.append_column("name", pa.array(["c", "d"])), tmp_path / f"p{suffix}")
        read = load_personas(tmp_path / f"p{suffix}", NAMES)
        assert [p.texts for p in read] == [
            {"profile": "He bakes.", "personality": ""},
            {"profile": "", "personality": "Loud."},
        ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{weights: {E: 1}, profile: {age: -1}}", "personas[0]: profile.age: -1 is no age"),
        ("{weights: {E: 1}, personality: [calm]}", "personas[0]: personality: ['calm'] is no text"),
        ("{weights: {E: 1}, manner: calm}", "personas[0]: manner: unknown field"),
    ],
)
def test_texts_that_are_none(tmp_path: Path, entry: str, says: str) -> None:
    (tmp_path / "p.yaml").write_text(f"personas: [{entry}]")
    with pytest.raises(PersonaError) as caught:
        load_personas(tmp_path / "p.yaml", NAMES)
    assert says in str(caught.value)


def test_a_small_file_that_stands_for_more_than_can_be_read_is_one_line(tmp_path: Path) -> None:
    """Eight lines of aliases to aliases: 10^9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "p.yaml").write_text("\n".join(lines))
    with pytest.raises(PersonaError, match="its aliases stand for more than 5,000,000 values; write it flat"):
        load_personas(tmp_path / "p.yaml", ["E"])
