"""Files in stores: the same laws on a disk, in memory, on a real S3 server and on a GCS emulator."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.exit_status import ExitStatus
from pipeline.plan import computed_with, read_with
from pipeline.publish.data_set import held_in
from pipeline.run.ending import has_its_scores
from pipeline.store import copies, files, lease, stop
from pipeline.store.dataset import copied, dead_ids, done_ids, is_complete, is_foreign, job_folder
from pipeline.store.detached import Detached, Until, forget, note, note_its_cost, noted
from pipeline.store.errors import OutputError, output_errors
from pipeline.store.exchange import exchange, finish_exchange, next_files, whole_here
from pipeline.store.lock import FolderInUse, FolderLock
from pipeline.store.manifest import files_of
from pipeline.store.places import expanded, is_local, is_url, joined, url_problem
from pipeline.store.spending import Spending
from pipeline.store.state import is_output, state_of
from pipeline.store.stop import StopFile
from tests.store_servers import BUCKET, gcs_server, s3_environment, s3_server, unsteady

KINDS = ("disk", "memory", "s3", "gs")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    with s3_server() as s3, gcs_server() as gcs:
        yield s3 | gcs


@pytest.fixture(params=KINDS)
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of each kind of place."""
    if request.param in ("s3", "gs"):
        for name, value in request.getfixturevalue("servers").items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem(request.param).clear_instance_cache()
    name = uuid.uuid4().hex
    where = {"disk": str(tmp_path / name), "memory": f"memory://{name}"}
    place = expanded(where.get(request.param, f"{request.param}://{BUCKET}/{name}"))
    files.make_folder(place)
    return place


def test_what_is_put_is_there_whole_and_replaced_whole(root: Path) -> None:
    files.write_bytes(b"one", root / "a.bin")
    files.write_bytes(b"other", root / "a.bin")
    assert files.read_bytes(root / "a.bin") == b"other" and files.exists(root / "a.bin")
    assert files.listing(root) == {"a.bin": 5}
    with pytest.raises(FileNotFoundError):
        files.read_bytes(root / "b.bin")
    assert not files.exists(root / "b.bin")


def test_workers_of_a_detached_job_hold_its_deadline(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(stop, "_LOOK_IN_STORE_EVERY_S", 0.0)
    file, now = StopFile.of(root), time.time()
    job = Detached("PortableRunner", (), now, 2, 1.5, Until(now + 3600, "deadline 1h reached", ExitStatus.TRY_AGAIN))
    note(root, job)
    assert noted(root) == job and not file.watcher()() and file.found() is None
    assert job.until is not None
    note(root, past := replace(job, until=replace(job.until, at=now - 1)))
    assert file.watcher()() and file.reason() == "deadline 1h reached"
    file.clear()
    note(root, replace(past, ended=now + 7200))  # it is over, and somebody else works there
    assert not file.watcher()()
    note_its_cost(root, replace(job, ended=now + 7200))
    note_its_cost(root, replace(job, ended=now + 7200))
    assert Spending(root).earlier.total == pytest.approx(2 * 2 * 1.5)
    forget(root)
    assert noted(root) is None and not file.watcher()()


def test_listings_are_what_is_there_now(root: Path) -> None:
    assert files.listing(root / "none") == {} and files.files_below(root) == []
    for name in ("b.parquet", "a.parquet", "c.json"):
        files.make_folder(root / "in")
        files.write_bytes(name.encode(), root / "in" / name)
        assert name in files.listing(root / "in")
    assert list(files.listing(root / "in", ".parquet")) == ["a.parquet", "b.parquet"]
    assert files.files_below(root) == ["in/a.parquet", "in/b.parquet", "in/c.json"]
    files.remove(root / "in" / "a.parquet")
    files.remove(root / "in" / "a.parquet")
    assert list(files.listing(root / "in", ".parquet")) == ["b.parquet"]
    written = files.newest(root / "in")
    assert written is not None and abs(written - time.time()) < 600 and files.newest(root / "none") is None
    files.remove_tree(root / "in")
    assert files.listing(root / "in") == {}


def test_moves_and_copies_keep_the_content(root: Path, tmp_path: Path) -> None:
    files.write_bytes(b"x", root / "a")
    files.move(root / "a", root / "b")
    assert files.listing(root) == {"b": 1}
    files.copy(root / "b", root / "c")
    files.copy(root / "c", tmp_path / "down")
    files.copy(tmp_path / "down", root / "up")
    assert files.listing(root) == {"b": 1, "c": 1, "up": 1} and (tmp_path / "down").read_bytes() == b"x"


# Not on the emulator of GCS, which ignores ifGenerationMatch=0: there a lease looks again who holds it (below).
@pytest.mark.parametrize("root", ["disk", "memory", "s3"], indirect=True)
def test_of_several_that_create_a_file_one_does(root: Path) -> None:
    made: list[bool] = []
    threads = [
        threading.Thread(target=lambda i=i: made.append(files.create(str(i).encode(), root / "lock"))) for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 4 + [True]


def test_a_copy_here_is_made_again_where_it_has_changed(root: Path) -> None:
    files.make_folder(root / "adapter")
    for name, content in (("config.json", b"{}"), ("weights", b"w")):
        files.write_bytes(content, root / "adapter" / name)
    copy = copies.here(root / "adapter")
    assert copy.name == "adapter" and sorted(each.name for each in copy.iterdir()) == ["config.json", "weights"]
    assert copies.here(root / "adapter") == copy
    files.write_bytes(b"other", root / "adapter" / "weights")
    assert (copies.here(root / "adapter") / "weights").read_bytes() == b"other"
    assert copies.here(root / "adapter" / "config.json").read_bytes() == b"{}"
    if not is_local(root):
        with pytest.raises(FileNotFoundError):
            copies.here(root / "nowhere")


@pytest.mark.parametrize("root", ["memory", "s3", "gs"], indirect=True)
def test_a_copy_without_some_folders_holds_what_is_left(root: Path, tmp_path: Path) -> None:
    for name in ("a", "in/b", ".work/c", ".work/d/e", "in/.work"):
        files.write_bytes(name.encode(), root / name)
    copy = copies.here(root, without=(".work",))
    assert files.files_below(copy) == ["a", "in/.work", "in/b"]
    files.write_bytes(b"other", root / ".work" / "c")
    assert copies.here(root, without=(".work",)) == copy
    files.write_bytes(b"other", root / "a")
    new = copies.here(root, without=(".work",))
    assert (new / "a").read_bytes() == b"other" and (copy / "a").read_bytes() == b"a"
    assert (new / "in" / "b").samefile(copy / "in" / "b")  # held once
    assert copies.with_urls(f"{new / 'in'}: no") == f"{root}/in: no" and copies.with_urls(str(tmp_path)) == str(
        tmp_path
    )
    assert copies.origin_of(new / "in") == root / "in" and copies.origin_of(tmp_path) == tmp_path


def test_a_data_set_is_copied_as_it_is_at_one_moment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while its files are exchanged: what was begun is finished first, by whoever does it."""
    files.make_folder(root / ".work")
    for name in ("a", "b"):
        files.write_bytes(b"old", root / name)
    coming = next_files(root)
    for name in ("a", "b"):
        files.write_bytes(b"new", coming / name)

    def killed(source: Path, target: Path) -> None:
        if target.name == "b":
            raise KeyboardInterrupt
        files.move(source, target)

    with pytest.raises(KeyboardInterrupt):
        exchange(root, [], coming=coming, replace=killed)
    copy = whole_here(root)
    assert {files.read_bytes(copy / name) for name in ("a", "b")} == {b"new"}


def test_parquet_is_read_from_anywhere(root: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "t.parquet")
    files.copy(tmp_path / "t.parquet", root / "t.parquet")
    assert files.read_parquet(root / "t.parquet", ["b"]).to_pydict() == {"b": ["x", "y"]}


def test_an_exchange_that_was_killed_is_finished_by_the_next_command(root: Path) -> None:
    for name in ("data/old.parquet", "manifest.json", ".work/x"):
        files.make_folder((root / name).parent)
        files.write_bytes(b"old", root / name)
    coming = next_files(root)
    for name in ("data/new.parquet", "manifest.json", "README.md"):
        files.make_folder((coming / name).parent)
        files.write_bytes(b"new", coming / name)
    moved = []

    def killed_after_one(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        files.move(source, target)

    with pytest.raises(KeyboardInterrupt):
        exchange(root, ["data"], coming=coming, replace=killed_after_one)
    finish_exchange(root)
    new = ["README.md", "data/new.parquet", "manifest.json"]
    assert files.files_below(root) == [".work/x", *new]
    assert {files.read_bytes(root / name) for name in new} == {b"new"}


def test_a_stop_is_seen_by_workers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.stop._LOOK_IN_STORE_EVERY_S", 0.0)
    stop = StopFile.of(root)
    requested = stop.watcher()
    assert not requested() and stop.found() is None
    stop.request("enough")
    stop.request("later")
    time.sleep(0.3)
    assert requested() and stop.reason() == "enough"
    stop.clear()
    assert stop.found() is None


def test_one_works_on_a_folder_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.2)
    monkeypatch.setattr(lease, "_LOOK_EVERY_S", 0.1)
    for _ in range(2):
        with FolderLock(root), pytest.raises(FolderInUse, match=r"is in use by another process \(host .*, pid \d+\)"):
            FolderLock(root).__enter__()
    with FolderLock(root), pytest.raises(FolderInUse):
        FolderLock(root, shared=True).__enter__()
    with FolderLock(root, name="other"), FolderLock(root):
        pass


def test_some_share_a_folder_and_nobody_has_it_alone_then(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.2)
    monkeypatch.setattr(lease, "_LOOK_EVERY_S", 0.1)
    with FolderLock(root, shared=True):
        with FolderLock(root, shared=True), pytest.raises(FolderInUse, match=r"another process"):
            FolderLock(root).__enter__()
        FolderLock(root).look()  # nobody has it alone
        with FolderLock(root, name="other"), pytest.raises(FolderInUse):
            FolderLock(root).__enter__()
    with FolderLock(root):
        with pytest.raises(FolderInUse):
            FolderLock(root).look()
        with pytest.raises(FolderInUse):
            FolderLock(root, shared=True).__enter__()
    if not is_local(root):
        assert files.files_below(root) == []


@pytest.mark.parametrize("root", ["memory", "s3", "gs"], indirect=True)  # of a disk's lock the system lets go
def test_a_lease_whose_holder_is_dead_is_taken_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 1.0)
    monkeypatch.setattr(lease, "_LOOK_EVERY_S", 0.1)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = lease.socket.gethostname()
    for host, pid, least in ((here, gone.pid, 0.0), ("elsewhere", 1, 1.0)):
        files.write_bytes(f'{{"host": "{host}", "pid": {pid}, "token": "t", "beat": 7}}'.encode(), root / "lock")
        began = time.monotonic()
        with FolderLock(root):
            assert time.monotonic() - began >= least
        assert not files.exists(root / "lock")
        files.write_bytes(
            f'{{"host": "{host}", "pid": {pid}, "token": "t", "beat": 7}}'.encode(), root / "lock-shared/t"
        )
        with FolderLock(root, shared=True):  # beside it, dead or not
            pass
        with FolderLock(root):
            assert files.files_below(root) == ["lock"]


def test_what_can_not_be_read_now_is_not_taken_for_what_is_not_there(
    servers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's own `isfile` takes any error for a no: a run would then write a data set, or a budget, anew."""
    with unsteady(servers["AWS_ENDPOINT_URL"], lambda n: 403) as (address, counter):
        for name, value in s3_environment(address).items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        place = expanded(f"s3://{BUCKET}/{uuid.uuid4().hex}/out")
        asked: list[Callable[[Path], object]] = [
            *(files.exists, files.is_file, files.is_folder, files.is_filled, files.read_bytes, files.listing),
            *(
                files.files_below,
                copies.here,
                copied,
                whole_here,
                held_in,
                is_complete,
                is_foreign,
                job_folder,
                files_of,
                computed_with.kept,
            ),
            *(Spending, is_output, state_of, has_its_scores, finish_exchange, done_ids, dead_ids, read_with._kept),
            lambda output: StopFile.of(output).found(),
            lambda output: FolderLock(output).__enter__(),
        ]
        for ask in asked:
            before = counter["refused"]
            with pytest.raises(OSError, match=r"(?i)denied|forbidden"):
                ask(place)
            assert counter["refused"] > before
    fsspec.filesystem("s3").clear_instance_cache()


def test_copies_are_kept_where_nobody_else_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies.tempfile, "tempdir", str(tmp_path))
    files.write_bytes(b"x", expanded("memory://own/a"))
    copy = copies.here(expanded("memory://own/a"))
    (folder,) = tmp_path.iterdir()
    assert copy.is_relative_to(folder) and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="not a folder that you alone may write"):
        copies.here(expanded("memory://own/a"))


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    place = expanded("s3://bucket/x")
    with pytest.raises(OutputError) as caught, output_errors(place):
        files.write_bytes(b"", place / "a")
    assert "\n" not in str(caught.value) and "s3://bucket/x" in str(caught.value)
    assert "see to its address, keys and rights" in str(caught.value)
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize(
    ("url", "writes", "says"),
    [
        ("s3:///x", False, "names no bucket"),
        ("azure://c/x", False, "is no store that is known here"),
        ("hf://datasets/a/b", True, "can be read only"),
        ("s3://b/x", True, None),
        ("memory://b/x", True, None),
        ("file:///x", True, None),
    ],
)
def test_urls_that_can_not_be_opened_say_why(url: str, writes: bool, says: str | None) -> None:
    found = url_problem(url, writes=writes)
    assert (found is None) if says is None else (found is not None and says in found)


def test_a_store_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for url, extra in (("s3://b/x", "mpg-scr[s3]"), ("gs://b/x", "mpg-scr[gcp]")):
        assert extra in str(url_problem(url))


def test_places_are_joined_as_they_are_written(tmp_path: Path) -> None:
    store = expanded("memory://b/jobs")
    assert str(joined(store, "../out")) == "memory://b/out" and str(joined(store, "a/b")) == "memory://b/jobs/a/b"
    assert joined(tmp_path, "out") == tmp_path / "out" and joined(store, tmp_path) == tmp_path
    assert str(joined(tmp_path, "memory://b/out")) == "memory://b/out"
    assert expanded(f"file://{tmp_path}") == tmp_path and is_url("s3://b") and not is_url("a/b")


def test_a_file_in_a_folders_place_is_not_said_to_be_gone(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.write_text("mine")
    with pytest.raises(OutputError, match="is no folder, and files go into one; name another"), output_errors(place):
        place.mkdir()
