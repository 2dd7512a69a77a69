"""What the Flex Template is built and started with: image, requirements, script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "workflows" / "dataflow"
PLACES = {"PROJECT": "some-project", "REGION": "europe-west4", "BUCKET": "bucket", "TAG": "1"}


def pins(path: Path) -> dict[str, str]:
    """Package, as PyPI writes it -> version."""
    lines = (line.partition("==") for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#"))
    return {re.sub("[-_.]+", "-", name).lower(): version for name, equals, version in lines if equals}


def test_the_image_has_the_versions_that_are_tested() -> None:
    image, tested = pins(FOLDER / "requirements.txt"), pins(ROOT / "constraints.txt")
    assert {
        name: (version, tested[name]) for name, version in image.items() if tested.get(name, version) != version
    } == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["gcp"]]
    names = {re.sub("[-_.]+", "-", re.split(r"[\[<>=]", each)[0]).lower() for each in wanted}
    assert names - set(image) == set()
    # Of apache-beam[gcp], what a submission takes, which a plain apache-beam lacks.
    assert {"google-cloud-dataflow-client", "google-cloud-storage", "gcsfs"} <= set(image)


def test_the_image_has_what_launcher_and_workers_start() -> None:
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    assert f"ARG BEAM={pins(FOLDER / 'requirements.txt')['apache-beam']}\n" in text  # boot is of the same version
    assert "COPY --from=beam /opt/apache/beam /opt/apache/beam\n" in text
    launcher = "/opt/google/dataflow/python_template_launcher"
    assert f"COPY --from=launcher {launcher} {launcher}\n" in text
    assert text.rstrip().endswith('ENTRYPOINT ["/opt/apache/beam/boot"]')
    assert "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1" in text and "HF_HUB_OFFLINE=${OFFLINE}" in text
    (started,) = re.findall(r"FLEX_TEMPLATE_PYTHON_PY_FILE=(\S+)", text)
    assert f"COPY workflows/dataflow/launch.py {started}\n" in text
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for each in source.split():
            assert (ROOT / each).exists(), each
    packages = (ROOT / "Makefile").read_text("utf-8").split("MODEL_PACKAGES := ")[1].splitlines()[0]
    assert packages in text
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text("utf-8")
    assert ignored == (FOLDER / "gcloudignore").read_text("utf-8")
    build = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text("utf-8"))
    assert "workflows/dataflow/Dockerfile" in build["steps"][0]["args"] and build["images"] == ["${_IMAGE}"]


@pytest.fixture
def gcloud(tmp_path: Path) -> Path:
    """A program that writes down what it was started with."""
    script = tmp_path / "gcloud"
    script.write_text(
        f'#!/bin/sh\nfor each; do printf "%s\\n" "$each" >> {tmp_path}/words; done\necho >> {tmp_path}/words\n'
    )
    script.chmod(0o755)
    return script


def started(gcloud: Path, *words: str, **variables: str) -> list[list[str]]:
    """The command lines that the script gives to gcloud."""
    environment = os.environ | PLACES | {"GCLOUD": str(gcloud)} | variables
    done = subprocess.run([str(FOLDER / "flex.sh"), *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = (gcloud.parent / "words").read_text().split("\n\n")
    return [call.splitlines() for call in calls if call.strip()]


def test_the_script_builds_image_and_template(gcloud: Path) -> None:
    image, template = started(gcloud, "build")
    name = "europe-west4-docker.pkg.dev/some-project/mpg/mpg-scr:1"
    assert image[:3] == ["builds", "submit", "."] and f"_IMAGE={name}" in image
    assert template[:4] == ["dataflow", "flex-template", "build", "gs://bucket/templates/mpg-scr-1.json"]
    assert template[template.index("--image") + 1] == name
    assert (ROOT / template[template.index("--metadata-file") + 1]).is_file()


@pytest.mark.parametrize(
    "variables", [{}, {"ACCELERATOR": "", "MACHINE": "n2-standard-16", "MAX_WORKERS": "9"}], ids=str
)
def test_the_script_runs_a_job_with_parameters_that_the_template_has(gcloud: Path, variables: dict[str, str]) -> None:
    extra = ["set=judges=[];personas.steps=3", "model_dtype=bfloat16"]
    (run,) = started(gcloud, "run", "mpg-a", "gs://bucket/job.yaml", "gs://bucket/out", *extra, **variables)
    assert run[:4] == ["dataflow", "flex-template", "run", "mpg-a"]
    flags = dict(zip(run[4::2], run[5::2], strict=True))
    assert flags["--worker-machine-type"] == variables.get("MACHINE", "g2-standard-8")
    assert (flags["--num-workers"], flags["--max-workers"]) == ("1", variables.get("MAX_WORKERS", "4"))
    given = dict(run[i + 1].removeprefix("^~^").split("=", 1) for i, word in enumerate(run) if word == "--parameters")
    metadata = json.loads((FOLDER / "metadata.json").read_text("utf-8"))["parameters"]
    known = {each["name"]: each["regexes"][0] for each in metadata}
    for name, value in given.items():
        assert re.search(known[name], value), (name, value)
    assert given["job"] == "gs://bucket/job.yaml" and given["set"] == "judges=[];personas.steps=3"
    assert ("accelerator" in given) == (not variables)


def test_the_script_says_what_is_missing() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in PLACES}
    for words, missing in ((["run"], "PROJECT: is not set"), (["go"], "PROJECT: is not set")):
        done = subprocess.run([str(FOLDER / "flex.sh"), *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith(f"flex.sh: {missing}")
    done = subprocess.run([str(FOLDER / "flex.sh"), "go"], env=environment | PLACES, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "flex.sh: go: choose from build, run\n"
