"""The judge that ``mpg train`` puts beside an adapter: fitted, left out, added later, and why there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.features.embedding import SentenceEmbedder, model_folder
from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE, own_judge
from personas.examples import load_pairs
from personas.preferences import split
from pipeline.cli import main
from pipeline.commands.train_judge import PairsJudge
from tests.fakes import tiny_adapter, tiny_llama
from tests.own_judge import pairs

RECIPE = ["--steps", "1", "--batch-size", "2", "--rank", "2", "--max-pairs", "2"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and two tables of pairs."""
    folder = tmp_path_factory.mktemp("desk")
    tiny_llama(folder / "base")
    enough, (to_fit, to_measure) = pairs(90), split(pairs(90))
    for name, some in (("pairs", enough), ("few", to_fit[:8] + to_measure[:2])):
        rows = [{"prompt": pair.question, "chosen": pair.chosen, "rejected": pair.rejected} for pair in some]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def train(desk: Path, output: Path, *arguments: str, table: str = "pairs.jsonl") -> int:
    where = [str(desk / table), "--name", "keen", "--output", str(output), "--model", str(desk / "base")]
    return main(["train", *where, *RECIPE, *arguments])


def test_an_adapter_comes_with_a_judge_and_a_description(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "keen"
    assert train(desk, output, "--description", "Is keen.", "--opposite", "Is dull.") == 0
    own = own_judge(output)
    assert own is not None and own.counted and own.attribute == "keen"
    assert f"a judge of keen beside it ({CARD_FILE}): {own.worth}" in capsys.readouterr().out
    card, judges = (json.loads((output / file).read_text("utf-8")) for file in ("card.json", CARD_FILE))
    assert (card["description"], card["opposite"]) == ("Is keen.", "Is dull.")
    assert (judges["description"], judges["opposite"], judges["data"]) == ("Is keen.", "Is dull.", card["data"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keen"]  # no scratch is left
    assert own.weights.stat().st_size < 500_000
    mine = (output / WEIGHTS_FILE).read_bytes()
    assert train(desk, output, "--judge-only") == 0
    assert (output / WEIGHTS_FILE).read_bytes() == mine  # the same pairs, the same judge


@pytest.mark.long
def test_several_processes_fit_one_judge(desk: Path, tmp_path: Path) -> None:
    output = tmp_path / "keen"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = ["-m", "pipeline.cli", "train", str(desk / "pairs.jsonl"), "--name", "keen", "--output", str(output)]
    done = subprocess.run(
        [*launch, *command, "--model", str(desk / "base"), *RECIPE],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("a judge of keen beside it") == 1 and own_judge(output) is not None


def test_with_too_few_pairs_the_adapter_is_trained_all_the_same(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "keen"
    assert train(desk, output, table="few.jsonl") == 0
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("no judge of keen: ")]
    assert "8 questions to fit one on, and 10 are needed" in line and line.endswith(
        "then mpg train --judge-only adds one"
    )
    assert own_judge(output) is None and "reward accuracy" in printed


def test_no_judge_and_judge_only(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_adapter(desk / "base", tmp_path / "keen", seed=1)
    assert train(desk, tmp_path / "bare", "--no-judge") == 0
    assert own_judge(tmp_path / "bare") is None and "judge of keen" not in capsys.readouterr().out
    assert train(desk, folder, "--judge-only", table="few.jsonl") == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("mpg: ")]
    assert "no judge of keen: " in line and "questions to fit one on" in line and own_judge(folder) is None
    assert train(desk, folder, "--judge-only") == 0
    assert own_judge(folder) is not None and "a judge of keen beside it" in capsys.readouterr().out


def test_without_the_sentence_embeddings_a_line_says_how_to_get_them(desk: Path, tmp_path: Path) -> None:
    def missing() -> SentenceEmbedder:
        model_folder("no_such_package")
        raise AssertionError("a package of that name is installed")

    examples = load_pairs(desk / "pairs.jsonl")
    judge = PairsJudge("keen", examples, examples, {}, embedder=missing)
    judge.fit(tmp_path)
    assert not judge.fitted and not list(tmp_path.iterdir()) and "\n" not in judge.line
    assert judge.line.startswith("no judge of keen: the embedding model ") and "pip install" in judge.line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--judge-only"], ": no adapter is there; give its folder, or no --judge-only"),
        (["--judge-only", "--no-judge"], "--judge-only, --no-judge: both are given"),
    ],
)
def test_each_mistake_has_its_line(
    desk: Path, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(desk, tmp_path / "keen", *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert len(lines) == 1 and says in lines[0]
