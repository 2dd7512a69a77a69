"""Where weights come from: what is named, and what rows record of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mpg.models.hub import Place, PlaceError
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from tests.tiny_job import write_job


def test_a_subfolder_of_a_folder_is_the_folder_in_it(job_file: Path) -> None:
    place = job_file.parent
    before = Plan.of(load_job(job_file)).cells()
    shutil.copytree(place / "E", place / "many" / "of" / "E")
    shutil.copytree(place / "base", place / "many" / "base")
    attributes = [{"name": "E", "adapter": "many", "subfolder": "of/E"}, {"name": "J", "adapter": "J"}]
    write_job(place, attributes=attributes)
    assert Plan.of(load_job(job_file)).cells() == before


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("owner/name", Place("owner/name")),
        ("owner/name@v1", Place("owner/name", "v1")),
        ("owner/name@v1/a/b", Place("owner/name", "v1", "a/b")),
        ("owner/name/a", Place("owner/name", None, "a")),
        ("gpt2", Place("gpt2")),
        ("embedded/smollm2-135m-instruct", Place("embedded/smollm2-135m-instruct")),
    ],
)
def test_a_place_in_one_word(text: str, place: Place) -> None:
    assert Place.written(text) == place and str(place) == text


def test_a_folder_in_one_word_is_a_folder_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a@b" / "c"
    folder.mkdir(parents=True)
    assert Place.written(str(folder)) == Place(str(folder)) and Place.written(str(folder)).folder == folder
    with pytest.raises(PlaceError, match="is a folder, and 'v1' a revision on the Hub; remove it"):
        Place(str(folder), "v1").pinned()


@pytest.mark.parametrize("name", ["not an id", "a/b/c", "-x", "x" * 200])
def test_what_is_no_place_at_all_is_one_line(name: str) -> None:
    with pytest.raises(PlaceError, match="neither a folder here nor a Hub id") as caught:
        Place(name).pinned()
    assert "\n" not in str(caught.value)
