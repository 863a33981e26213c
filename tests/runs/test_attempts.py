"""Attempts read alike as folders and packed; packing loses nothing, whenever it is killed."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import IO

import msgspec
import pytest
import zstandard

from clusterseg.runs import archive
from clusterseg.runs.attempts import (
    attempt_numbers,
    iter_attempts,
    last_attempt,
    pack_attempt,
    read_attempt,
)
from clusterseg.runs.eventlog import EventWriter, iter_events
from clusterseg.runs.paths import AttemptPaths, RunPaths
from clusterseg.runs.records import Cause, Claim, End, Steps


def make_attempt(run: RunPaths, number: int, *, ranks: int = 2, ended: bool = True) -> AttemptPaths:
    paths = run.attempt(number)
    paths.ranks.mkdir(parents=True)
    claim = Claim(
        t=100.0 + number,
        attempt=number,
        submission=0,
        key="k",
        uid=0,
        job_id="local-n1-1-1",
        host="n1",
        boot_id="b",
        pid=1,
        pid_start=1,
        nonce="n",
        hosts={"n1": ranks},
        ranks=ranks,
        argv=["mpirun"],
    )
    paths.claim.write_bytes(msgspec.json.encode(claim))
    if ended:
        end = End(t=200.0, attempt=number, cause=Cause.CRASH, failed_rank=1)
        paths.end.write_bytes(msgspec.json.encode(end))
    paths.supervisor_log.write_text("the supervisor's words\n")
    for rank in range(ranks):
        with EventWriter(paths.events(rank)) as writer:
            for step in range(1, 51):
                writer.write(
                    Steps(t=1, rank=rank, epoch=0, step=step, count=1, images=2, seconds=0.1)
                )
        paths.log(rank).write_text(f"rank {rank} speaks\n" * 100)
    return paths


def everything(attempt_paths: AttemptPaths) -> dict[str, object]:
    """All that a reader can get out of an attempt."""
    attempt = read_attempt(attempt_paths)
    assert attempt is not None
    assert attempt.problems == ()
    content: dict[str, object] = {"claim": attempt.claim, "end": attempt.end}
    content["names"] = attempt.names()
    content["log ranks"] = attempt.log_ranks()
    content["events"] = [(rank, list(iter_events(stream))) for rank, stream in attempt.events()]
    content["logs"] = [(rank, stream.read(10**6)) for rank, stream in attempt.logs()]
    with attempt.open("supervisor.log") as stream:
        content["supervisor"] = stream.read(10**6)
    return content


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "r-20260101-000000-abcd")


def test_an_attempt_reads_alike_as_folder_and_packed(run: RunPaths) -> None:
    paths = make_attempt(run, 0, ranks=12)
    before = everything(paths)
    packed = pack_attempt(paths)
    assert packed.stat().st_mode & 0o777 == 0o600
    assert not paths.folder.exists()
    assert everything(paths) == before
    assert before["log ranks"] == list(range(12))


def test_attempts_come_by_number_past_a_thousand_and_between_junk(run: RunPaths) -> None:
    for number in (0, 2, 10, 999, 1000):
        make_attempt(run, number)
    pack_attempt(run.attempt(2))
    for junk in ("01", "x", ".000.tar.zst.tmp", "-01", "003.tar.gz"):
        (run.attempts / junk).mkdir()
    (run.attempts / "004").mkdir()  # a claim cut short: nobody's attempt
    (run.attempts / "005").write_text("not a folder")
    assert [a.number for a in iter_attempts(run)] == [0, 2, 10, 999, 1000]
    last = last_attempt(run)
    assert last is not None
    assert last.number == 1000


@pytest.mark.parametrize("prefix", ["", "./", "003/", "./attempts/003/"])
def test_an_attempt_that_a_person_packed_is_read(run: RunPaths, prefix: str) -> None:
    """With tar from any folder, the records wherever they come."""
    paths = make_attempt(run, 3)
    before = everything(paths)
    names = sorted(before.pop("names"), reverse=True)  # type: ignore[call-overload]
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in names:
            tar.add(paths.folder / name, arcname=prefix + name)
    compressor = zstandard.ZstdCompressor()
    half = len(data.getvalue()) // 2  # two frames, as parallel compressors write them
    frames = data.getvalue()[:half], data.getvalue()[half:]
    paths.packed.write_bytes(b"".join(map(compressor.compress, frames)))
    shutil.rmtree(paths.folder)
    after = everything(paths)
    assert sorted(after.pop("names"), reverse=True) == names  # type: ignore[call-overload]
    for order in ("events", "logs"):
        assert sorted(after.pop(order)) == sorted(before.pop(order))  # type: ignore[call-overload]
    assert after == before


def test_a_run_without_attempts_has_none(run: RunPaths) -> None:
    assert attempt_numbers(run) == []
    assert last_attempt(run) is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"attempt": "x"}', b"[" * 100_000])
def test_a_damaged_record_is_named_and_the_ranks_are_still_read(run: RunPaths, data: bytes) -> None:
    paths = make_attempt(run, 0)
    paths.claim.write_bytes(data)
    attempt = read_attempt(paths)
    assert attempt is not None
    assert attempt.claim is None
    assert attempt.end is not None
    assert str(paths.claim) in attempt.problems[0]
    assert [rank for rank, _ in attempt.events()] == [0, 1]


def test_ranks_without_a_claim_are_an_attempt_with_a_problem(run: RunPaths) -> None:
    paths = make_attempt(run, 0)
    paths.claim.unlink()
    attempt = read_attempt(paths)
    assert attempt is not None
    assert "claim.json is missing" in attempt.problems[0]


def test_a_rank_file_that_cannot_be_opened_hides_no_other(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_attempt(run, 0, ranks=3)
    real_open = os.open

    def failing(path: os.PathLike[str], *rest: int) -> int:
        if Path(path) == paths.events(1):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *rest)

    monkeypatch.setattr(os, "open", failing)
    attempt = read_attempt(paths)
    assert attempt is not None
    read = {}
    for rank, stream in attempt.events():
        try:
            read[rank] = len(list(iter_events(stream)))
        except OSError as error:
            read[rank] = error.errno
    assert read == {0: 50, 1: 13, 2: 50}


def test_symbolic_links_and_folders_in_an_attempt_are_not_its_files(run: RunPaths) -> None:
    paths = make_attempt(run, 0)
    (paths.ranks / "00007.log").symlink_to("/etc/passwd")
    (paths.ranks / "00008.log").mkdir()
    attempt = read_attempt(paths)
    assert attempt is not None
    assert attempt.log_ranks() == [0, 1]


def test_a_running_attempt_is_not_packed(run: RunPaths) -> None:
    paths = make_attempt(run, 0, ended=False)
    with pytest.raises(OSError, match="no end record"):
        pack_attempt(paths)
    assert everything(paths)["log ranks"] == [0, 1]


@pytest.mark.parametrize("step", range(1, 40))
def test_packing_killed_at_any_step_leaves_a_readable_attempt(
    run: RunPaths, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change that packing makes in the file system is, in turn, its last one."""
    paths = make_attempt(run, 0)
    before = everything(paths)
    count = 0

    class Killed(BaseException):
        pass

    def counted(function):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal count
            count += 1
            if count == step:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((os, "link"), (os, "fsync"), (Path, "unlink"), (Path, "rmdir")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            pack_attempt(paths)
        except Killed:
            killed = True
        else:
            killed = False
    assert everything(paths) == before
    pack_attempt(paths)
    assert not paths.folder.exists()
    assert everything(paths) == before
    if step < 10:
        assert killed


def test_an_archive_is_on_the_disk_before_it_has_its_name(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    real_sync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_sync(descriptor)

    def link(old: Path, new: Path) -> None:
        assert old in synced
        real_link(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    pack_attempt(make_attempt(run, 0))
    assert run.attempts in synced


def test_an_archive_that_came_out_wrong_gets_no_name(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_attempt(run, 0)
    before = everything(paths)
    real_add = tarfile.TarFile.addfile

    def addfile(tar: tarfile.TarFile, info: tarfile.TarInfo, source: IO[bytes]) -> None:
        real_add(tar, info, io.BytesIO(source.read().replace(b"speaks", b"SPEAKS")))

    monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
    with pytest.raises(OSError, match="differ: nothing was removed"):
        pack_attempt(paths)
    assert not paths.packed.exists()
    assert everything(paths) == before
    assert [path.name for path in run.attempts.iterdir()] == ["000"]


def test_a_folder_that_differs_from_its_archive_is_kept(run: RunPaths) -> None:
    paths = make_attempt(run, 0)
    copy = paths.folder.with_name("copy")
    shutil.copytree(paths.folder, copy)
    pack_attempt(paths)
    shutil.copytree(copy, paths.folder)
    with paths.log(1).open("a") as file:
        file.write("a late word\n")
    with pytest.raises(OSError, match="differ: nothing was removed"):
        pack_attempt(paths)
    assert paths.log(1).exists()


def test_a_file_that_the_archive_lacks_is_kept(run: RunPaths) -> None:
    paths = make_attempt(run, 0)
    pack_attempt(paths)
    paths.ranks.mkdir(parents=True)
    paths.log(9).write_text("late")
    with pytest.raises(OSError, match=r"lacks ranks/00009\.log"):
        pack_attempt(paths)
    assert paths.log(9).read_text() == "late"


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_archive_is_named(run: RunPaths, damage: str) -> None:
    paths = make_attempt(run, 0)
    packed = pack_attempt(paths)
    data = bytearray(packed.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x10
    packed.write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "text": b"hello"}.get(damage, data)
    )
    attempt = read_attempt(paths)
    assert attempt is not None
    with pytest.raises(OSError, match="damaged"):
        for _, stream in attempt.logs():
            while stream.read(1000):
                pass


def test_an_archive_is_streamed_not_held(run: RunPaths) -> None:
    """The reader asks for pieces only: a member far larger than its buffers passes through."""
    paths = make_attempt(run, 0, ranks=1)
    with paths.log(0).open("wb") as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    packed = pack_attempt(paths)
    assert packed.stat().st_size < 1 << 20
    total = 0
    for name, stream in archive.members(packed):
        while chunk := stream.read(1 << 16):
            assert len(chunk) <= 1 << 16
            total += len(chunk) if name == "ranks/00000.log" else 0
    assert total == 64 << 20


def test_records_of_another_program_are_salvaged_for_reports_alone(run: RunPaths) -> None:
    paths = make_attempt(run, 1)
    paths.claim.write_text(
        '{"t": 100, "attempt": 1, "job_id": 77, "hosts": ["n1", "n1", "n2"], "ranks": 3,'
        ' "resume_from": null, "resume_step": null, "pid": "x"}'
    )
    paths.end.write_text('{"t": 200, "attempt": 1, "cause": "eclipse", "will_restart": true}')
    strict = read_attempt(paths)
    assert strict is not None
    assert (strict.claim, strict.end) == (None, None)
    (attempt,) = iter_attempts(run, salvage=True)
    assert attempt.problems == ()
    assert attempt.claim is not None
    assert attempt.claim.job_id == "77"
    assert attempt.claim.hosts == {"n1": 2, "n2": 1}
    assert (attempt.claim.ranks, attempt.claim.resume_step, attempt.claim.pid) == (3, 0, 0)
    assert attempt.end == End(t=200.0, attempt=1, cause=Cause.UNKNOWN, will_restart=True)


def test_a_record_without_its_time_is_not_salvaged(run: RunPaths) -> None:
    paths = make_attempt(run, 0, ended=False)
    paths.claim.write_text('{"attempt": 0, "ranks": 2}')
    (attempt,) = iter_attempts(run, salvage=True)
    assert attempt.claim is None
    assert len(attempt.problems) == 1
