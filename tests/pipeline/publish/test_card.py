"""The card: its front matter and its text hold, whatever is in the data set, and say what is there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from datasets import load_dataset

import mpg
from pipeline.publish.card.examples import examples
from pipeline.publish.data_set import write_judgments
from pipeline.publish.forms import SCHEMAS
from pipeline.publish.licences import restate
from pipeline.publish.rewrite import rewrite_card
from pipeline.store.columns import MEANINGS, undescribed
from pipeline.store.schema import GENERATIONS, JUDGMENTS
from tests.card_desk import MARKDOWN, body, card, cells, front, generations, judgment, section
from tests.job_desk import Desk

ROOT = Path(__file__).parents[3]
OLD = ROOT / "tests" / "data" / "schema-3"


# --------------------------------------------------------------------------- front matter


def test_the_front_matter_has_what_the_hub_asks_for(desk: Desk) -> None:
    data = front(card(desk, generations({"persona": "x"}), judgment("0", "E", 0.5), job=("card.language=en",)))
    assert {"language", "pretty_name", "tags", "task_categories", "size_categories", "source_datasets"} <= data.keys()
    assert data["annotations_creators"] == ["machine-generated"] and data["language"] == ["en"]
    assert [each["config_name"] for each in data["configs"]] == ["default", "judgments"]
    assert [each["config_name"] for each in data["dataset_info"]] == ["default", "judgments"]
    assert data["size_categories"] == ["n<1K"] and data["source_datasets"] == ["original"]
    assert data["pretty_name"] == "entj-demo" and "license" not in data  # its parts are not recorded


def test_prompts_of_the_hub_are_its_source(desk: Desk) -> None:
    rows = generations({"persona": "x"})
    (desk.folder / "mine").mkdir()
    known = {"me/prompts": "me/prompts", "squad": "squad", "mine": "original", "./mine": "original"}
    for dataset, expected in known.items():
        data = front(card(desk, rows, job=(f"prompts={{dataset: {dataset}}}",)))
        assert data["source_datasets"] == [expected]


def test_load_dataset_opens_the_folder_as_the_card_says(desk: Desk) -> None:
    rows = [{"persona": f"x{i}"} for i in range(3)]
    card(desk, generations(*rows), judgment("0", "E", 0.5))
    for place in ("job.yaml", "prompts.jsonl", "run.json", "manifest.json"):
        (desk.folder / place).unlink()
    assert load_dataset(str(desk.folder), cache_dir=desk.folder / ".cache")["train"]["persona"] == ["x0", "x1", "x2"]
    judged = load_dataset(str(desk.folder), "judgments", cache_dir=desk.folder / ".cache")["train"]
    assert judged["score"] == [0.5]


# --------------------------------------------------------------------------- what it says


def test_models_and_adapters_of_the_hub_are_links_with_their_licences(desk: Desk) -> None:
    commit = "a" * 40
    parts = [
        {"what": "model", "name": f"me/m[x]@{commit}", "license": "llama3.2", "said_by": "its card"},
        {"what": "adapter E", "name": f"me/a@{commit}/e", "license": "other", "license_name": "mine",
         "license_link": "https://example.org/x"},
        {"what": "prompts", "name": "me/p", "license": "mit"},
    ]  # fmt: skip
    run = {"licences": parts, "model": f"me/m@{commit}", "judges": []}
    text = section(card(desk, generations({}), run=run, job=("prompts={dataset: me/p}",)), "Licence")
    assert f"[me/a\\@aaaaaaa](https://huggingface.co/me/a/tree/{commit}) (`e`)" in text
    assert "(https://huggingface.co/datasets/me/p)" in text and "[other (mine)](https://example.org/x)" in text
    assert "no licence keeps the terms of all" in text and "mpg publish --license" in text
    stated = card(desk, generations({}), run=run, job=("card={license: cc-by-nc-4.0}",))
    assert front(stated)["license"] == "cc-by-nc-4.0" and "as its publisher states" in section(stated, "Licence")
    free = card(desk, generations({}), run=run | {"licences": parts[:1]})
    assert front(free)["license"] == "llama3.2" and "the strictest of its parts" in section(free, "Licence")


def test_examples_are_chosen_by_the_rule_that_the_card_states(desk: Desk) -> None:
    both = {"attributes": ["E", "N"], "weights": [0.75, 0.25], "strengths": [1.0, 1.0]}
    rows = generations(*({**both, "persona": "x", "response": f"text {i}"} for i in range(6)), {"persona": "reference"})
    scores = [(0.2, 0.2), (0.9, 0.1), (0.5, 0.5), (0.9, 0.1), (1.0, None), (0.6, 0.6)]
    judged = [judgment(str(i), a, s) for i, pair in enumerate(scores) for a, s in zip("EN", pair, strict=True)]
    found = examples(rows, pa.Table.from_pylist(judged, schema=JUDGMENTS), ["classifier@1"])
    # by .75 E + .25 N: .2 .7 .5 .7 - .6; the median of five is .6, the best of two the first
    assert [(each.why, each.row["row_id"]) for each in found] == [("best", "1"), ("median", "5"), ("worst", "0")]
    assert found[0].adherence == pytest.approx(0.7) and found[0].scores == {"E": 0.9, "N": 0.1}
    even = pa.Table.from_pylist([each for each in judged if each["row_id"] != "2"], schema=JUDGMENTS)
    assert examples(rows, even, ["classifier@1"])[1].row["row_id"] == "5"  # of .2 .6 .7 .7 the lower one
    text = section(card(desk, rows, *judged), "Examples")
    assert text.index("text 1") < text.index("text 5") < text.index("text 0") and "0.70 (E 0.90, N 0.10)" in text
    unjudged = section(card(desk, rows), "Examples")
    assert "the first text of the first and of the last persona" in unjudged and "text 0" in unjudged


def test_every_column_of_the_schema_is_described() -> None:
    assert undescribed() == undescribed(SCHEMAS) == []
    assert all(said.endswith(".") for table in MEANINGS.values() for said in table.values())


def test_the_tables_of_columns_have_every_column_of_the_files(desk: Desk) -> None:
    rows = generations({"persona": "x"}).append_column("metadata_a", pa.array([1]))
    rows = rows.append_column("metadata_b|é", pa.array(["x"]))
    text = section(card(desk, rows, judgment("0", "E", 0.5)), "What is in it")
    found = cells(text)
    names = [*GENERATIONS.names, "metadata_a", "metadata_b|é", *JUDGMENTS.names]
    assert [row[0] for row in found if row[0] != "column"] == names
    assert all(len(row) == 3 and all(row) for row in found)
    by_name = {row[0]: row[1] for row in found}
    assert by_name["prompt"] == "list of {role: text, content: text}" and by_name["metadata_a"] == "int64"


def test_scr_shows_its_measured_bound(desk: Desk) -> None:
    rows = generations(
        {"exact": True, "persona": "reference", "tv_bound": 0.0},
        {"exact": False, "tv_bound": 0.1},
        {"exact": False, "tv_bound": 0.3},
        {"exact": False, "tv_bound": None},
    )
    text = section(card(desk, rows, job=("decoder.name=scr",)), "How the texts were made")
    assert "0.200 on average and 0.300 at most, over the 2 of 3 texts" in text
    unknown = section(card(desk, rows.slice(3), job=("decoder.name=scr",)), "How the texts were made")
    assert "No bound on the distance is known for any of 1 texts" in unknown
    assert "sampled from this target exactly" in card(desk, rows.slice(0, 1))


@pytest.mark.parametrize("decoder", ["reference", "prompting", "routing", "mod", "soup", "pad", "drift", "best-of-n"])
def test_each_decoder_has_words(desk: Desk, decoder: str) -> None:
    rows = generations({"exact": decoder != "best-of-n"})
    text = section(card(desk, rows, job=(f"decoder.name={decoder}",)), "How the texts were made")
    assert f"`{decoder}`" in text and "{" not in text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["decoder.tell=reference"], "The reference is told in its prompt what the attributes are like; density ratios "
                                     "are between models that are not"),
        (["decoder.tell=all", "decoder.name=soup"], "Every model is told in its prompt what the attributes are like"),
        (["decoder.name=prompting", "decoder.wording=list"], "told `the reference`, wording `list`"),
    ],
)  # fmt: skip
def test_who_was_told_what_the_attributes_are_like(desk: Desk, settings: list[str], says: str) -> None:
    text = card(desk, generations({"log_prob_untold": -2.0}), job=tuple(settings))
    assert says in section(text, "How the texts were made")
    assert "Perplexity: under the reference model, told nothing of the attributes, at" in text
    plain = card(desk, generations({}))
    assert "wording" not in section(plain, "How the texts were made") and "told nothing of" not in plain.split("##")[4]


def test_near_duplicates_within_a_persona_are_counted(desk: Desk) -> None:
    same = " ".join(f"word{i}" for i in range(30))
    rows = generations({"persona": "a", "response": same}, {"persona": "a", "response": f"{same} more"},
                       {"persona": "b", "response": same})  # fmt: skip
    assert "**Near-duplicates**: 1 of 3 texts" in card(desk, rows)


def test_judges_that_do_not_count_say_why_and_others_what_they_are_worth(desk: Desk) -> None:
    run = {"own_judges": {"E": {"judge": "own-classifier@E+1", "worth": "held-out accuracy <b>.88"}}}
    labels = ("log-ratio@1", "openai@m+1", "own-classifier@E+1", "classifier@2", "encoder@1")
    given = [judgment("0", "E", 0.5, label) for label in labels] + [judgment("1", "E", None)]
    text = section(card(desk, generations({"persona": "x", "attributes": ["E"], "weights": [1.0]}), *given, run=run),
                   "Judged adherence")  # fmt: skip
    assert "counts in no mean: the generator's own models" in text and "asked by rubrics" in text
    assert "held-out accuracy \\<b\\>.88" in text and "E/I 0.88" in text and "E/I 0.85" in text
    assert "(1 judgments, 1 of them unscored)" in text


# --------------------------------------------------------------------------- any data set


def test_a_long_grid_is_cut_and_says_so(desk: Desk) -> None:
    rows = generations(*({"persona": f"p{i}"} for i in range(10_000)))
    text = card(desk, rows)
    assert len(text) < 40_000
    assert text.count("and 9976 more") == 2 and "10000 texts" in text


def test_one_row_and_the_control_alone(desk: Desk) -> None:
    text = card(desk, generations({"persona": "reference"}), judgment("0", "E", 0.5))
    assert "1 text by" in text and "under 1 persona," in text and "to 1 prompt." in text
    assert "none: the reference model alone" in text


def test_what_is_not_complete_says_so(desk: Desk) -> None:
    run = {"ended": {"complete": False, "why": "stopped by <you>"}}
    assert "**not complete**: stopped by \\<you\\>." in card(desk, generations({}), run=run)


def test_what_was_chosen_by_a_judge_says_so(desk: Desk) -> None:
    chosen = {"candidates": 9, "rows_per_cell": 2, "min_score": 0.6, "short": [1]}
    text = card(desk, generations({}), run={"accept": chosen})
    assert "of 9 candidates the first 2" in text and "1 cells fell short" in text


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of a data set that an older version wrote."""
    return Path(shutil.copytree(OLD, tmp_path / "place")) / "out"


def test_an_older_data_set_has_a_card_again(old: Path) -> None:
    rewrite_card(old)
    text = (old / "README.md").read_text("utf-8")
    assert "not recorded" in section(text, "Licence") and "kept no record" in section(text, "Licence")
    assert {row[0] for row in cells(section(text, "What is in it"))} >= {"row_id", "log_ratios", "score", "reason"}
    assert list(old.glob("figures/*.png"))
    assert all((old / image).is_file() for image in re.findall(r"\]\((figures/[^)]+)\)", text))
    before = text
    rewrite_card(old)
    assert (old / "README.md").read_text("utf-8") == before


def test_a_data_set_judged_later_has_the_new_judge_and_pictures_of_it(old: Path) -> None:
    judgments = pa.concat_tables(
        [pa.Table.from_pylist([judgment(row_id, "E", 0.5, "openai@m+1")], schema=JUDGMENTS) for row_id in ("a", "b")]
    )
    write_judgments(old, judgments, {"openai@m+1": {"calls": 2, "license": "no-training"}})
    text = (old / "README.md").read_text("utf-8")
    assert "openai@m+1" in section(text, "Judged adherence")
    assert "license" not in front(text) and front(text)["dataset_info"][1]["splits"][0]["num_examples"] == 2
    restate(old, "cc-by-4.0")
    text = (old / "README.md").read_text("utf-8")
    assert "judge `openai@m+1` |  | no-training" in section(text, "Licence")
    write_judgments(old, judgments, {})
    assert front((old / "README.md").read_text("utf-8"))["license"] == "cc-by-4.0"


def test_the_citation_is_the_projects_own(desk: Desk) -> None:
    text = section(card(desk, generations({}), run={"versions": {"mpg-scr": mpg.__version__}}), "Citation")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    paper = citation["references"][0]
    plain = re.sub(r"[{}]", "", text)
    assert citation["title"] in plain and citation["authors"][0]["name"] in plain
    assert paper["title"] in plain and str(paper["year"]) in plain and f"<{paper['url']}>" in text
    assert all(f"{each['family-names']}, {each['given-names']}" in plain for each in paper["authors"])
    assert f"version = {{{mpg.__version__}}}" in text


def links(text: str) -> Iterator[str]:
    for token in MARKDOWN.parse(body(text)):
        yield from (str(each.attrs["href"]) for each in token.children or () if each.type == "link_open")


def test_it_links_to_the_paper(desk: Desk) -> None:
    assert "https://arxiv.org/abs/2511.01891" in set(links(card(desk, generations({}))))
