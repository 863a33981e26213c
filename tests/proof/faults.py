"""What is done to a run in the middle of its work, and what has to come of it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.proof.live import Live, kill

AT_STEP = 25  # the fault comes when rank 0 has told of this one
HOLD = 8  # seconds that a job of the partition `high` keeps what it took


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    `causes`: of each attempt in order, with "|" between what may come first. `exact`: for these
    launchers there is a notice, so that no step may be done twice. `signal`: on a cluster that
    gives the batch step a notice of preemption. `shared`: it hurts all that run on a node, or on
    the cluster, so that both launchers' runs meet it together. `long`: it takes a while until it
    is seen.
    """

    name: str
    inject: Callable[[Live], None]
    causes: tuple[str, ...]
    exact: tuple[str, ...] = ()
    signal: bool = True
    shared: bool = False
    long: bool = False
    mend: Callable[[Live], None] | None = None


def preempt(live: Live) -> None:
    """A job of a better partition wants the very nodes."""
    nodes = ",".join(live.hosts())
    live.cluster.sbatch(
        "--partition=high", "--exclusive", f"--nodelist={nodes}", f"--nodes={len(live.hosts())}",
        "--output=/dev/null", script=f"#!/bin/sh\nsleep {HOLD}\n",
    )  # fmt: skip


def end_the_time(live: Live) -> None:
    """The job's limit is shortened to the next minute; once it waits again it has enough."""
    began = live.claim().t
    minutes = int((time.time() - began) // 60) + 2
    live.cluster.scontrol("update", f"jobid={live.job}", f"timelimit={minutes}")
    live.wait(lambda: live.cluster.job(live.job)["JobState"] != "RUNNING", "it leaves", 240)
    live.wait(lambda: live.cluster.job(live.job)["JobState"] == "PENDING", "it is requeued", 60)
    live.cluster.scontrol("update", f"jobid={live.job}", "timelimit=20")


def kill_a_rank(live: Live) -> None:
    kill(live.rank_start(1).pid, signal.SIGKILL)


def stop_a_rank(live: Live) -> None:
    kill(live.rank_start(1).pid, signal.SIGSTOP)


def kill_the_supervisor(live: Live) -> None:
    kill(live.claim().pid, signal.SIGKILL)


def kill_slurmd(live: Live) -> None:
    """Of the batch host: the script there goes on, nobody watches it any more."""
    live.notes["node"] = live.hosts()[0]
    live.cluster.fault(live.hosts()[0], "kill-slurmd")


def start_slurmd(live: Live) -> None:
    live.cluster.fault(live.notes["node"], "start-slurmd")
    _back(live)


def cut_the_network(live: Live) -> None:
    """Of the other node."""
    live.notes["node"] = live.hosts()[1]
    live.cluster.fault(live.hosts()[1], "cut")


def cut_the_batch_host(live: Live) -> None:
    """Of the node whose supervisor goes on: it still sees the run directory."""
    live.notes["node"] = live.hosts()[0]
    live.cluster.fault(live.hosts()[0], "cut")


def join_the_network(live: Live) -> None:
    live.cluster.fault(live.notes["node"], "join")
    _back(live)


def _back(live: Live) -> None:
    node = live.notes["node"]
    subprocess.run(
        ["scontrol", "update", f"nodename={node}", "state=resume"],
        env=live.cluster.environ, check=False, capture_output=True,
    )  # fmt: skip
    live.cluster.wait_until_node(node, "IDLE|ALLOCATED|MIXED|COMPLETING", timeout=90)


def restart_slurmctld(live: Live) -> None:
    live.cluster.fault("controller", "kill")
    time.sleep(5)
    live.cluster.fault("controller", "start")


def cancel_and_resume(live: Live) -> None:
    live.cli("cancel", live.run.run_id)
    live.cli("resume", live.run.run_id)


def requeue_by_hand(live: Live) -> None:
    live.cluster.scontrol("requeue", live.job)


BOTH = ("srun", "mpirun")
FAULTS = (
    Fault("preemption, with notice", preempt, ("preempted", "done"), exact=BOTH),
    Fault("preemption, without", preempt, ("preempted", "done"), exact=("srun",), signal=False),
    Fault("time limit", end_the_time, ("time_limit", "done"), exact=BOTH, long=True),
    Fault("a rank is killed", kill_a_rank, ("crash", "done")),
    Fault("a rank is stopped", stop_a_rank, ("hang", "done")),
    Fault("the supervisor is killed", kill_the_supervisor, ("unknown", "done")),
    Fault(
        "slurmd of the batch host is killed", kill_slurmd, ("node_fail", "done"),
        signal=False, shared=True, long=True, mend=start_slurmd,
    ),
    Fault(
        "the network of a node is cut", cut_the_network, ("node_fail", "done"),
        signal=False, shared=True, long=True, mend=join_the_network,
    ),
    Fault(
        # Its supervisor can't ask Slurm: it is asked to stop by the next one, or sees a hang.
        "the network of the batch host is cut", cut_the_batch_host,
        ("preempted|hang|node_fail", "done"),
        signal=False, shared=True, long=True, mend=join_the_network,
    ),
    Fault("slurmctld is killed and started", restart_slurmctld, ("done",), shared=True, exact=BOTH),
    Fault("cancel, then resume", cancel_and_resume, ("cancelled", "done"), exact=BOTH),
    Fault("requeue by hand", requeue_by_hand, ("preempted", "done")),
)  # fmt: skip


@contextmanager
def mended(fault: Fault, live: Live) -> Iterator[None]:
    """Whatever happens, the nodes are whole afterwards."""
    try:
        yield
    finally:
        if fault.mend is not None and "node" in live.notes:
            fault.mend(live)
