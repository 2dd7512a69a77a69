"""The judge beside an adapter on disk: found, refused when damaged, told from others by its label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evaluation.features.embedding import MOST_REMEMBERED, RecentTexts
from evaluation.items import UNCOUNTED, heard, is_independent, label_of, own_attribute, same_judge
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE, OwnJudge, own_judge
from evaluation.judges.weights_card import JudgeWeightsError, sha256
from tests.evaluation.judges.test_classifier import CountingEmbedder
from tests.own_judge import WordlessEmbedder, put_judge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put_judge(tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: object) -> None:
    file = folder / CARD_FILE
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def test_no_judge_is_no_error(tmp_path: Path) -> None:
    assert own_judge(tmp_path) is None and own_judge(tmp_path / "nowhere") is None


def test_a_moved_folder_takes_its_judge_along(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "published")
    moved = own_judge(tmp_path / "published")
    assert moved is not None and moved.counted and moved.folder == tmp_path / "published"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": "0" * 64}, "SHA-256 differs"),
        ({"format": 2}, "no card of a judge, or of another format"),
        ({"version": 1}, "no card of a judge, or of another format"),
        ({"dimensions": []}, "no card of a judge"),
        ({"dimensions": {}}, "no card of an adapter's own judge"),
        ({"counted": "yes"}, "no card of an adapter's own judge"),
        ({"name": None}, "no card of an adapter's own judge"),
        ({"worth": 1}, "no card of an adapter's own judge"),
    ],
)
def test_a_card_of_something_else_is_refused(folder: Path, changes: dict, says: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(JudgeWeightsError, match=says):
        own_judge(folder)


@pytest.mark.parametrize("file", [WEIGHTS_FILE, CARD_FILE])
def test_half_a_judge_is_refused(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(JudgeWeightsError, match="missing"):
        own_judge(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff{", b'{"format": 1'])
def test_a_card_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / CARD_FILE).write_bytes(content)
    with pytest.raises(JudgeWeightsError):
        own_judge(folder)


def tensors_with(folder: Path, name: str, value: np.ndarray | None) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    key = next(each for each in tensors if each.endswith(f".{name}"))
    tensors.pop(key)
    if value is not None:
        tensors[key] = value
    save_file(tensors, folder / WEIGHTS_FILE)
    rewrite(folder, sha256=sha256(folder / WEIGHTS_FILE))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("intercept", None),
        ("intercept", np.array([np.nan])),
        ("ngram_coef", np.zeros(5, dtype=np.float16)),
        ("embedding_coef", np.zeros(384, dtype=np.int32)),
    ],
)
def test_weights_of_another_shape_are_refused(folder: Path, name: str, value: np.ndarray | None) -> None:
    tensors_with(folder, name, value)
    own = own_judge(folder)
    assert own is not None
    with pytest.raises(JudgeWeightsError, match="is damaged"):
        ClassifierJudge.beside_adapter(own, "curious", embedder=WordlessEmbedder())


def test_weights_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes(b"\x80\x04K\x01.")  # a pickle
    rewrite(folder, sha256=sha256(folder / WEIGHTS_FILE))
    own = own_judge(folder)
    assert own is not None
    with pytest.raises(JudgeWeightsError, match="is damaged"):
        ClassifierJudge.beside_adapter(own, "curious", embedder=WordlessEmbedder())


def test_its_label_names_attribute_and_fit(folder: Path) -> None:
    own = own_judge(folder)
    assert own is not None

    def label(attribute: str, own: OwnJudge = own, **how: float) -> str:
        return label_of(ClassifierJudge.beside_adapter(own, attribute, embedder=WordlessEmbedder(), **how))

    first = label("curious")
    assert first == f"own-classifier@curious+1+{sha256(own.weights)[:8]}" and own_attribute(first) == "curious"
    assert len({first, label("E"), label("curious", abstain=0.1)}) == 3
    tensors_with(folder, "intercept", np.array([0.25]))  # another fit
    assert label("curious") != first and same_judge(label("curious"), first)
    assert not same_judge(label("E"), first)
    rewrite(folder, counted=False)
    poor = own_judge(folder)
    assert poor is not None
    unproven = label("curious", poor)
    assert unproven.startswith("own-classifier-unproven@curious+") and not is_independent(unproven)
    assert same_judge(unproven, first)  # fitted again on fewer pairs, it takes the other's place
    assert own_attribute("classifier@2+cc") is None and own_attribute("openai@m+1") is None


def test_of_an_attribute_with_its_own_judge_those_that_ship_are_not_heard() -> None:
    counts = heard({"classifier@2+cc", "own-classifier@E+1+ab", "log-ratio@1", "openai@m+1"})
    assert counts("own-classifier@E+1+ab", "E") and counts("openai@m+1", "E") and counts("classifier@2+cc", "J")
    assert not counts("classifier@2+cc", "E") and not counts("log-ratio@1", "E")
    assert not counts("classifier@1+cc", "J")  # of another version
    both = heard({"encoder@1+aa", "own-classifier@E+1+ab"})
    assert both("encoder@1+aa", "J") and not both("encoder@1+aa", "E")
    unproven = heard({"classifier@2+cc", "own-classifier-unproven@E+1+ab"})
    assert unproven("classifier@2+cc", "E") and not unproven("own-classifier-unproven@E+1+ab", "E")
    assert "own-classifier-unproven" in UNCOUNTED


def test_texts_are_embedded_once_for_judges_in_turn() -> None:
    counting = CountingEmbedder()
    recent = RecentTexts(counting)
    recent.embed(["a", "b", "a"])
    assert recent.embed(["b", "c"]).shape == (2, 384) and recent.embed([]).shape == (0, 384)
    assert [call for call in counting.calls if call] == [["a", "b"], ["c"]]
    recent.embed([str(i) for i in range(MOST_REMEMBERED)])
    recent.embed(["c"])
    assert counting.calls[-1] == ["c"]  # forgotten by then
