"""`kill -9` between any two system calls of a save: the run stands on the old or the new state."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.runs.checkpoints import list_checkpoints, verify
from clusterseg.runs.choice import newest_acceptable
from clusterseg.runs.paths import RunPaths
from tests.runs.test_checkpoints import claim

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
]
CALLS = ("openat", "write", "pwrite64", "fsync", "close", "link", "unlink", "getdents64")
MOST = 20  # of one kind, in one save

# The same steps as a rank's: commit, then delete what the rules (the last two) let go.
SAVE = """
import sys
from pathlib import Path
import clusterseg.runs.checkpoints as checkpoints
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.keep import to_delete

paths = RunPaths(Path(sys.argv[1]))
checkpoints.os.urandom = lambda count: bytes(count)
commit = checkpoints.commit_checkpoint

def save(step):
    header = CheckpointHeader(epoch=0, step=step, step_in_epoch=step, attempt=0, t=1.0)
    weights = checkpoints.Tensor("weights", "U8", (4096,), memoryview(bytes([step]) * 4096))
    name = checkpoints.checkpoint_name(0, 0.0, step)
    commit(paths.checkpoints, name, header, [weights], accepted={})

def prune():
    spec = CheckpointSpec(keep_best=0, keep_last=2)
    known = checkpoints.list_checkpoints(paths.checkpoints)
    own = frozenset(one.name for one in known)
    for name in to_delete(known, spec, own=own):
        (paths.checkpoints / name).unlink()
"""
GOOD = SAVE + "for step in map(int, sys.argv[2:]): save(step); prune()\n"
# Twins that break a promise each.
IN_PLACE = (
    SAVE
    + """
def in_place(folder, name, header, tensors, *, accepted, holds=None):
    descriptor = checkpoints.os.open(folder / name, checkpoints.os.O_RDWR | checkpoints.os.O_CREAT)
    checkpoints.write_file(descriptor, header, tensors)

commit = in_place
for step in map(int, sys.argv[2:]): save(step)
"""
)
PRUNE_FIRST = (
    SAVE
    + """
for step in map(int, sys.argv[2:]):
    for one in checkpoints.list_checkpoints(paths.checkpoints): one.path.unlink()
    save(step)
"""
)


def run_killed(script: str, paths: RunPaths, call: str, nth: int) -> bool:
    """Saves step 9 upon 3 and 5, killed at the n-th such call on its files; False if it ended."""
    folder = paths.checkpoints
    new = "weights-0000-0.0000-step-000000009.safetensors"
    touched = [
        folder,
        folder / f".{new}.attempt-0.{'00' * 4}.tmp",
        *(folder / new.replace("009", f"00{step}") for step in (3, 5, 9)),
    ]
    command = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    command += [part for name in touched for part in ("-P", str(name))]
    command += ["-e", f"inject={call}:signal=KILL:when={nth}"]
    ended = subprocess.run(
        [*command, sys.executable, "-c", script, str(paths.root), "9"],
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert ended.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL)
    return ended.returncode != 0


def after_kills(script: str, before: Path, tmp_path: Path) -> tuple[dict[str, int], list[str]]:
    """How many kills of each kind hit the save, and what was wrong after one."""
    hits: dict[str, int] = {}
    wrong = []
    for call in CALLS:
        for nth in range(1, MOST):
            paths = RunPaths(tmp_path / f"{call}-{nth}")
            shutil.copytree(before, paths.root)
            killed = run_killed(script, paths, call, nth)
            wrong += [f"{call} {nth}: {one}" for one in problems(paths, killed=killed)]
            if not killed:
                break
            hits[call] = nth
        else:
            pytest.fail(f"more than {MOST} of {call}")
    return hits, wrong


def problems(paths: RunPaths, *, killed: bool) -> list[str]:
    """What a successor would miss."""
    there = [one.header.step for one in list_checkpoints(paths.checkpoints)]
    choice = newest_acceptable(paths, claim(0))
    found = []
    if choice.messages:
        found.append(f"something was set aside: {choice.messages}")
    if choice.newest is None or choice.newest.header.step not in ((5, 9) if killed else (9,)):
        return [*found, "the state of before is gone"]
    verify(choice.newest.path, choice.newest.sha256)
    if there not in ([3, 5], [3, 5, 9], [5, 9]):
        found.append(f"the checkpoints are those of {there}")
    rest = {one.name for one in paths.checkpoints.iterdir()} - set(choice.accepted)
    if rest:
        found.append(f"left behind: {rest}")
    return found


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints of steps 3 and 5."""
    root = tmp_path_factory.mktemp("before") / "run"
    RunPaths(root).checkpoints.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-c", GOOD, str(root), "3", "5"],
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=60,
    )
    return root


def test_a_kill_between_any_two_calls_leaves_the_old_or_the_new_state(
    before: Path, tmp_path: Path
) -> None:
    hits, wrong = after_kills(GOOD, before, tmp_path)
    assert wrong == []
    # Temporary file, its content, the hash, fsync of file and folder, its name, two removals.
    assert set(hits) == set(CALLS)
    assert (hits["fsync"], hits["link"], hits["unlink"]) == (2, 1, 2)


@pytest.mark.parametrize("script", [IN_PLACE, PRUNE_FIRST], ids=["in place", "prune first"])
def test_a_careless_save_is_caught(script: str, before: Path, tmp_path: Path) -> None:
    """The negative twins."""
    try:
        _, wrong = after_kills(script, before, tmp_path)
    except Exception as error:  # no good checkpoint is left at all
        wrong = [str(error)]
    assert wrong
