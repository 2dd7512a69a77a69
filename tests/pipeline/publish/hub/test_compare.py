"""Whose file is whose, and what a commit may do: every situation of one path."""

from __future__ import annotations

import pytest

from pipeline.publish.hub.compare import Contents, compare, read_record, record_bytes

A, B, C = (Contents(1, f"git-{name}", f"sha-{name}") for name in "abc")
GIT_A = Contents(1, "git-a", None)  # the Hub says no SHA-256 of what it keeps in git
POINTER_A = Contents(1, "git-of-the-pointer", "sha-a")


@pytest.mark.parametrize(
    ("ours", "there", "known", "what", "may"),
    [
        (A, None, None, "new", True),
        (A, A, None, "same", True),
        (A, GIT_A, None, "same", True),
        (A, POINTER_A, None, "same", True),
        (A, POINTER_A, B, "same", True),
        (A, B, B, "changed", True),
        (B, GIT_A, A, "changed", True),
        (B, POINTER_A, A, "changed", True),
        (A, B, None, "changed", False),
        (A, B, C, "changed", False),
        (A, B, A, "changed", False),
        (A, None, A, "new", True),
        (None, A, A, "removed", True),
        (None, GIT_A, A, "removed", True),
        (None, A, B, "removed", False),
        (None, A, None, "beside", True),
        (None, None, A, None, True),
    ],
)
def test_one_path(ours: Contents | None, there: Contents | None, known: Contents | None, what: str, may: bool) -> None:
    def of(each: Contents | None) -> dict[str, Contents]:
        return {} if each is None else {"x": each}

    for overwrite in ((), ("x",)):
        changes = compare(of(ours), of(there), of(known), overwrite)
        names = ("new", "changed", "same", "removed", "beside")
        assert [name for name in names if getattr(changes, name) == ("x",)] == ([what] if what else [])
        assert list(changes.others) == ([] if may or overwrite else ["x"])
        assert changes.none == (what in ("same", "beside", None))


def test_the_record_is_the_same_for_the_same_files_and_reads_back() -> None:
    files = {"b": B, "a": A}
    assert record_bytes(files) == record_bytes(dict(sorted(files.items())))
    assert read_record(record_bytes(files)) == files


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"format": 2, "files": {}}', b'{"format": 1, "files": {"a": 1}}', b'{"format": 1}']
)
def test_what_is_no_record(content: bytes) -> None:
    assert read_record(content) is None


def test_files_and_folders_in_each_other_s_way() -> None:
    assert set(compare({"a/b": A}, {"a": B}, {}, ("*",)).others) == {"a"}
    assert set(compare({"a": A}, {"a/b": B}, {}, ("*",)).others) == {"a/b"}
