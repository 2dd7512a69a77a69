"""The licence of a data set: the rules over many combinations, where licences are read, what is stated."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard

from pipeline.job.licence_terms import KINDS, NO_TRAINING, UNRESTRICTED, Kind, hint, identifier
from pipeline.job.load import load_job
from pipeline.job.model import shipped_adapters
from pipeline.publish.licence_rules import LicenceError, Part, resolve
from pipeline.publish.licence_sources import collect, of_judges
from pipeline.publish.licences import licence_of, restate
from tests.hub_server import GATED, Hub, serving_hub
from tests.job_desk import Desk

OLD = Path(__file__).parents[2] / "data" / "schema-3"


def part(license: str | None, what: str = "model", **more: Any) -> Part:
    return Part(what, "x", license, said_by="a test", **more)


def resolved(*licenses: str | None) -> str:
    """The identifier, whatever the order of the parts."""
    found = {resolve(each).license for each in itertools.permutations(map(part, licenses))}
    assert len(found) == 1
    return found.pop()


def lines(*parts: Part) -> tuple[str, ...]:
    with pytest.raises(LicenceError) as caught:
        resolve(parts)
    assert all(len(line.splitlines()) == 1 and "mpg publish --license" in line for line in caught.value.lines)
    assert caught.value.parts == parts
    return caught.value.lines


# --------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["apache-2.0"], "apache-2.0"),
        (["Apache-2.0", "MIT"], "apache-2.0"),
        (["mit", "cc0-1.0"], "mit"),
        (["cc0-1.0", "unlicense"], "cc0-1.0"),
        (["mit", "bsd-3-clause", "isc"], "bsd-3-clause"),
        (["apache-2.0", "cc-by-4.0"], "cc-by-4.0"),
        (["cc-by-3.0", "cc-by-4.0", "mit"], "cc-by-4.0"),
        (["odc-by", "apache-2.0"], "odc-by"),
        (["cc-by-4.0", "cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["cc-by-sa-3.0"], "cc-by-sa-3.0"),
        (["cc-by-sa-3.0", "cc-by-sa-4.0"], "cc-by-sa-4.0"),
        (["cc-by-nc-4.0", "apache-2.0", "cc-by-4.0"], "cc-by-nc-4.0"),
        (["cc-by-nc-2.0", "cc-by-nc-4.0"], "cc-by-nc-4.0"),
        (["cc-by-nc-4.0", "cc-by-nc-sa-4.0"], "cc-by-nc-sa-4.0"),
        (["cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0"], "cc-by-nc-sa-4.0"),
        (["gpl-3.0", "apache-2.0"], "gpl-3.0"),
        (["GPL-3.0-only", "mit"], "gpl-3.0"),
        (["ODbL-1.0"], "odbl"),
        (["llama3.2", "apache-2.0", "cc-by-4.0"], "llama3.2"),
        (["gemma", "gemma", "mit"], "gemma"),
        (["openrail++", "mit"], "openrail++"),
        ([UNRESTRICTED, "mit"], "mit"),
    ],
)  # fmt: skip
def test_the_strictest_of_those_that_go_together(licenses: list[str], expected: str) -> None:
    assert resolved(*licenses) == expected


@pytest.mark.parametrize(
    "licenses",
    [
        ["llama3.1", "gemma"],
        ["llama3.1", "llama3.2"],
        ["llama3.2", "cc-by-sa-4.0"],
        ["gemma", "cc-by-nc-4.0"],
        ["cc-by-sa-4.0", "gpl-3.0"],
        ["cc-by-sa-4.0", "cc-by-nc-4.0"],
        ["cc-by-sa-4.0", "cc-by-nc-sa-4.0"],
        ["gpl-3.0", "cc-by-nc-4.0"],
        ["odbl", "cc-by-sa-4.0", "mit"],
    ],
)  # fmt: skip
def test_those_that_do_not_go_together_are_named_in_one_line(licenses: list[str]) -> None:
    (line,) = lines(*(part(each, f"part {i}") for i, each in enumerate(licenses)))
    assert "no licence keeps the terms of all" in line
    assert all(f"{each} of part {i}" in line for i, each in enumerate(licenses) if each != "mit")
    assert "mit of" not in line


@pytest.mark.parametrize("license", [None, "unknown", "cc", "my-own", "other"])
def test_what_nobody_knows_stops(license: str | None) -> None:
    known = part("mit"), part(license, "adapter E", remedy="ask its author")
    (line,) = lines(*known)
    assert line.startswith("adapter E (x): licence unknown: ") and "a test" in line and "; ask its author, or " in line


def test_each_obstacle_is_a_line_with_its_part() -> None:
    found = lines(
        part(None), part("cc-by-nd-4.0", "prompts"), part(NO_TRAINING, "judge openai@m+1"), part("mit", "adapter E")
    )
    assert [line.split(" (x)")[0] for line in found] == ["model", "prompts", "judge openai@m+1"]
    assert "forbids to pass on" in found[1] and "forbid to train models" in found[2]
    error = LicenceError(found)
    assert str(error) == f"{found[0]} (+2 more)" and str(pickle.loads(pickle.dumps(error))) == str(error)


def test_no_part_with_a_licence_is_no_licence() -> None:
    assert "no part" in lines()[0] and "no part" in lines(part(UNRESTRICTED))[0]


def test_a_licence_by_name_keeps_its_name_and_link() -> None:
    link = "https://example.org/LICENSE"
    found = resolve([part("other", license_name="tulu"), part("other", license_name="Tulu", license_link=link)])
    assert found.front["license"] == "other" and found.license_link == link
    assert "tulu" in lines(part("other", license_name="tulu"), part("other", "prompts", license_name="b"))[0]
    assert resolve([part("llama3.2", license_name="of no use")]).license_name is None


@pytest.mark.parametrize("first", KINDS)
def test_any_two_licences_give_one_that_asks_as_much_as_either_or_none(first: str) -> None:
    """The whole table, pair by pair."""
    for second in KINDS:
        pair = [part(first, license_name="n"), part(second, license_name="n")]
        try:
            found = resolve(pair).license
        except LicenceError:
            continue
        assert KINDS[found] == max(KINDS[first], KINDS[second])
        assert resolve(reversed(pair)).license == found
        strict = {name for name in (first, second) if KINDS[name] >= Kind.NON_COMMERCIAL}
        assert found in (first, second) or found.partition("-4")[0] in {name.rpartition("-")[0] for name in strict}


@pytest.mark.parametrize(
    ("written", "expected"),
    [("Apache-2.0", "apache-2.0"), (" MIT ", "mit"), ("AGPL-3.0-or-later", "agpl-3.0"), ("apache", None), ("", None)],
)
def test_identifiers_in_any_case_and_by_spdx(written: str, expected: str | None) -> None:
    assert identifier(written) == expected


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("MIT License", "mit"),
        ("The Unlicense", "unlicense"),
        ("Apache License 2.0", "apache-2.0"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("CC-BY", "cc-by-4.0"),
        ("cc-by-nc", "cc-by-nc-4.0"),
        ("CC0", "cc0-1.0"),
        ("Llama 3.2", "llama3.2"),
        ("license", None),
        ("proprietary", None),
    ],
)
def test_a_hint_names_the_licence_that_was_meant(written: str, meant: str | None) -> None:
    end = f"did you mean {meant!r}?" if meant else "choose from https://huggingface.co/docs/hub/repositories-licenses"
    assert hint(written).endswith(f"; {end}")


# --------------------------------------------------------------------------- where they are read


def folder(place: Path, readme: str | None = None, card: dict[str, Any] | None = None) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text("{}")
    if readme is not None:
        (place / "README.md").write_text(readme)
    if card is not None:
        (place / "card.json").write_text(json.dumps(card))
    return place


def front(**fields: Any) -> str:
    return f"---\n{yaml.safe_dump(fields)}---\n# Title\n"


def of_model(desk: Desk) -> Part:
    (found,) = (each for each in collect(desk.load("model.id=m")) if each.what == "model")
    return found


def test_what_ships_and_is_embedded_is_known(desk: Desk) -> None:
    parts = collect(desk.load("prompts.license=mit"))
    assert [each.what for each in parts] == ["model", *(f"adapter {name}" for name in "ENTJ"), "prompts"]
    assert {each.license for each in parts} == {"apache-2.0", "mit"} and all(each.said_by for each in parts)


def test_the_adapters_that_ship_name_their_licence_but_those_whose_pairs_have_none(desk: Desk) -> None:
    known = {}
    for name, place in shipped_adapters().items():
        shutil.copytree(place, desk.folder / "shipped" / name, dirs_exist_ok=True)
        job = desk.load(f"attributes=[{name}]", "personas={kind: one-hot, profile: a, personality: b}")
        known[name] = collect(job)[1].license
    assert {name for name, license in known.items() if license is None} == {"profile", "personality"}
    assert set(known.values()) == {"apache-2.0", None}


@pytest.mark.parametrize(
    ("readme", "license", "said"),
    [
        (front(license="cc-by-4.0"), "cc-by-4.0", "the README.md in its folder"),
        (front(language="en"), None, "its README.md has none"),
        ("# no front matter", None, "its README.md has none"),
        (None, None, "it has no README.md"),
        ("---\nlicense: [\n---\n", None, "its README.md can't be read"),
        (b"\xff\xfe\x00", None, "its README.md can't be read"),
    ],
)
def test_a_folder_says_it_in_its_card(desk: Desk, readme: str | bytes | None, license: str | None, said: str) -> None:
    place = folder(desk.folder / "m", readme if isinstance(readme, str) else None)
    if isinstance(readme, bytes):
        (place / "README.md").write_bytes(readme)
    found = of_model(desk)
    assert (found.license, found.name) == (license, "m") and found.said_by.startswith(said)
    assert str(desk.folder) not in json.dumps(found.__dict__)
    if license is None:
        (place / "LICENSE").write_text("Permission is hereby granted ...")
        assert "LICENSE is a text that nobody here reads" in of_model(desk).said_by


def test_a_list_of_licences_is_all_of_them_and_a_link_to_a_file_there_is_no_file_here(desk: Desk) -> None:
    folder(desk.folder / "m", front(license=["mit", "cc-by-4.0"]))
    found = [each for each in collect(desk.load("model.id=m")) if each.what == "model"]
    assert [each.license for each in found] == ["mit", "cc-by-4.0"]
    folder(desk.folder / "m", front(license="other", license_name="mine", license_link="LICENSE"))
    assert (of_model(desk).license_name, of_model(desk).license_link) == ("mine", None)


def test_an_adapter_says_it_in_what_mpg_train_wrote(desk: Desk) -> None:
    place = desk.adapter("mine")
    entry = "attributes=[{name: X, adapter: mine, description: x}]"
    job = desk.load(entry, "personas={kind: one-hot}")
    assert collect(job)[1].license is None
    (place / "card.json").write_text(json.dumps({"name": "X", "license": "cc-by-4.0"}))
    assert (collect(job)[1].license, collect(job)[1].said_by) == ("cc-by-4.0", "its card.json")
    (place / "README.md").write_text(front(license="mit"))
    assert collect(job)[1].license == "mit"


def test_prompts_say_it_in_the_job_or_in_the_card_of_their_data_set(desk: Desk) -> None:
    prompts = collect(desk.load())[-1]
    assert (prompts.what, prompts.name, prompts.license) == ("prompts", "prompts.jsonl", None)
    assert "prompts.license" in prompts.remedy
    (desk.folder / "set").mkdir()
    shutil.copy(desk.folder / "prompts.jsonl", desk.folder / "set" / "train.jsonl")
    (desk.folder / "set" / "README.md").write_text(front(license="cc-by-sa-4.0"))
    source = "prompts={dataset: set}"
    assert collect(desk.load(source))[-1].license == "cc-by-sa-4.0"
    assert collect(desk.load(source, "prompts.license=MIT"))[-1].license == "mit"


def test_judges_behind_endpoints_have_the_terms_that_the_job_or_the_command_gave(desk: Desk) -> None:
    judge = "judges=[{kind: openai, model: m, license: no-training}]"
    labels = ["classifier@2+5b", "openai@m+1", "openai@other+2", "openai-pairwise@third+3", "log-ratio@1"]
    calls = {"openai-pairwise@third+3": {"license": "unrestricted"}, "openai@other+2": {"license": None}}
    found = {each.what: each.license for each in of_judges(labels, desk.load(judge), calls)}
    assert found == {
        "judge classifier@2+5b": "apache-2.0",
        "judge openai@m+1": "no-training",
        "judge openai@other+2": None,
        "judge openai-pairwise@third+3": "unrestricted",
    }


# --------------------------------------------------------------------------- on the Hub


COLLECT = """
import json, sys
from pipeline.job.load import load_job
from pipeline.publish.licence_sources import collect
job = load_job(sys.argv[1], sys.argv[2:])
print(json.dumps([[each.what, each.license, each.license_link, each.said_by] for each in collect(job)]))
"""
OF_THE_HUB = (
    "model.id=me/model",
    "attributes=[{name: X, adapter: me/adapters, subfolder: e, description: x, reference: me/gone}]",
    "personas={kind: one-hot}",
    "prompts={file: prompts.jsonl, license: mit}",
)


def collected(desk: Desk, home: Path, endpoint: str, *overrides: str, **environment: str) -> dict[str, list[str]]:
    """In a process of its own: the Hub's client reads where the Hub and its cache are when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, str(desk.folder / "job.yaml"), *overrides],
        env=os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return {what: rest for what, *rest in json.loads(done.stdout)}


def test_the_hubs_cards_are_read_once_and_then_from_the_cache(desk: Desk, tmp_path: Path) -> None:
    link = {"license": "other", "license_name": "mine", "license_link": "LICENSE.md"}
    hub, home = Hub(), tmp_path / "home"
    hub.push("me/model", folder(tmp_path / "model", front(**link)))
    hub.push("me/adapters", folder(tmp_path / "adapters", front(license="cc-by-4.0")))
    hub.push("me/prompts", folder(tmp_path / "prompts", front(license="cc-by-sa-4.0")))
    hub.refusals["me/closed"] = GATED
    with serving_hub(hub) as endpoint:
        found = collected(desk, home, endpoint, *OF_THE_HUB)
        assert found["model"][:2] == ["other", "https://huggingface.co/me/model/blob/main/LICENSE.md"]
        assert found["adapter X"][0] == "cc-by-4.0" and found["adapter X"][2] == "its card on the Hub"
        assert found["reference of X"][0] is None and "no repository on the Hub" in found["reference of X"][2]
        gated = collected(desk, home, endpoint, *OF_THE_HUB, "model.id=me/closed")
        assert gated["model"][0] is None and "is gated" in gated["model"][2]
        n = len(hub.asked)
        again = collected(desk, home, endpoint, *OF_THE_HUB, "attributes=[E]", HF_HUB_OFFLINE="1")
        assert again["model"] == found["model"] and len(hub.asked) == n
    lost = collected(desk, tmp_path / "empty", "http://127.0.0.1:9", *OF_THE_HUB)
    assert lost["model"][0] is None and "can't be reached" in lost["model"][2]
    offline = collected(desk, tmp_path / "empty", "http://127.0.0.1:9", *OF_THE_HUB, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in offline["model"][2] and offline["prompts"][0] == "mit"


def test_a_data_set_of_the_hub_says_it_in_its_card(desk: Desk, tmp_path: Path) -> None:
    hub = Hub()
    hub.push("me/prompts", folder(tmp_path / "prompts", front(license="cc-by-sa-4.0")))
    with serving_hub(hub) as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", OF_PROMPTS],
            env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": endpoint, "HF_TOKEN": ""},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.split() == ["cc-by-sa-4.0"]


OF_PROMPTS = """
from mpg.models.hub import Place
from pipeline.publish.licence_sources import CardsOfTheHub
print(*CardsOfTheHub().said("dataset", Place("me/prompts"), "README.md").licenses)
"""


def test_the_stated_licence_is_one_of_the_hubs_or_named(desk: Desk) -> None:
    assert desk.load("card.license=Apache-2.0").card.license == "Apache-2.0"
    assert "card: license: 'apache2' is no licence identifier of the Hub; did you mean" in desk.line(
        "card.license=apache2"
    )
    assert "card: license_name: nothing given" in desk.line("card.license=other")
    assert "remove it" in desk.line("card={license: mit, license_link: LICENSE}")
    assert "prompts.license: 'cc' does not say" in desk.line("prompts.license=cc")
    assert "judges[0].license: 'free' is no licence" in desk.line("judges=[{kind: openai, model: m, license: free}]")
    for given, said in (
        ("license_name: a b, license_link: LICENSE", "card: license_name: 'a b' has spaces in it"),
        (
            'license_name: a, license_link: "javascript:alert(1)"',
            "card: license_link: 'javascript:alert(1)' is no address",
        ),
        ("license_name: a, license_link: my-licence.txt", "card: license_link: 'my-licence.txt' is no address"),
    ):
        assert said in desk.line(f"card={{license: other, {given}}}")
    # parts have no field for the name that it needs: what would stop the publishing is refused before the run
    assert "prompts.license: 'other' does not say what is asked; leave it out" in desk.line("prompts.license=other")
    assert "judges[0].license: 'other' does not" in desk.line("judges=[{kind: openai, model: m, license: other}]")
    named = desk.load("card={license: other, license_name: mine, license_link: LICENSE}").card
    assert (named.license, named.license_name) == ("other", "mine")


# --------------------------------------------------------------------------- a data set that is there


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of a data set that an older version wrote, which kept no record of licences."""
    return Path(shutil.copytree(OLD, tmp_path / "place")) / "out"


def test_an_older_data_set_is_asked_by_its_job(place: Path) -> None:
    with pytest.raises(LicenceError) as caught:
        licence_of(place)
    assert {line.split(" (")[0] for line in caught.value.lines} >= {"model", "prompts"}
    assert licence_of(place, "cc-by-4.0").front == {"license": "cc-by-4.0"}
    with pytest.raises(LicenceError, match="--license: 'cc-by' is no licence"):
        licence_of(place, "cc-by")
    with pytest.raises(LicenceError, match="--license-name: nothing given"):
        licence_of(place, "other")
    assert licence_of(place, "other", name="mine", link="LICENSE").license_name == "mine"


def test_what_is_stated_stands_on_the_card_and_stays(place: Path) -> None:
    before = {path: path.read_bytes() for path in place.rglob("*.parquet")}
    restate(place, "cc-by-4.0")
    text = (place / "README.md").read_text("utf-8")
    assert DatasetCard(text).data.license == "cc-by-4.0"
    assert licence_of(place).stated and licence_of(place).license == "cc-by-4.0"
    restate(place, "cc-by-4.0")
    assert (place / "README.md").read_text("utf-8") == text  # nothing to publish again
    restate(place, "other", name="mine", link="LICENSE")
    data = DatasetCard((place / "README.md").read_text("utf-8")).data
    assert (data.license, data.license_name, data.license_link) == ("other", "mine", "LICENSE")
    assert {path: path.read_bytes() for path in before} == before


def test_a_job_states_it_for_its_data_set(place: Path) -> None:
    job = json.loads((place / "job.json").read_text())
    (place / "job.json").write_text(json.dumps(job | {"card": {"license": "mit"}}))
    assert licence_of(place).front == {"license": "mit"} and licence_of(place).stated


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LicenceError, match=r"run\.json: can't be read in .*; run or fetch"):
        licence_of(tmp_path)


def test_the_demo_resolves_by_itself() -> None:
    job = load_job(Path(__file__).parents[3] / "workflows" / "demo.yaml")
    assert resolve([*collect(job), *of_judges(["classifier@2+5b"], job, {})]).front == {"license": "apache-2.0"}
