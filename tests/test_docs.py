"""What the documents say is there: every path, every room, every job file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.job.load import load_job

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TOP = ("benchmarks", "docs", "evaluation", "mpg", "personas", "pipeline", "tests", "tools", "workflows")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text("utf-8")
    named = set(re.findall(rf"\b((?:{'|'.join(TOP)})/[\w./-]*\w\.(?:py|yaml|md|jsonl))", text))
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link}
    missing = {each for each in named if not (ROOT / each).exists() and not (document.parent / each).exists()}
    missing |= {link for link in links if link and not (document.parent / link).exists()}
    assert not missing


def test_every_module_that_a_document_starts_is_there() -> None:
    for document in DOCUMENTS:
        for module in re.findall(r"python -m ((?:tools|evaluation|pipeline|mpg)[\w.]*)", document.read_text("utf-8")):
            assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file(), (document.name, module)


@pytest.mark.parametrize("package", ["mpg", "evaluation", "pipeline"])
def test_the_map_of_the_house_is_the_map_of_its_rooms(package: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    start = text.index(f"| `{package}/` | |")
    table = text[start : text.index("\n\n", start)]
    listed = set(re.findall(r"`(\w+)(?:/|\.py)`", "".join(row.split("|")[1] for row in table.splitlines()[2:])))
    rooms = {path.name for path in (ROOT / package).iterdir() if path.is_dir() and list(path.glob("*.py"))}
    files = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert listed == rooms | files


def test_the_readmes_own_job_is_a_job(tmp_path: Path) -> None:
    """Own prompts, an own LoRA, a judge behind an endpoint: as it stands there."""
    (job,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), flags=re.S)
    (tmp_path / "job.yaml").write_text(job)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    (tmp_path / "adapters" / "curious").mkdir(parents=True)
    (tmp_path / "adapters" / "curious" / "adapter_config.json").write_text("{}")
    loaded = load_job(tmp_path / "job.yaml")
    assert loaded.n_cells(1) == 2 and loaded.judges[0].kind == "openai"


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 135  # half of the 269 that it had
