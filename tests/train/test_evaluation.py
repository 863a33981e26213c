"""Which checkpoints are evaluated, and evaluation.json."""

from __future__ import annotations

import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterseg.errors import ClustersegError
from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import CheckpointInfo, commit_checkpoint
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.train.evaluation import Evaluation, Evaluations, best_first, choose, record
from clusterseg.train.inference.how import How
from tests.apart import TOP


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    run = RunPaths(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    return run


def claim(run: RunPaths, attempt: int, *, submission: int = 0, accepted: dict[str, str]) -> None:
    run.attempt(attempt).folder.mkdir(parents=True)
    record = Claim(
        t=0.0, attempt=attempt, submission=submission, key="k", uid=0, job_id="local", host="h",
        boot_id="b", pid=1, pid_start=1, nonce="n", hosts={"h": 1}, ranks=1, argv=[],
        accepted=accepted,
    )  # fmt: skip
    run.attempt(attempt).claim.write_bytes(msgspec.json.encode(record))


def checkpoint(
    run: RunPaths, name: str, *, epoch: int, accuracy: float, attempt: int = 0, inside: int = 0
) -> CheckpointInfo:
    header = CheckpointHeader(
        epoch=epoch,
        step=10 * epoch + inside,
        step_in_epoch=inside,
        attempt=attempt,
        t=0.0,
        val_accuracy=accuracy,
        history=[{"epoch": n} for n in range(1, epoch + 1)],
    )
    tensor = Tensor("model/w", "F32", (1,), memoryview(b"\0\0\0\0"))
    return commit_checkpoint(run.checkpoints, name, header, [tensor], accepted={})


def names(run: RunPaths, **options: Any) -> list[str]:
    return [Path(one.path).name for one in choose(run, **options)[0]]


FIRST = "weights-0001-0.5000.safetensors"
BEST = "weights-0002-0.7000.safetensors"
EQUAL = "weights-0003-0.7000.safetensors"
INSIDE = "weights-0003-0.7000-step-000000034.safetensors"


@pytest.fixture
def four(run: RunPaths) -> dict[str, CheckpointInfo]:
    claim(run, 0, accepted={})
    return {
        FIRST: checkpoint(run, FIRST, epoch=1, accuracy=0.5),
        BEST: checkpoint(run, BEST, epoch=2, accuracy=0.7),
        EQUAL: checkpoint(run, EQUAL, epoch=3, accuracy=0.7),
        INSIDE: checkpoint(run, INSIDE, epoch=3, accuracy=0.7, inside=4),
    }


def test_the_best_is_the_first_of_equals_and_no_save_inside_an_epoch(
    run: RunPaths, four: object
) -> None:
    assert names(run) == [BEST]
    assert names(run, every=True) == [FIRST, BEST, EQUAL, INSIDE]


def test_without_a_validated_one_it_is_the_newest(run: RunPaths) -> None:
    for step in (3, 5):
        name = f"weights-0000-0.0000-step-{step:09d}.safetensors"
        checkpoint(run, name, epoch=0, accuracy=0.0, inside=step)
    assert names(run) == ["weights-0000-0.0000-step-000000005.safetensors"]


def test_a_named_one_may_be_a_name_or_a_path(
    run: RunPaths, four: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(run, file=FIRST) == [FIRST]
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((run.checkpoints / FIRST).read_bytes())
    assert names(run, file=str(copy)) == ["copy.safetensors"]
    monkeypatch.chdir(tmp_path)
    assert names(run, file="copy.safetensors") == ["copy.safetensors"]
    with pytest.raises(ClustersegError, match=r"nothing\.safetensors") as caught:
        choose(run, file="nothing.safetensors")
    assert str(run.checkpoints) in (caught.value.help or "")


def test_what_no_attempt_builds_on_is_left_out_unless_it_is_named(
    run: RunPaths, four: dict[str, CheckpointInfo]
) -> None:
    """An attempt that was given up wrote it late, on a cluster that had lost its node."""
    accepted = {FIRST: four[FIRST].sha256, BEST: "another content"}
    claim(run, 1, submission=1, accepted=accepted)
    newest = "weights-0004-0.6000.safetensors"
    checkpoint(run, newest, epoch=4, accuracy=0.6, attempt=1)
    chosen, messages = choose(run, every=True)
    assert [(Path(one.path).name, one.submission) for one in chosen] == [(FIRST, 0), (newest, 1)]
    assert len(messages) == 3 and all("no attempt builds on it" in one for one in messages)
    assert names(run) == [newest]
    assert names(run, file=BEST) == [BEST]


def test_unreadable_files_are_named_and_nothing_is_moved(run: RunPaths, four: object) -> None:
    (run.checkpoints / FIRST).write_bytes(b"junk")
    chosen, messages = choose(run, every=True)
    assert len(chosen) == 3
    assert len(messages) == 1 and FIRST in messages[0]
    assert (run.checkpoints / FIRST).exists() and not run.rejected.exists()


def test_a_run_without_checkpoints_is_told(run: RunPaths) -> None:
    with pytest.raises(ClustersegError, match="no checkpoint") as caught:
        choose(run)
    assert caught.value.exit_code == 1


def scored(file: str, accuracy: float | None, iou: float | None = 0.1, step: int = 0) -> Evaluation:
    return Evaluation(
        file=file, epoch=1, step=step, val_loss=0.0, val_accuracy=accuracy, val_mean_iou=iou,
        sha256=f"of {file}", t=1.0,
    )  # fmt: skip


def test_the_best_comes_first() -> None:
    given = [scored("none", None), scored("b", 0.5, 0.2, 9), scored("a", 0.5, 0.3, 12),
             scored("c", 0.5, 0.2, 3), scored("top", 0.9, None)]  # fmt: skip
    assert [one.file for one in best_first(given)] == ["top", "a", "c", "b", "none"]


def test_the_file_keeps_what_was_found_before(run: RunPaths) -> None:
    record(run, [scored("a", 0.1), scored("b", 0.2)])
    newer = msgspec.structs.replace(scored("a", 0.3), t=2.0)
    record(run, [newer])
    held = msgspec.json.decode(run.evaluation.read_bytes(), type=Evaluations)
    assert held == Evaluations(run="run", checkpoints=(newer, scored("b", 0.2)))
    assert stat.S_IMODE(run.evaluation.stat().st_mode) == 0o600
    run.evaluation.write_text("[1, 2")
    record(run, [newer])
    assert msgspec.json.decode(run.evaluation.read_bytes(), type=Evaluations).checkpoints == (
        newer,
    )


_RECORDS = """
import contextlib, sys, time
from pathlib import Path
from clusterseg.runs import files
from clusterseg.runs.paths import RunPaths
from clusterseg.train import evaluation
from tests.train.test_evaluation import scored
if sys.argv[3] == "without":
    evaluation.held = lambda *_, **__: contextlib.nullcontext()
replace = files.replace
files.replace = lambda *written: (time.sleep(0.02), replace(*written))
print("ready", flush=True)
sys.stdin.read()
for turn in range(10):
    evaluation.record(RunPaths(Path(sys.argv[1])), [scored(f"{sys.argv[2]}{turn}", 0.1)])
"""


@pytest.mark.parametrize("lock", ["with", "without"])
def test_two_that_write_at_once_lose_nothing(run: RunPaths, lock: str) -> None:
    """`without`: the twin, whose writers do lose something."""
    command = [sys.executable, "-c", _RECORDS, str(run.root)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": TOP}
    with ExitStack() as stack:
        both = [
            stack.enter_context(subprocess.Popen([*command, name, lock], **pipes)) for name in "ab"
        ]
        for one in both:
            assert one.stdout.readline() == b"ready\n"
        for one in both:
            one.stdin.close()
        assert [one.wait(60) for one in both] == [0, 0]
    known = msgspec.json.decode(run.evaluation.read_bytes(), type=Evaluations)
    found = {one.file for one in known.checkpoints}
    all_of_them = {f"{name}{turn}" for name in "ab" for turn in range(10)}
    assert (found == all_of_them) == (lock == "with")
    assert not list(run.root.glob("*.lock"))


def test_other_parts_and_options_have_entries_of_their_own(run: RunPaths) -> None:
    plain = scored("a", 0.1)
    mirrored = msgspec.structs.replace(plain, how=How(flip=True))
    other = msgspec.structs.replace(plain, part="train", val_accuracy=0.9)
    record(run, [plain, mirrored])
    again = msgspec.structs.replace(mirrored, val_accuracy=0.4)
    record(run, [other, again])
    whole = msgspec.json.decode(run.evaluation.read_bytes(), type=Evaluations)
    assert whole.checkpoints == (other, again, plain)
