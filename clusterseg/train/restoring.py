"""Brings the ranks to where the attempt's claim says they begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from clusterseg.errors import ClustersegError
from clusterseg.runs.checkpoint_file import read_layout, read_verified
from clusterseg.runs.checkpoints import CheckpointError
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import TrainingError, say, warn
from clusterseg.train.identity import check_fits
from clusterseg.train.initial_weights.load import load_initial_weights
from clusterseg.train.phases import ignore
from clusterseg.train.progress import Progress
from clusterseg.train.state import TrainState


class _Answer(msgspec.Struct):
    """What rank 0 tells the others: the header it loaded, or what is wrong."""

    header: CheckpointHeader | None = None
    error: str = ""
    help: str | None = None


def peek(paths: RunPaths, claim: Claim, communicator: Communicator) -> CheckpointHeader | None:
    """The header of the claimed checkpoint, on all ranks: what a step reads depends on it.

    Read by rank 0, and not yet verified: `restore` does that. Raises TrainingError on all ranks
    if it can't be read.
    """
    answer = _Answer()
    if communicator.rank == 0 and claim.resume_from is not None:
        try:
            answer.header = read_layout(paths.checkpoints / claim.resume_from).header
        except ClustersegError as error:
            answer = _Answer(error=error.message, help=error.help)
    text = communicator.broadcast_text(msgspec.json.encode(answer).decode())
    answer = msgspec.json.decode(text, type=_Answer)
    if answer.error:
        raise TrainingError(
            f"restore: {answer.error}", code="restore", agreed=True, help=answer.help
        )
    return answer.header


def restore(
    paths: RunPaths,
    claim: Claim,
    state: TrainState,
    communicator: Communicator,
    *,
    identity: dict[str, str],
    force: bool = False,
    initial_weights: str | None = None,
    lap: Callable[[str], None] = ignore,
) -> Progress:
    """Loads the claimed checkpoint on rank 0 and gives its state to all; without one the fresh
    weights of rank 0, or those of the file `initial_weights` (`train.initial_weights`).

    Rank 0 alone reads, so that a thousand ranks don't. It hashes what it read, though the claimer
    verified the file: that was another process, perhaps on another host, and another read. `lap`
    ends the parts read, hash, load (rank 0), wait (for rank 0), broadcast. Raises TrainingError
    on all ranks if the file is damaged or does not fit the job; every difference is named. With
    `force`, those with which it makes sense to go on are warnings in rank 0's log.
    """
    answer = _Answer()
    if communicator.rank == 0:
        try:
            if claim.resume_from is not None:
                answer.header = _load(
                    paths,
                    claim,
                    claim.resume_from,
                    state,
                    identity,
                    force=force,
                    lap=lap,
                )
            elif initial_weights is not None:
                load_initial_weights(Path(initial_weights).expanduser(), state)
                if state.averages is not None:
                    state.averages.start()
        except ClustersegError as error:
            answer = _Answer(error=error.message, help=error.help)
            # The message of a large model shows some of them.
            for line in error.details if isinstance(error, CheckpointError) else ():
                say(f"{claim.resume_from}: {line}")
    text = communicator.broadcast_text(msgspec.json.encode(answer).decode())
    lap("wait")
    answer = msgspec.json.decode(text, type=_Answer)
    if answer.error:
        what, code = "restore", "restore"
        if claim.resume_from is None:
            what, code = "initial weights", "initial-weights"
        raise TrainingError(f"{what}: {answer.error}", code=code, agreed=True, help=answer.help)
    state.broadcast(communicator)
    lap("broadcast")
    return Progress.from_header(answer.header) if answer.header else Progress()


def _load(
    paths: RunPaths,
    claim: Claim,
    name: str,
    state: TrainState,
    identity: dict[str, str],
    *,
    force: bool,
    lap: Callable[[str], None],
) -> CheckpointHeader:
    layout, data = read_verified(paths.checkpoints / name, claim.accepted.get(name), lap=lap)
    if layout.header.step != claim.resume_step:
        raise CheckpointError(
            f"{name} is of step {layout.header.step}, the claim says {claim.resume_step}"
        )
    passed = check_fits(name, layout.header, identity, force=force)
    for one in passed:
        warn(f"--force: {one} ({name})")
    state.load(name, layout, data)
    lap("load")
    return layout.header
