"""verify, judge, report and export of a data set in a store: what they say and leave is what they do on a disk."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.publish.exports import fitting
from pipeline.store import files, lease
from pipeline.store.exchange import JOURNAL
from pipeline.store.lock import FolderLock
from pipeline.store.manifest import changed_files, files_of
from pipeline.store.places import expanded
from tests.store_servers import BUCKET, gcs_server, s3_environment, s3_server, unsteady
from tests.tiny_job import make_job

COMMANDS = {
    "verify": ["verify", "{}", "--sample", "2"],
    "report": ["report", "{}"],
    "terminal": ["report", "{}", "--terminal"],
    "judge": ["judge", "{}", "--attributes", "E", "N"],
    "export": ["export", "{}", "--format", "preference"],
    "publish": ["publish", "{}", "--dry-run"],
}
Servers = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with s3_server() as s3, gcs_server() as gcs:
        yield {"s3": s3, "gs": gcs}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a test split, judged once."""
    folder = tmp_path_factory.mktemp("job")
    split = {"by": "prompt", "test_fraction": 0.5, "seed": 2}
    job = make_job(folder, samples_per_cell=2, split=split, card={"license": "mit"})
    assert main(["run", str(job)]) == 0
    shutil.rmtree(folder / "out" / ".work" / "plan")
    return folder / "out"


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leases settle and die quickly; copies go with the test."""
    for name, seconds in (("DEAD_AFTER_S", 0.5), ("_LOOK_EVERY_S", 0.1), ("BEAT_EVERY_S", 0.2), ("_SETTLE_S", 0.02)):
        monkeypatch.setattr(lease, name, seconds)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "temporary"))


def use(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], scheme: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem(scheme).clear_instance_cache()


def put(folder: Path, scheme: str = "s3") -> str:
    """The URL of a data set as a run leaves it in a store."""
    url = f"{scheme}://{BUCKET}/{uuid.uuid4().hex}/out"
    for name in files.files_below(folder):
        if not name.endswith((".jsonl", "/lock", "/gathering")):  # of a disk's work folder alone
            files.copy(folder / name, expanded(url) / name)
    return url


def data_set(place: str | Path) -> dict[str, bytes]:
    folder = expanded(place)
    names = [name for name in files.files_below(folder) if not name.startswith(".work/")]
    return {name: files.read_bytes(folder / name) for name in names}


def left_in(url: str) -> set[str]:
    """What of the work folder is there only while a command works."""
    names = {name for name in files.files_below(expanded(url)) if name.startswith(".work/")}
    kept = ("generations", "judgments", "rejected", "machines", "to-do", "spent")
    return {name for name in names if name.split("/")[1] not in kept and not name.endswith(".json")} | (
        names & {f".work/{JOURNAL}"}
    )


def words(command: str, place: str | Path) -> list[str]:
    return [word.replace("{}", str(place)) for word in COMMANDS[command]]


def said(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Status, output, and the last line of what went wrong."""
    capsys.readouterr()
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = int(str(end.code))
    out, err = capsys.readouterr()
    assert "Traceback" not in err and str(files.tempfile.tempdir) not in out + err
    return status, out, ([line for line in err.strip().splitlines() if line] or [""])[-1]


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """The data set on a disk, for what is to be compared."""
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("scheme", ["s3", pytest.param("gs", marks=pytest.mark.long)])
def test_all_is_as_on_a_disk(
    scheme: str,
    servers: Servers,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(monkeypatch, servers[scheme], scheme)
    url = put(here, scheme)
    for command in ("judge", "export", "verify", "terminal"):
        local, far = (said(words(command, place), capsys) for place in (here, url))
        assert local[0] == far[0] == 0, (command, local, far)
        shown = [line for line in far[1].replace(url, str(here)).splitlines() if not line.startswith("open it:  ")]
        assert shown == [line for line in local[1].splitlines() if not line.startswith("open it:  ")], command
        assert data_set(url) == data_set(here), command
    assert "preference/test-00000-of-00001.parquet" in data_set(url)
    assert json.loads(data_set(url)["run.json"])["counts"]["judgments"] == 72
    assert changed_files(expanded(url)) == {} and left_in(url) == {".work/job-folder"}
    _, out, _ = said(words("judge", url), capsys)
    assert "24 texts, 0 of them judged now" in out


def test_no_shard_is_copied_and_what_is_here_is_not_fetched_again(
    servers: Servers, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with unsteady(servers["s3"]["AWS_ENDPOINT_URL"], lambda n: 0) as (address, counter):
        use(monkeypatch, s3_environment(address), "s3")
        url = put(here)
        asked = []
        for _ in range(2):
            before = counter["asked"]
            assert main(["report", url, "--terminal"]) == 0
            asked.append(counter["asked"] - before)
    there = {path.relative_to(tmp_path / "temporary").parts[2:] for path in (tmp_path / "temporary").rglob("*.*")}
    names = {"/".join(parts[1:]) for parts in there if len(parts) > 1}
    assert "data/train-00000-of-00001.parquet" in names and not any(name.startswith(".work") for name in names)
    assert asked[1] <= asked[0] - len(data_set(here)) + 1


def test_a_file_that_was_changed_there_is_found(
    servers: Servers, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, servers["s3"], "s3")
    url, name = put(here), "data/train-00000-of-00001.parquet"
    assert main(["verify", url, "--sample", "0"]) == 0
    files.write_bytes((here / name).read_bytes()[:-1], expanded(url) / name)
    status, out, line = said(["verify", url, "--sample", "0"], capsys)
    assert status == ExitStatus.FAILED and f"{name}: not the " in out and line.startswith(f"mpg: {url}: 1 files")
    for command in ("judge", "export", "publish"):
        status, _, line = said(words(command, url), capsys)
        assert status == ExitStatus.BAD_INPUT and line.startswith(f"mpg: {url}") and name in line, line
    files.remove(expanded(url) / "manifest.json")
    status, _, line = said(words("verify", url), capsys)  # no copy is named by where it lies
    assert status == ExitStatus.BAD_INPUT and f"{url}: no manifest can be read" in line and f"{url}/manifest" in line


def test_a_page_goes_where_it_is_told_and_is_shown_as_one(
    servers: Servers, here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, servers["s3"], "s3")
    url, page = put(here), tmp_path / "new" / "page.html"
    assert main(["report", url, "--output", str(page)]) == 0
    assert main(["report", str(here), "--output", f"{url}/pages/page.html"]) == 0
    assert page.read_bytes() == files.read_bytes(expanded(f"{url}/pages/page.html"))
    assert "report.html" not in data_set(url)
    assert main(["report", url]) == 0 and data_set(url)["report.html"] == page.read_bytes()
    assert fsspec.filesystem("s3").info(f"{url}/pages/page.html")["ContentType"] == "text/html"


def test_a_table_is_judged_where_it_is(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    use(monkeypatch, servers["gs"], "gs")
    texts = b'{"prompt": "q", "response": "I love parties."}\n{"prompt": "q", "response": "I stay at home."}\n'
    (tmp_path / "texts.jsonl").write_bytes(texts)
    url = f"gs://{BUCKET}/{uuid.uuid4().hex}"
    files.write_bytes(texts, expanded(f"{url}/texts.jsonl"))
    for n_new in (2, 0):
        assert said(["judge", "--attributes", "E", f"{url}/texts.jsonl"], capsys)[1].endswith(
            f"2 texts, {n_new} of them judged now; judgments: {url}/texts-judgments/judgments\n"
        )
    pairs = b'{"prompt": "q", "chosen": "I love parties.", "rejected": "I stay at home."}\n' * 2
    files.write_bytes(pairs, expanded(f"{url}/pairs.jsonl"))
    assert (
        main(["judge", str(tmp_path / "texts.jsonl"), "--attributes", "E", "--known", "E", f"{url}/pairs.jsonl"]) == 0
    )
    for option in (["--known", "E", f"{url}/none.jsonl"], ["--weights", f"E={url}/none"]):
        status, _, line = said(["judge", f"{url}/texts.jsonl", "--attributes", "E", *option], capsys)
        assert status == ExitStatus.BAD_INPUT and f"{option[0]} {url}/none" in line and "no such file or folder" in line
    assert main(["judge", f"{url}/texts.jsonl", "--attributes", "E", "--output", str(tmp_path / "mine")]) == 0
    assert data_set(f"{url}/texts-judgments") == data_set(tmp_path / "texts-judgments") == data_set(tmp_path / "mine")


@dataclass(frozen=True)
class Cuts:
    """Commands on a store that refuses from some request on."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    s3: dict[str, str]
    made: Path

    def after(self, n: int, command: str, wanted: dict[str, bytes]) -> tuple[int, bool]:
        """How many requests the command made, and whether it left an exchange for the next one, which it finishes."""
        use(self.monkeypatch, self.s3, "s3")
        url = put(self.made)
        with unsteady(self.s3["AWS_ENDPOINT_URL"], lambda asked: 403 * (asked > n)) as (address, counter):
            use(self.monkeypatch, s3_environment(address), "s3")
            status, _, line = said(words(command, url), self.capsys)
        use(self.monkeypatch, self.s3, "s3")
        assert status == 0 or (line.startswith("mpg: ") and url in line), (n, line)
        cut = files.exists(expanded(url) / ".work" / JOURNAL)
        assert main(words(command, url)) == 0, n
        assert data_set(url) == wanted, n
        return counter["asked"], cut


@pytest.fixture
def cuts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], servers: Servers, made: Path
) -> Iterator[Cuts]:
    yield Cuts(monkeypatch, capsys, servers["s3"], made)
    fsspec.filesystem("s3").clear_instance_cache()


def test_an_export_that_a_store_cuts_short_is_finished_by_the_next(
    servers: Servers, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, servers["s3"], "s3")
    url, n_since = put(here), 0
    address = servers["s3"]["AWS_ENDPOINT_URL"]
    journal = urllib.request.Request(
        f"{address}/{url.removeprefix('s3://')}/.work/{JOURNAL}", method="HEAD", headers={"Authorization": "AWS x:y"}
    )

    def on_the_way(n: int) -> int:
        nonlocal n_since
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(journal):
            n_since += 1
        return 403 * (n_since > 12)  # some files are in their places, and some are not

    with unsteady(address, on_the_way) as (way, _):
        use(monkeypatch, s3_environment(way), "s3")
        status, _, line = said(words("export", url), capsys)
        assert status == ExitStatus.TRY_AGAIN and line.startswith("mpg: ") and url in line
    use(monkeypatch, servers["s3"], "s3")
    assert files.exists(expanded(url) / ".work" / JOURNAL)
    assert main(["report", url, "--terminal"]) == 0  # whoever comes next
    assert main(words("export", here)) == 0
    assert data_set(url) == data_set(here) and left_in(url) == {".work/job-folder"}


@pytest.mark.long
@pytest.mark.parametrize("command", ["judge", "export"])
def test_nothing_is_lost_wherever_a_store_cuts_a_command_short(command: str, cuts: Cuts, here: Path) -> None:
    assert main(words(command, here)) == 0
    asked, _ = cuts.after(10**6, command, wanted := data_set(here))
    found = [cuts.after(n, command, wanted)[1] for n in range(1, asked, asked // 9)]
    assert any(found) and not all(found)


@pytest.mark.long
def test_a_judge_that_is_killed_while_it_exchanges_is_finished_by_the_next(
    servers: Servers, made: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, really, after so many moves of files: whatever comes next, a reader even, finds the next data set."""
    assert main(words("judge", here)) == 0
    use(monkeypatch, servers["s3"], "s3")
    for moves, follower in ((0, "judge"), (1, "terminal"), (3, "export"), (5, "verify")):
        url = put(made)
        code = f"""
import os, signal, sys
from pipeline.store import exchange, files
n = 0
def move(source, target):
    global n
    if n == {moves}:
        os.kill(os.getpid(), signal.SIGKILL)
    n += 1
    files.move(source, target)
exchange.exchange.__kwdefaults__["replace"] = move
from pipeline.cli import main
main({words("judge", url)!r})
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert files.exists(expanded(url) / ".work" / JOURNAL)
        assert main(words(follower, url)) == 0
        found, wanted = data_set(url), data_set(here)
        made_since = [name for name in found if name.startswith(("preference/", "README", "manifest"))]
        assert {n: c for n, c in found.items() if follower != "export" or n not in made_since} == {
            n: c for n, c in wanted.items() if follower != "export" or n not in made_since
        }, moves
        assert changed_files(expanded(url)) == {} and left_in(url) == {".work/job-folder"}


@pytest.mark.long
def test_a_form_that_can_not_be_read_now_is_not_taken_for_one_that_does_not_fit(
    servers: Servers, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, servers["s3"], "s3")
    assert main(words("export", here)) == 0
    url, wanted = put(here), fitting(here, files_of(here))
    assert any(name.startswith("preference/") for name in wanted)
    for after in range(20):
        with unsteady(servers["s3"]["AWS_ENDPOINT_URL"], lambda n, after=after: 403 * (n > after)) as (
            address,
            counter,
        ):
            use(monkeypatch, s3_environment(address), "s3")
            try:
                assert fitting(expanded(url), files_of(here)) == wanted
            except OSError:
                assert counter["refused"]
            else:
                break
    assert 1 < after < 19
    fsspec.filesystem("s3").clear_instance_cache()


def test_nobody_judges_or_exports_beside_a_run(
    servers: Servers, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, servers["s3"], "s3")
    url = put(here)
    before = data_set(url)
    with FolderLock(expanded(url) / ".work"):
        for command in ("judge", "export"):
            status, _, line = said(words(command, url), capsys)
            assert status == ExitStatus.TRY_AGAIN and "is in use by another process (host " in line
        assert main(words("terminal", url)) == 0  # which reads what is complete
    assert data_set(url) == before


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "terminal"])
def test_what_can_not_be_is_one_line(
    command: str, servers: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for scheme in ("s3", "gs"):
        use(monkeypatch, servers[scheme], scheme)
    for url, says in (
        ("azure://x/y", "'azure://x/y': azure:// is no store that is known here; give a folder, or one of s3, gs"),
        ("s3:///x", "'s3:///x': names no bucket; write s3://BUCKET/FOLDER"),
        ("s3://no-such-bucket/x", "s3://no-such-bucket/x: there is no bucket s3://no-such-bucket; give "),
        (f"gs://{BUCKET}/none", f"gs://{BUCKET}/none: no such f"),
    ):
        status, out, line = said(words(command, url), capsys)
        assert status == ExitStatus.BAD_INPUT and out == "" and says in line, line
    refused_by(403, command, servers, monkeypatch, capsys)


@pytest.mark.parametrize("command", ["verify", *(pytest.param(c, marks=pytest.mark.long) for c in ("judge", "export"))])
def test_a_store_that_does_not_answer_is_one_line(
    command: str, servers: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused_by(503, command, servers, monkeypatch, capsys)


def refused_by(
    code: int, command: str, servers: Servers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"s3://{BUCKET}/out"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with unsteady(servers["s3"]["AWS_ENDPOINT_URL"], lambda n: code) as (address, _):
        use(monkeypatch, s3_environment(address), "s3")
        status, out, line = said(words(command, url), capsys)
    assert status == ExitStatus.TRY_AGAIN and out == "" and line.startswith(f"mpg: {url}") and ": can't be " in line
    assert "see to its address, keys and rights, or give the command again" in line, line
    fsspec.filesystem("s3").clear_instance_cache()


def test_what_can_only_be_read_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    url = "hf://datasets/me/x"
    for command in ("report", "judge", "export"):
        status, _, line = said(words(command, url), capsys)
        assert status == ExitStatus.BAD_INPUT and url in line and "hf:// can be read only" in line, line
        assert command == "export" or "--output" in line
