"""Claims the attempt after attempt 0 of a run, once: what the sweeps kill and disturb.

`python -m tests.lease.claimant RUN [BROKEN]`; 0: claimed, 1: an error that a person may
see (its text on standard output), anything else: killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clusterseg.errors import ClustersegError
from clusterseg.runs import choice, files
from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import checkpoint_name, commit_checkpoint
from clusterseg.runs.claims import Patience, claim_next
from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from tests.runs.claiming import QUICK, World, wanted

STEPS = (10, 20, 30)
BRIEF = Patience(interval=0.02, grace=0.1, look=0.05)


def prepare(run: RunPaths) -> None:
    """Attempt 0: three checkpoints, one unfinished one, one of nobody, a heartbeat, no end."""
    run.root.mkdir()
    first = claim_next(run, wanted(), World(), QUICK)
    assert first is not None
    files.make_private_dir(run.checkpoints)
    for step in STEPS:
        save(run, first, step)
    (run.checkpoints / ".weights-0000-0.0000-step-000000040.attempt-0.12345678.tmp").touch()
    stray = run.checkpoints / checkpoint_name(0, 0.0, 40)
    stray.write_bytes(b"no checkpoint at all")
    HeartbeatWriter(run.attempt(0).heartbeat).beat()


def save(run: RunPaths, claim: Claim, step: int) -> None:
    header = CheckpointHeader(epoch=0, step=step, step_in_epoch=step, attempt=claim.attempt, t=1.0)
    data = memoryview(step.to_bytes(8, "little"))
    commit_checkpoint(
        run.checkpoints,
        checkpoint_name(0, 0.0, step),
        header,
        [Tensor("state", "U8", (8,), data)],
        accepted=claim.accepted,
    )


def touched(run: RunPaths) -> list[Path]:
    """What the claim of attempt 1 looks at and writes, by names that a tracer can know."""
    attempt = run.attempt(1)
    checkpoints = [run.checkpoints / checkpoint_name(0, 0.0, step) for step in (*STEPS, 40)]
    return [
        run.root,
        run.attempts,
        run.control,
        run.attempt(0).claim,
        run.attempt(0).end,
        run.attempt(0).heartbeat,
        run.stop_file(0),
        run.checkpoints,
        *checkpoints,
        run.rejected,
        run.rejected / checkpoints[-1].name,
        run.stop_file(1),
        attempt.folder,
        attempt.claim,
        attempt.folder / f".tmp-claim.json-1-{'00' * 8}",
        attempt.ranks,
    ]


def main(root: Path, broken: str) -> int:
    request = wanted(pid=200)
    files.os.getpid = lambda: 1  # type: ignore[attr-defined]
    files.os.urandom = bytes  # type: ignore[assignment]
    choice._BETWEEN = 0.01
    _break(broken)
    try:
        claim_next(RunPaths(root), request, World(process=None), BRIEF)
    except (OSError, ClustersegError) as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


def _break(what: str) -> None:
    """For the tests that must fail then."""

    def write_in_place(path: Path, data: bytes) -> None:
        for name in (path.with_name(f".tmp-{path.name}-1-{'00' * 8}"), path):
            name.write_bytes(data[:10])
            with name.open("ab") as file:
                file.write(data[10:])

    if what == "takes a bad moment for damage":
        choice._patiently = lambda read, path: read(path)  # type: ignore[assignment]
    elif what == "writes in place":
        files.commit_new = write_in_place  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "".join(sys.argv[2:])))
