"""Brings the ranks to where the attempt's claim says they begin."""

from __future__ import annotations

import sys

import msgspec

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import CheckpointError
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import TrainingError
from clusterseg.train.identity import check_fits
from clusterseg.train.progress import Progress
from clusterseg.train.state import TrainState


class _Answer(msgspec.Struct):
    """What rank 0 tells the others: the header it loaded, or what is wrong."""

    header: CheckpointHeader | None = None
    error: str = ""
    help: str | None = None


def restore(
    paths: RunPaths,
    claim: Claim,
    state: TrainState,
    communicator: Communicator,
    *,
    identity: dict[str, str],
    global_batch: int,
    force: bool = False,
) -> Progress:
    """Loads the claimed checkpoint on rank 0 and gives its state to all; without one the fresh
    weights of rank 0.

    Rank 0 alone reads, so that a thousand ranks don't. Raises TrainingError on all ranks if the
    file is damaged or does not fit the job; every difference is named. With `force`, those with
    which it makes sense to go on are warnings in rank 0's log.
    """
    answer = _Answer()
    if communicator.rank == 0 and claim.resume_from is not None:
        try:
            answer = _Answer(
                header=_load(
                    paths,
                    claim,
                    claim.resume_from,
                    state,
                    identity,
                    global_batch=global_batch,
                    force=force,
                )
            )
        except CheckpointError as error:
            answer = _Answer(error=error.message, help=error.help)
            for line in error.details:  # the message of a large model shows some of them
                sys.stderr.write(f"{claim.resume_from}: {line}\n")
    text = communicator.broadcast_text(msgspec.json.encode(answer).decode())
    answer = msgspec.json.decode(text, type=_Answer)
    if answer.error:
        raise TrainingError(
            f"restore: {answer.error}", code="restore", agreed=True, help=answer.help
        )
    state.broadcast(communicator)
    return Progress.from_header(answer.header) if answer.header else Progress()


def _load(
    paths: RunPaths,
    claim: Claim,
    name: str,
    state: TrainState,
    identity: dict[str, str],
    *,
    global_batch: int,
    force: bool,
) -> CheckpointHeader:
    layout, data = read_verified(paths.checkpoints / name, claim.accepted.get(name))
    if layout.header.step != claim.resume_step:
        raise CheckpointError(
            f"{name} is of step {layout.header.step}, the claim says {claim.resume_step}"
        )
    passed = check_fits(name, layout.header, identity, global_batch=global_batch, force=force)
    for one in passed:
        sys.stderr.write(f"warning: --force: {one} ({name})\n")
    state.load(name, layout, data)
    return layout.header
