"""A data set put together by workers is, byte for byte, the one that a single process puts together."""

from __future__ import annotations

import json
import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.beam.execute import run_graph
from pipeline.beam.supervise import GraphFailed, WorkerDied
from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.publish import digest as digests
from pipeline.publish.join import blocks, graph
from pipeline.publish.join.blocks import Measured, Part, parts_of
from pipeline.publish.sums import Sums
from pipeline.run import coming, run
from pipeline.store.copies import here
from pipeline.store.dataset import FOLDERS
from pipeline.store.files import exists
from pipeline.store.layout import Sizes
from pipeline.store.manifest import changed_files
from pipeline.store.places import expanded
from tests.beam_servers import Servers
from tests.pipeline.run.test_by_range import FAULTS, said
from tests.run_process import wait_for
from tests.store_servers import BUCKET, s3_server
from tests.tiny_job import checksums, make_job, rows

LONGEST_S = 400.0
SMALL = Sizes(range_bytes=2_000, group_bytes=700)
PROMPTS = ("hello you", "what now?", "hello you", "", "tell me more", "say it", "and so?")


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sizes.__init__, "__defaults__", (SMALL.range_bytes, SMALL.group_bytes))


def by_workers(monkeypatch: pytest.MonkeyPatch, block_rows: int = 7) -> list[int]:
    """From here on runs have workers that put data sets together, block by block; returns how many have done so."""
    done: list[int] = []

    def counted(*arguments: Any) -> dict[str, Any]:
        found = run_graph(*arguments)
        done.append(len(found["written"]))
        return found

    monkeypatch.setattr(coming, "run_graph", counted)
    for module in (coming, run):
        monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(run, "LEAST_WORKERS", 2)
    monkeypatch.setattr(run, "n_workers", lambda options: 2)
    return done


def run_it(job_file: Path, output: Path, *more: str) -> int:
    return main(["run", str(job_file), "--output", str(output), *more])


def counts(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "run.json").read_text())["counts"])


WEIGHTS = {"by": "weights", "region": {"E": [0.4, 0.6]}}


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    ("changes", "block_rows"),
    [({}, 1), ({"split": {"by": "prompt", "test_fraction": 0.4}}, 7), ({"split": WEIGHTS, "samples_per_cell": 3}, 20)],
    ids=["no split", "by prompt", "by weights"],
)
def test_the_files_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], block_rows: int
) -> None:
    job_file = make_job(tmp_path, PROMPTS, **{"samples_per_cell": 2, "max_rejected_fraction": 0.5, **changes})
    assert run_it(job_file, tmp_path / "one") == 0
    done = by_workers(monkeypatch, block_rows)
    assert run_it(job_file, tmp_path / "several") == 0
    assert checksums(tmp_path / "several") == checksums(tmp_path / "one")
    assert counts(tmp_path / "several") == counts(tmp_path / "one")
    assert len(done) == 1 and done[0] > 4 and len(list((tmp_path / "one" / "data").iterdir())) > 3
    assert len(rows(tmp_path / "one", "rejected")) > 0


@pytest.mark.usefixtures("small_files")
def test_what_prompts_bring_and_what_are_no_prompts_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_file = make_job(tmp_path, max_rejected_fraction=0.5, samples_per_cell=3)
    lines = [
        {"prompt": "hello", "topic": "x", "n": 1},
        {"prompt": "you", "n": None},
        {"n": 3},
        {"prompt": "so", "n": 2},
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run_it(job_file, tmp_path / "one") == 0
    done = by_workers(monkeypatch)
    assert run_it(job_file, tmp_path / "several") == 0 and done
    assert checksums(tmp_path / "several") == checksums(tmp_path / "one")
    found = rows(tmp_path / "several")
    assert {row["metadata_n"] for row in found} == {1, None, 2} and len(rows(tmp_path / "several", "rejected")) == 1


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=() if i % 5 == 1 else pytest.mark.long) for i, fault in enumerate(FAULTS)],
    ids=lambda fault: fault.__name__,
)
def test_what_is_missing_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path], None]
) -> None:
    job_file = make_job(tmp_path, ("hello you", "what now?", "", "tell me more"), max_rejected_fraction=0.5)
    assert run_it(job_file, tmp_path / "out") == 0
    before = said(tmp_path / "out")
    done = by_workers(monkeypatch, 4)
    fault(tmp_path / "out")
    assert run_it(job_file, tmp_path / "out") == 0 and done
    assert said(tmp_path / "out") == before and counts(tmp_path / "out")["rows"] == 12


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("harm", [cut, Path.unlink], ids=["cut", "gone"])
def test_what_is_damaged_after_it_was_measured_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    job_file = make_job(tmp_path, PROMPTS, max_rejected_fraction=0.5)
    assert run_it(job_file, tmp_path / "one") == 0
    done, real = by_workers(monkeypatch, 4), blocks.Joiner.written
    (shard, *_) = sorted((tmp_path / "one" / ".work" / "generations").glob("*-00000001-*.parquet"))

    def written(self: blocks.Joiner, part: Part) -> blocks.Written:
        with suppress(FileNotFoundError):
            if len(done) == 0:
                harm(shard)
        return real(self, part)

    monkeypatch.setattr(blocks.Joiner, "written", written)
    before = checksums(tmp_path / "one")
    assert run_it(job_file, tmp_path / "one") == 0
    assert checksums(tmp_path / "one") == before and len(done) == 2
    assert counts(tmp_path / "one")["generated"] == int(shard.name.split("-")[2])


def test_workers_of_another_attempt_touch_no_file_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their driver was killed, and they were not told: each attempt has a folder of its own."""
    job_file = make_job(tmp_path, PROMPTS, max_rejected_fraction=0.5)
    by_workers(monkeypatch)
    places = []

    def noted(joining: blocks.Joining, blocks_of: Any) -> blocks.Joiner:
        places.append((joining.to, joining.metadata, joining.broken))
        return joiner(joining, blocks_of)

    joiner = graph.Joiner
    monkeypatch.setattr(graph, "Joiner", noted)
    for _ in range(2):
        assert run_it(job_file, tmp_path / "out") == 0
    first, second = (set(map(Path, each)) for each in (places[0], places[-1]))
    assert {path.parent for path in first}.isdisjoint({path.parent for path in second})
    assert not list((tmp_path / "out").rglob("*.tmp*")) and not (tmp_path / "out" / ".work" / "join").exists()


def test_of_very_many_rows_the_first_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the files, whoever has put them together; so are the card's examples and pictures."""
    monkeypatch.setattr(digests, "MOST_SHOWN", 10)
    monkeypatch.setattr(digests, "_BATCH", 4)
    split = {"by": "prompt", "test_fraction": 0.4}
    job_file = make_job(tmp_path, PROMPTS, samples_per_cell=2, max_rejected_fraction=0.5, split=split)
    assert run_it(job_file, tmp_path / "one") == 0
    done = by_workers(monkeypatch)
    assert run_it(job_file, tmp_path / "several") == 0 and done
    assert checksums(tmp_path / "several") == checksums(tmp_path / "one")
    assert "Among the first 12 texts" in (tmp_path / "one" / "README.md").read_text()


@pytest.mark.parametrize("error", [WorkerDied("a worker was killed"), GraphFailed("no such service\nat all")])
def test_where_workers_can_not_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    job_file = make_job(tmp_path, PROMPTS, max_rejected_fraction=0.5)
    assert run_it(job_file, tmp_path / "one") == 0
    by_workers(monkeypatch)
    tries = []

    def fails(*arguments: Any) -> None:
        tries.append(arguments)
        raise error

    monkeypatch.setattr(coming, "run_graph", fails)
    assert run_it(job_file, tmp_path / "several") == 0
    assert checksums(tmp_path / "several") == checksums(tmp_path / "one")
    assert len(tries) == (coming.MOST_DEATHS if isinstance(error, WorkerDied) else 1)
    assert str(error).splitlines()[0] in caplog.text
    assert not (tmp_path / "several" / ".work" / "join").exists()  # a killed join leaves a data set in size


def test_few_rows_are_put_together_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = by_workers(monkeypatch, 8)
    assert run_it(make_job(tmp_path), tmp_path / "out") == 0 and not done


@pytest.mark.long
@pytest.mark.usefixtures("small_files")
def test_several_processes_put_it_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_file = make_job(tmp_path, PROMPTS, samples_per_cell=2, max_rejected_fraction=0.5)
    processes = ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    assert run_it(job_file, tmp_path / "one", *processes) == 0
    done = by_workers(monkeypatch)
    assert run_it(job_file, tmp_path / "several", *processes) == 0 and done
    assert checksums(tmp_path / "several") == checksums(tmp_path / "one")


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.mark.long
@pytest.mark.usefixtures("small_files")
def test_workers_that_share_a_bucket_put_it_together(
    tmp_path: Path, s3: dict[str, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `mpg run`, and by `mpg finish` of a detached run, on a pool of workers that is not this process's."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    job_file = make_job(tmp_path, PROMPTS, samples_per_cell=2, max_rejected_fraction=0.5)
    assert run_it(job_file, tmp_path / "one") == 0
    done, wanted = by_workers(monkeypatch), checksums(tmp_path / "one")
    servers = Servers(tmp_path_factory.mktemp("servers"))
    try:
        servers.start()  # now: its workers know where the store is
        for n, detach in enumerate(([], ["--detach"]), 1):
            url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
            assert main(["run", str(job_file), "--output", url, *detach, *servers.options]) == 0
            if detach:
                wait_for(lambda url=url: exists(expanded(f"{url}/.work/books.json")), "the last file", LONGEST_S)
                assert main(["finish", url, "--", "--runner=PortableRunner", "--parallelism=0"]) == ExitStatus.BAD_INPUT
                assert main(["finish", url, *servers.options]) == 0
            assert len(done) == n and checksums(here(expanded(url))) == wanted
            assert not changed_files(expanded(url)) and not exists(expanded(f"{url}/.work/next"))
    finally:
        servers.end()


@pytest.mark.long
def test_a_run_killed_while_it_is_put_together_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every write of the driver's and the workers': what is not whole is not there, the same command makes it."""
    job_file, out = make_job(tmp_path, PROMPTS, max_rejected_fraction=0.5), tmp_path / "out"
    assert run_it(job_file, out) == 0
    before, left, interrupted = checksums(out), 0, 0
    by_workers(monkeypatch)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def killed(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt
            return real(*arguments, **more)

        return killed

    writers = (blocks, "write_range"), (graph, "write_bytes"), (coming, "write_bytes"), (coming, "numbered")
    for module, name in writers:
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    for n in count(1):
        for name in ("data", "judgments", "rejected", "run.json", "manifest.json"):
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        left = n
        status = run_it(job_file, out)  # a worker's end is not this process's, which does its work then
        assert checksums(out) == before if status == 0 else not (out / "data").exists()
        interrupted += status == ExitStatus.INTERRUPTED
        if left > 0:
            break
        assert run_it(job_file, out) == 0 and checksums(out) == before
    assert n > 9 and interrupted >= 6


def test_every_block_is_of_the_files_that_its_rows_begin_in() -> None:
    """Against the files of all rows, one by one."""
    drawn = random.Random(0)
    for _ in range(300):
        sizes = [
            [drawn.choice([0, 5, 90, 2_000]) for _ in range(drawn.randrange(4))] for _ in range(drawn.randrange(1, 9))
        ]
        width = drawn.choice([1, 12, 100])
        bits = {i: dict.fromkeys(FOLDERS, sum(some)) for i, some in enumerate(sizes)}
        found = {
            (part.index, block): (before, part.last)
            for part in parts_of(Measured(bits, Sums((), ())), Sizes(width, width))
            if part.table == "judgments"
            for block, before in part.blocks
        }
        wanted, before, total = dict[tuple[int, int], tuple[int, bool]](), 0, sum(map(sum, sizes))
        last = max(0, -(-total // (8 * width)) - 2)
        for block, some in enumerate(sizes):
            at = before
            for size in some:
                if size:
                    index = min(at // (8 * width), last)
                    wanted[index, block] = before, index == last
                at += size
            before = at
        assert wanted.items() <= found.items()


def test_a_damaged_block_has_no_files() -> None:
    bits = {0: dict.fromkeys(FOLDERS, 8)}
    assert list(parts_of(Measured(bits, Sums((), ())), Sizes())) == [
        Part(table, 0, True, ((0, 0),)) for table in FOLDERS
    ]
    assert not list(parts_of(Measured(bits, Sums((), ()), damaged=[3]), Sizes()))
