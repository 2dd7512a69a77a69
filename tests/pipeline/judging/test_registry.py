"""The kinds of judges: one table, and everything else agrees with it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import is_independent
from personas import MBTI, Attribute
from pipeline.job.judge_fields import (
    ClassifierJudge,
    EncoderJudge,
    Judges,
    LogRatioJudge,
    OpenAIJudge,
    PersonaMatchJudge,
)
from pipeline.job.known import KINDS, counted, is_remote, known_to
from pipeline.judging.registry import LOADERS, REMOTE_LOADERS, JudgeError, load_judge, load_remote_judge

OPENAI = OpenAIJudge(kind="openai", model="m")
SPECS: list[Judges] = [
    ClassifierJudge(kind="classifier"),
    EncoderJudge(kind="encoder"),
    PersonaMatchJudge(kind="persona-match"),
    LogRatioJudge(kind="log-ratio"),
    OPENAI,
]
NAMES = ("E", "profile", "captain")


def test_every_kind_has_its_model_and_its_loader() -> None:
    union = get_args(Judges)[0]
    assert {kind.model for kind in KINDS.values()} == set(get_args(union))
    for name, kind in KINDS.items():
        assert get_args(kind.model.model_fields["kind"].annotation) == (name,)
    assert set(LOADERS) == {name for name, kind in KINDS.items() if not kind.remote}
    assert set(REMOTE_LOADERS) == {name for name, kind in KINDS.items() if kind.remote}
    assert {spec.kind for spec in SPECS} == set(KINDS)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not is_remote(spec)], ids=lambda spec: spec.kind)
def test_what_is_known_without_loading_is_so(spec: Judges) -> None:
    judge = load_judge(spec)
    assert judge.name == spec.kind
    assert known_to(spec, NAMES) == tuple(name for name in NAMES if judge.knows(name))
    assert is_independent(judge.name) == (spec.kind != "log-ratio")


def test_which_attributes_count() -> None:
    classifier, encoder, match, log_ratio, openai = SPECS
    assert counted([classifier], NAMES) == counted([encoder], NAMES) == ["E"]
    assert counted([match, classifier], NAMES) == ["E", "profile"]
    assert counted([log_ratio], NAMES) == [] and counted([openai], NAMES) == list(NAMES)
    assert counted([], NAMES) == [] and set(known_to(classifier, list(MBTI))) == set(MBTI)


def test_a_judge_behind_an_endpoint_is_loaded_for_what_it_grades(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="see load_remote_judge"):
        load_judge(OPENAI)
    bold = [Attribute("bold", "Speaks boldly.")]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(JudgeError, match="judges: openai: api_key_env: the environment has no OPENAI_API_KEY"):
        load_remote_judge(OPENAI, bold, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    judge = load_remote_judge(OPENAI, bold, tmp_path)
    assert judge.name == "openai" and judge.knows("bold") and not judge.knows("E")
    assert load_remote_judge(OPENAI, bold, tmp_path, "pairwise").name == "openai-pairwise"
    with pytest.raises(JudgeError, match="attributes: captain: has no description"):
        load_remote_judge(OPENAI, [Attribute("captain", "")], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(JudgeError, match="can't be written"):
        load_remote_judge(OPENAI, bold, tmp_path / "file")


def test_a_job_files_entry_is_the_endpoints_settings_with_its_kind() -> None:
    assert list(OpenAIJudge.model_fields) == ["kind", *OpenAISettings.model_fields, "license"]
    assert OPENAI.answer_parameters == OpenAISettings(model="m").answer_parameters
