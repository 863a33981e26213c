"""Runs are made whole or not at all, found among junk, and named without doubt."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.runs import making, store
from clusterseg.runs.making import SubmissionFiles
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Identity, Intent
from clusterseg.runs.store import find_runs, resolve_run

NOW = 1_767_225_599.5  # 2025-12-31 23:59:59.5 UTC


def identity(name: str = "demo") -> Identity:
    return Identity(key="k" * 32, uid=os.getuid(), name=name, created=NOW, versions={"x": "1"})


def files(number: int = 0) -> SubmissionFiles:
    intent = Intent(
        t=NOW, key="k" * 32, submission=number, scheduler="local", host="n1", uid=os.getuid()
    )
    return SubmissionFiles("name: demo\n", b'{"name": "demo"}', "exec true\n", intent)


def make(root: Path, run_id: str) -> RunPaths:
    run = RunPaths(root / run_id)
    making.create_run(run, identity(), files())
    return run


def test_a_run_id_is_name_utc_time_and_token() -> None:
    assert making.run_id("demo", NOW, "00ff") == "demo-20251231-235959-00ff"


def test_a_chosen_run_has_the_form_of_an_id_and_is_not_made(tmp_path: Path) -> None:
    run = making.choose_run(tmp_path / "runs", "a.b-c", NOW)
    assert re.fullmatch(r"a\.b-c-\d{8}-\d{6}-[0-9a-f]{4}", run.run_id)
    assert not (tmp_path / "runs").exists()


def test_a_taken_id_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter([b"\xaa\xaa", b"\xaa\xaa", b"\xbb\xbb"])
    monkeypatch.setattr(os, "urandom", lambda size: next(tokens))
    first = making.choose_run(tmp_path, "x", NOW)
    first.root.mkdir()
    assert making.choose_run(tmp_path, "x", NOW).run_id.endswith("-bbbb")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_a_run_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        run = make(tmp_path / "runs", "demo-1")
        making.add_submission(run, files(1))
    finally:
        os.umask(before)
    for path in (tmp_path / "runs", *(tmp_path / "runs").rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == wanted, path


def test_what_is_in_a_new_run(tmp_path: Path) -> None:
    run = make(tmp_path, "demo-1")
    submission = run.submission(0)
    assert submission.job_yaml.read_text() == "name: demo\n"
    assert submission.plan.read_bytes() == b'{"name": "demo"}'
    assert submission.batch_script.read_text() == "exec true\n"
    assert store.read_intent(submission) == files().intent
    assert store.read_identity(run) == identity()
    assert store.read_job_id(submission) is None
    for folder in (run.control, run.checkpoints, run.attempts):
        assert folder.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["demo-1"]


class Killed(BaseException):
    """Stands for SIGKILL: from it on, nothing changes in the file system any more."""


class Killer:
    """Python's audit events tell of every change before it is made, by whomever."""

    CHANGES = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod", "shutil.")

    def __init__(self) -> None:
        self.armed = False
        self.step = self.count = 0
        sys.addaudithook(self._hook)  # for good: it can't be taken back

    @contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Kills before the `step`-th change."""
        self.step, self.count, self.armed = step, 0, True
        try:
            yield
        finally:
            self.armed = False

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.armed:
            return
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if opened or event.startswith(self.CHANGES):
            self.count += 1
            if self.count >= self.step:
                raise Killed


KILLER = Killer()


@pytest.mark.parametrize("step", range(1, 60))
def test_creation_killed_at_any_step_leaves_no_run_or_a_whole_one(
    tmp_path: Path, step: int
) -> None:
    run = RunPaths(tmp_path / "runs" / "demo-1")
    killed = False
    with KILLER.at(step):
        try:
            making.create_run(run, identity(), files())
        except Killed:
            killed = True
    found = find_runs(tmp_path / "runs")
    if step < 15:
        assert killed
    if found:
        assert store.read_identity(found[0]) == identity()
        (submission,) = store.iter_submissions(found[0])
        assert store.read_intent(submission) == files().intent
        assert submission.batch_script.read_text() == "exec true\n"
    else:
        assert killed
        make(tmp_path / "runs", "demo-2")  # what is left stands in nobody's way
        assert [one.run_id for one in find_runs(tmp_path / "runs")] == ["demo-2"]


@pytest.mark.parametrize("step", range(1, 30))
def test_a_further_submission_killed_at_any_step_is_not_there_or_whole(
    tmp_path: Path, step: int
) -> None:
    run = make(tmp_path, "demo-1")
    with KILLER.at(step), suppress(Killed):
        making.add_submission(run, files(1))
    numbers = [submission.number for submission in store.iter_submissions(run)]
    assert numbers in ([0], [0, 1])
    if numbers == [0, 1]:
        assert store.read_intent(run.submission(1)) == files(1).intent
    else:
        making.add_submission(run, files(1))
        assert len(store.iter_submissions(run)) == 2


def test_everything_is_on_the_disk_before_a_run_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    real_sync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_sync(descriptor)

    def rename(old: Path, new: Path) -> Path:
        inside = {old, *(path for path in old.rglob("*"))}
        assert {path for path in inside if path.is_file() or any(path.iterdir())} <= synced
        return real_rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    run = make(tmp_path, "demo-1")
    assert tmp_path in synced
    making.add_submission(run, files(1))
    assert run.submissions in synced


def test_of_two_submissions_with_one_number_the_second_is_told(tmp_path: Path) -> None:
    run = make(tmp_path, "demo-1")
    making.add_submission(run, files(1))
    with pytest.raises(ClustersegError, match="being resumed by another process"):
        making.add_submission(run, files(1))
    assert store.read_intent(run.submission(1)) == files(1).intent


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClustersegError, match="can't be written") as caught:
        making.create_run(RunPaths(tmp_path / "file" / "runs" / "demo-1"), identity(), files())
    assert "--runs-dir" in (caught.value.help or "")


def test_junk_is_no_run(tmp_path: Path) -> None:
    make(tmp_path, "demo-1")
    make(tmp_path, "demo-2")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".new-demo-3").mkdir()
    (tmp_path / ".new-demo-3" / "run.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "run.json").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / os.fsdecode(b"\xff\n\x1b[2J")).mkdir()
    assert [run.run_id for run in find_runs(tmp_path)] == ["demo-1", "demo-2"]
    assert find_runs(tmp_path / "nowhere") == []
    assert find_runs(tmp_path / "file") == []


def test_junk_in_a_run_is_no_submission(tmp_path: Path) -> None:
    run = make(tmp_path, "demo-1")
    for name in ("x", "1", ".new-ab", "001.tmp", "-01"):
        (run.submissions / name).mkdir()
    assert [submission.number for submission in store.iter_submissions(run)] == [0]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b'{"key": 5}', b"[" * 100_000])
def test_damaged_records_are_errors_or_nothing(tmp_path: Path, data: bytes) -> None:
    run = make(tmp_path, "demo-1")
    run.identity.write_bytes(data)
    run.submission(0).intent.write_bytes(data)
    with pytest.raises(ClustersegError, match=r"run\.json can't be read: damaged"):
        store.read_identity(run)
    assert store.read_intent(run.submission(0)) is None


def test_records_of_a_newer_version_are_read(tmp_path: Path) -> None:
    run = make(tmp_path, "demo-1")
    newer = {**msgspec.to_builtins(identity()), "colour": "blue"}
    run.identity.write_bytes(msgspec.json.encode(newer))
    assert store.read_identity(run) == identity()


def test_the_ways_to_name_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    first = make(root, "demo-20260101-000000-aaaa")
    second = make(root, "demo-20260102-000000-bbbb")
    longer = make(root, "demo-20260102-000000-bbbbb")
    monkeypatch.chdir(tmp_path)
    for name in ("demo-20260101", first.run_id, str(first.root), f"runs/{first.run_id}/"):
        assert resolve_run(name, root).root == first.root
    assert resolve_run(second.run_id, root) == second  # whole ids go before longer ones
    assert resolve_run("demo-20260102-000000-bbbbb", root) == longer
    monkeypatch.chdir(first.root)
    assert resolve_run(".", root).root == first.root
    assert resolve_run(str(second.root), tmp_path / "elsewhere").root == second.root


def test_a_name_for_several_runs_is_refused_with_the_runs(tmp_path: Path) -> None:
    for number in range(12):
        make(tmp_path, f"demo-{number:02}")
    with pytest.raises(ClustersegError, match="fits 12 runs") as caught:
        resolve_run("demo", tmp_path)
    assert "demo-11" in caught.value.message
    assert "and 2 more" in caught.value.message


def test_a_name_for_no_run_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ClustersegError, match="no run 'demo'") as caught:
        resolve_run("demo", tmp_path)
    assert "there are no runs" in (caught.value.help or "")
    make(tmp_path, "segment-20260101")
    with pytest.raises(ClustersegError, match="no run") as caught:
        resolve_run("segmant-20260101", tmp_path)
    assert caught.value.help == "did you mean segment-20260101?"
    assert caught.value.exit_code == 2


@given(st.text(max_size=300))
def test_no_text_brings_the_search_down(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "hypothesis-runs"
    if not root.exists():
        make(root, "demo-1")
    with suppress(ClustersegError):
        assert resolve_run(text, root).run_id == "demo-1"


def test_where_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.runs_root(None, {}) == tmp_path / "runs"
    assert store.runs_root(None, {"CLUSTERSEG_RUNS": ""}) == tmp_path / "runs"
    assert store.runs_root(None, {"CLUSTERSEG_RUNS": "/x"}) == Path("/x")
    assert store.runs_root(Path("y"), {"CLUSTERSEG_RUNS": "/x"}) == tmp_path / "y"


def test_overrides_stand_above_the_text_and_only_once() -> None:
    text = "name: demo\n# a comment\n"
    kept = store.job_text(text, ["a.b=1", "notes=x\ny: 2"])
    assert kept.splitlines()[0].startswith("# ")
    assert kept.splitlines()[0].endswith("a.b=1")
    assert kept.endswith(text)
    # A newline in a value must not become a line of the job.
    assert all(line.startswith("#") for line in kept.removesuffix(text).splitlines())
    assert store.job_text(kept, ["c=3"]).count("--set") == 1
    assert store.job_text(text, []) == text
