"""A claimer that is killed, or meets an error, at any of its system calls: nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.runs.claims import claim_next, read_claims
from clusterseg.runs.paths import RunPaths
from tests.lease.claimant import STEPS, prepare, touched
from tests.runs.claiming import QUICK, World, wanted

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
]
REPOSITORY = Path(__file__).resolve().parents[2]
CALLS = (
    "openat", "mkdir", "write", "fsync", "linkat", "rename", "unlink", "ftruncate", "read",
)  # fmt: skip
# One of each kind for the suite; with the others for `make proof`.
ERRORS = {
    "openat": ("ESTALE", "EIO"),
    "read": ("EIO",),
    "getdents64": ("ESTALE",),
    "mkdir": ("ENOSPC",),
    "write": ("ENOSPC",),
    "fsync": ("EIO",),
    "linkat": ("ENOSPC",),
    "rename": ("ESTALE",),
    "unlink": ("EIO",),
}
MORE_ERRORS = {
    "openat": ("EACCES", "EMFILE"),
    "read": ("ESTALE",),
    "getdents64": ("EIO",),
    "mkdir": ("ESTALE", "EIO"),
    "write": ("EDQUOT", "EIO"),
    "fsync": ("ENOSPC", "ESTALE"),
    "linkat": ("EIO", "ESTALE"),
    "rename": ("EIO",),
    "unlink": ("ESTALE",),
}
MOST = 90  # calls of one kind that a claim makes on the run's files, at most


def claim_under(
    run: RunPaths, call: str, what: str, broken: str = ""
) -> subprocess.CompletedProcess[str]:
    command = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
    command += [part for path in touched(run) for part in ("-P", str(path))]
    command += ["-e", f"inject={call}:{what}"]
    return subprocess.run(
        [*command, sys.executable, "-m", "tests.lease.claimant", str(run.root), broken],
        cwd=REPOSITORY,
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )


def check_what_is_left(run: RunPaths) -> None:
    """No good checkpoint was set aside, and the next claimer goes on from the newest."""
    claims = read_claims(run)
    assert len(claims) in (1, 2)
    following = claim_next(run, wanted(pid=300), World(process=False), QUICK)
    assert following is not None
    assert following.attempt == len(claims)
    for claim in [*claims[1:], following]:
        assert claim.resume_step == STEPS[-1], "a good checkpoint was passed over"
        assert len(claim.accepted) == len(STEPS)
    assert run.stop_file(following.attempt).read_bytes() == b""
    assert len(list(run.checkpoints.glob("weights-*"))) == len(STEPS)


def sweep_kills(folder: Path, call: str, broken: str = "") -> set[int]:
    """Kills a claimer at every one of its calls of one kind; how many claims stood afterwards."""
    outcomes = set()
    for nth in range(1, MOST):
        run = RunPaths(folder / f"{call}-{nth}")
        prepare(run)
        process = claim_under(run, call, f"signal=KILL:when={nth}", broken)
        if process.returncode == 0:
            return outcomes
        assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), process.stdout
        outcomes.add(len(read_claims(run)))
        check_what_is_left(run)
    raise AssertionError(f"a claim makes more than {MOST} calls of {call}")


def test_killed_at_any_system_call(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda call: sweep_kills(tmp_path, call), CALLS))
    assert set().union(*outcomes) == {1, 2}, "the sweep must meet both sides of the link"


def sweep_errors(folder: Path, call: str, error: str, broken: str = "") -> None:
    """A claimer meets one error, at every one of its calls of one kind."""
    for nth in range(1, count_calls(folder, call, error) + 1):
        run = RunPaths(folder / f"{call}-{error}-{nth}")
        prepare(run)
        process = claim_under(run, call, f"error={error}:when={nth}", broken)
        where = f"{call} {error} {nth}"
        assert process.returncode in (0, 1), f"{where}: {process.stderr}"
        assert process.returncode == 0 or process.stdout, f"{where}: failed without a word"
        claims = len(read_claims(run))
        # After the link the claim stands, whatever fails then: its holder is gone, as if killed.
        assert claims == 2 or process.returncode == 1, f"{where}: not claimed"
        check_what_is_left(run)


def count_calls(folder: Path, call: str, name: str) -> int:
    """How many calls of one kind an undisturbed claim makes on the run's files."""
    run = RunPaths(folder / f"count-{call}-{name}")
    prepare(run)
    log = folder / f"count-{call}-{name}.log"
    command = ["strace", "-qq", "-o", str(log), "-e", f"trace={call}"]
    command += [part for path in touched(run) for part in ("-P", str(path))]
    subprocess.run(
        [*command, sys.executable, "-m", "tests.lease.claimant", str(run.root)],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    calls = len(log.read_text().splitlines())
    assert 0 < calls < MOST
    return calls


def sweep_all(folder: Path, errors: dict[str, tuple[str, ...]]) -> None:
    pairs = [(call, error) for call, several in errors.items() for error in several]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: sweep_errors(folder, *pair), pairs))


def test_an_error_at_any_system_call(tmp_path: Path) -> None:
    sweep_all(tmp_path, ERRORS)


@pytest.mark.proof
def test_other_errors_at_any_system_call(tmp_path: Path) -> None:
    sweep_all(tmp_path, MORE_ERRORS)


def test_the_sweeps_notice_what_is_broken(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ClustersegError)):
        sweep_kills(tmp_path, "write", "writes in place")
    with pytest.raises(AssertionError):
        sweep_errors(tmp_path, "openat", "EACCES", "takes a bad moment for damage")


def test_a_claim_that_was_linked_in_spite_of_the_error_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did it and the answer was lost: also where the link count is an old one."""
    run = RunPaths(tmp_path / "run")
    run.root.mkdir()
    real = os.link

    def link_and_lose_the_answer(source: Path, target: Path, **more: bool) -> None:
        real(source, target, **more)
        os.utime(source)
        Path(source).rename(tmp_path / "elsewhere")  # its link count can't be asked for
        Path(source).write_bytes(Path(target).read_bytes())
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    claim = claim_next(run, wanted(), World(), QUICK)
    assert claim is not None
    assert read_claims(run) == [claim]
