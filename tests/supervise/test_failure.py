"""Who failed first: launchers' own words, the ranks' records, and both together."""

from __future__ import annotations

import pytest

from clusterseg.runs.records import Cause, RankEnd, RankStart
from clusterseg.supervise.failure import (
    Failure,
    RankFacts,
    describe,
    first_failure,
)
from clusterseg.supervise.reports import (
    Report,
    cause_printed,
    launcher_reports,
    launchers_words,
    lost_hosts,
    who_aborted,
)

# Words of Open MPI 5.0.11, 4.1.8, MPICH 4.3 (Hydra) and srun 22.05.
PRTE_SIGNAL = """\
[1,0]<stderr>: [vm:24228] Rank 0 bound to package[0][core:L0]
--------------------------------------------------------------------------
prterun noticed that process rank 1 with PID 11036 on node vm exited on
signal 9 (Killed).
--------------------------------------------------------------------------"""
PRTE_EXIT = """\
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-11129@1,1]
   Exit code:    3
--------------------------------------------------------------------------"""
ORTE_SIGNAL = """\
mpirun noticed that process rank 2 with PID 0 on node n2 exited on signal 11 (Segmentation fault).
"""
ORTE_EXIT = """\
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[24842,1],3]
  Exit code:    1
"""
HYDRA_EXIT = """\
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 4711 RUNNING AT n1
=   EXIT CODE: 3
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
==================================================================================="""
HYDRA_SIGNAL = """\
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 4711 RUNNING AT n1
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
This typically refers to a problem with your application."""
# A rank of MPICH 5.0.2 on another host.
HYDRA_FAR = """\
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 29593 RUNNING AT n3
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
===================================================================================
[proxy:0@n1] HYD_pmcd_pmip_control_cmd_cb (/pmip_cb.c:490): assert (!closed) failed
[mpiexec@vm] main (/mpiexec.c:270): process manager error waiting for completion"""


def intel(*signals: int) -> str:
    """What Intel MPI 2021.18 prints for ranks 0, 1, … of one host."""
    names = {9: "Killed", 11: "Segmentation fault", 15: "Terminated"}
    rule = "=" * 83
    return "\n".join(
        f"\n{rule}\n=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n"
        f"=   RANK {rank} PID {5541 + rank} RUNNING AT vm\n"
        f"=   KILLED BY SIGNAL: {number} ({names[number]})\n{rule}"
        for rank, number in enumerate(signals)
    )


SRUN = """\
srun: error: n2: task 3: Exited with exit code 1
srun: error: n1: tasks 0,1: Killed
"""
RANKS_EXIT = "clusterseg ranks: rank 3 (process 4711 on n1) ended with exit code 5"
RANKS_SIGNAL = "clusterseg ranks: rank 0 (process 4711 on n1) was killed by signal 9"


PRTE_LOST_PEER = """\
[1,0]<stderr>: [n1:00000] *** An error occurred in Socket closed
[1,0]<stderr>: [n1:00000] *** reported by process [3785031681,0]
[1,0]<stderr>: [n1:00000] *** MPI_ERRORS_ARE_FATAL (processes in this communicator will now abort,
[1,0]<stderr>: [n1:00000] ***    and MPI will try to terminate your MPI job as well)
"""
PRTE_ABORT = (
    """\
[1,2]<stderr>: MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD
[1,2]<stderr>:   Proc: [[57755,1],2]
[1,2]<stderr>:   Errorcode: 7
"""
    + PRTE_LOST_PEER
)
PRTE_ABORTED = """\
--------------------------------------------------------------------------
prterun has exited due to process rank {} with PID 25208 on node n2 calling
"abort". This may have caused other processes in the application to be
terminated by signals sent by prterun (as reported here).
--------------------------------------------------------------------------"""


@pytest.mark.parametrize(
    ("text", "reports"),
    [
        ("", []),
        ("all is well", []),
        (PRTE_SIGNAL, [Report(rank=1, pid=11036, host="vm", signal=9)]),
        (PRTE_EXIT, [Report(rank=1, exit_code=3)]),
        (
            PRTE_ABORT + PRTE_ABORTED.format(2),
            [Report(rank=2, pid=25208, host="n2", exit_code=7)],
        ),
        (PRTE_ABORTED.format(3), [Report(rank=3, pid=25208, host="n2")]),
        (PRTE_LOST_PEER + PRTE_ABORTED.format(0), []),  # it noticed that another one is gone
        (ORTE_SIGNAL, [Report(rank=2, pid=0, host="n2", signal=11)]),
        (ORTE_EXIT, [Report(rank=3, exit_code=1)]),
        (HYDRA_EXIT, [Report(pid=4711, host="n1", exit_code=3, vague=True)]),
        (HYDRA_SIGNAL, [Report(pid=4711, host="n1", signal=9, vague=True)]),
        (HYDRA_FAR, [Report(pid=29593, host="n3", signal=9, vague=True)]),
        (intel(9), [Report(rank=0, pid=5541, host="vm", signal=9, vague=True)]),
        (
            intel(9, 9),
            [
                Report(rank=0, pid=5541, host="vm", signal=9, vague=True),
                Report(rank=1, pid=5542, host="vm", signal=9, vague=True),
            ],
        ),
        (intel(9, 11, 9), [Report(rank=1, pid=5542, host="vm", signal=11)]),
        (RANKS_EXIT, [Report(rank=3, pid=4711, host="n1", exit_code=5)]),
        (RANKS_SIGNAL, [Report(rank=0, pid=4711, host="n1", signal=9)]),
        (SRUN, [Report(rank=3, host="n2", exit_code=1), Report(rank=0, host="n1", signal=9)]),
    ],
)
def test_what_launchers_say(text: str, reports: list[Report]) -> None:
    assert launcher_reports(text.split("\n")) == reports


def rank(
    number: int, *, last: float = 1.0, end: tuple[str, float] | None = None, error: str = "E: x"
) -> RankFacts:
    start = RankStart(
        t=0.0, rank=number, attempt=0, world_size=3, host=f"n{number}", pid=4711 + number
    )
    ended = None
    if end is not None:
        status, t = end
        ended = RankEnd(
            t=t, rank=number, status=status, error=error if status == "failed" else None
        )
    return RankFacts(number, start, ended, last, 1)


def test_a_signal_says_most() -> None:
    ranks = [rank(0, end=("failed", 1.0), error="peer is lost"), rank(1), rank(2)]
    reports = [Report(rank=1, host="10.0.0.1", signal=9), Report(rank=2, exit_code=1)]
    assert first_failure(ranks, reports) == Failure(rank=1, host="n1", signal=9)


@pytest.mark.parametrize(
    "ending",
    [
        [],
        ["srun: launch/slurm: _step_signal: Terminating StepId=1.0"],  # 22.05
        ["srun: Terminating StepId=1.0"],
    ],
)
def test_a_signal_after_an_exit_says_nothing(ending: list[str]) -> None:
    """Ranks that catch srun's TERM are killed in the end."""
    lines = [
        "srun: error: n2: task 2: Exited with exit code 5",
        *ending,
        "srun: error: n2: task 3: Killed",
        "srun: error: n1: tasks 0-1: Killed",
    ]
    ranks = [rank(number) for number in range(4)]
    failure = first_failure(ranks, launcher_reports(lines))
    assert failure == Failure(rank=2, host="n2", exit_code=5)
    said = [rank(0), rank(1), rank(2), rank(3, end=("failed", 1.0))]
    failure = first_failure(said, launcher_reports(lines))
    assert failure == Failure(rank=3, host="n3", error="E: x")


def test_of_an_aborted_step_the_exit_code_tells() -> None:
    """MPI_Abort under srun: the step is ended before the rank's end is told."""
    lines = [
        "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.",
        "srun: error: n1: tasks 0-1: Killed",
        "srun: error: n2: task 2: Exited with exit code 7",
    ]
    failure = first_failure([rank(number) for number in range(3)], launcher_reports(lines))
    assert failure == Failure(rank=2, host="n2", exit_code=7)


@pytest.mark.parametrize("code", [75, 143])
def test_the_exit_code_of_the_cleaned_up_says_nothing(code: int) -> None:
    reports = [Report(rank=0, exit_code=code), Report(rank=1, signal=9)]
    assert first_failure([rank(0), rank(1)], reports) == Failure(rank=1, host="n1", signal=9)


def test_a_signal_of_the_cleaning_up_says_nothing() -> None:
    ranks = [rank(0), rank(1, end=("failed", 5.0)), rank(2)]
    for number in (0, 1):  # also not of the rank that failed
        reports = [Report(rank=number, signal=15)]
        assert first_failure(ranks, reports) == Failure(rank=1, host="n1", error="E: x")


def test_of_several_that_failed_the_earliest() -> None:
    ranks = [rank(0, end=("failed", 7.0)), rank(1, end=("failed", 5.0)), rank(2)]
    assert first_failure(ranks, [Report(rank=1, exit_code=4)]) == Failure(
        rank=1, host="n1", exit_code=4, error="E: x"
    )


def test_the_launcher_knows_one_that_wrote_nothing() -> None:
    ranks = [rank(0, end=("stopped", 7.0)), RankFacts(1), rank(2)]
    report = Report(rank=1, host="n9", exit_code=2)
    assert first_failure(ranks, [report]) == Failure(rank=1, host="n9", exit_code=2)


def test_a_process_of_hydra_that_is_alone_on_its_host_is_known_by_its_pid() -> None:
    ranks = [rank(0), rank(1)]
    killed = Report(pid=4712, host="x", signal=9, vague=True)
    assert first_failure(ranks, [killed]) == Failure(rank=1, host="n1", signal=9)
    stranger = Report(pid=1, host="x", signal=9, vague=True)
    assert first_failure(ranks, [stranger]) == Failure(host="x", signal=9)


def on_one_host(*ends: str | None) -> list[RankFacts]:
    """Ranks with the pids 5541, 5542, …; `ends` is what each said of its end."""
    return [
        RankFacts(
            number,
            RankStart(
                t=0.0, rank=number, attempt=0, world_size=3, host="vm.site", pid=5541 + number
            ),
            None if end is None else RankEnd(t=2.0, rank=number, status="failed", error=end),
        )
        for number, end in enumerate(ends)
    ]


HYDRA_VICTIM = HYDRA_SIGNAL.replace("4711", "5541")  # rank 0, whichever it was


@pytest.mark.parametrize("text", [HYDRA_VICTIM, intel(9), intel(9, 9), intel(9, 9, 9)])
def test_who_was_ended_with_the_others_is_not_blamed(text: str) -> None:
    """Where a rank fails, Hydra kills the others, and may name one of those."""
    reports = launcher_reports(text.split("\n"))
    told = first_failure(on_one_host(None, "exited with code 3", None), reports)
    assert (told.rank, told.signal, told.error) == (1, None, "exited with code 3")
    untold = first_failure(on_one_host(None, None, None), reports)
    assert untold == Failure(host="vm.site", signal=9)
    said = describe(untold, [], [], otherwise="it broke")
    assert said == "one of the ranks on vm.site was killed by signal 9 (SIGKILL)"


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ("exit code 3", Failure(rank=1, host="vm.site", exit_code=3)),
        ("signal 9", Failure(rank=1, host="vm.site", signal=9)),
    ],
)
def test_how_a_program_ended_is_known_from_its_wrapper(said: str, failure: Failure) -> None:
    ranks = on_one_host(None, f"the program ended with {said}", None)
    assert first_failure(ranks, launcher_reports(HYDRA_VICTIM.split("\n"))) == failure
    assert first_failure(ranks, []) == failure


def test_a_signal_that_intel_mpi_does_not_send_is_told_from_those_that_it_does() -> None:
    reports = launcher_reports(intel(9, 11, 9).split("\n"))
    found = first_failure(on_one_host("peer is lost", None, None), reports)
    assert found == Failure(rank=1, host="vm.site", signal=11)
    reports = launcher_reports(intel(9, 15).split("\n"))  # TERM came from the supervisor
    found = first_failure(on_one_host("E: x", None, None), reports)
    assert found == Failure(rank=0, host="vm.site", error="E: x")


# MPICH 5.0.2 and Intel MPI 2021.18 alike.
ABORT = (
    "Abort({1}) on node {0} (rank {0} in comm 0): application called "
    "MPI_Abort(MPI_COMM_WORLD, {1}) - process {0}"
)


def test_a_rank_says_in_its_log_that_it_aborted() -> None:
    logs = {0: ["epoch 1"], 1: ["epoch 1", ABORT.format(1, 7)], 2: []}
    assert who_aborted(logs) == Report(rank=1, exit_code=7)
    assert who_aborted({0: ["epoch 1"], 1: [], 2: []}) is None
    assert who_aborted({0: [ABORT.format(1, 7)]}) is None  # it repeats what another one said
    assert who_aborted({0: [ABORT.format(0, 7)], 1: [ABORT.format(1, 7)]}) is None
    lost_peer = "Abort(671779599) on node 0 (rank 0 in comm 0): Fatal error in internal_Allreduce"
    assert who_aborted({0: [lost_peer], 1: [ABORT.format(1, 7)]}) == Report(rank=1, exit_code=7)


def test_of_the_silent_the_one_that_was_silent_first() -> None:
    ranks = [rank(0, end=("done", 9.0)), rank(1, last=8.0), rank(2, last=7.0)]
    assert first_failure(ranks, []).rank == 2
    assert first_failure(ranks[1:], []) == Failure()  # nobody ended: nobody can be told from it
    assert first_failure([RankFacts(0)], []).rank == 0  # there is only one


TRACEBACK = ["epoch 1", "Traceback (most recent call last):", '  File "x.py"', "KeyError: 'a'"]


@pytest.mark.parametrize(
    ("failure", "lines", "first"),
    [
        (
            Failure(rank=1, host="n1", signal=9),
            TRACEBACK,
            "rank 1 on n1 was killed by signal 9 (SIGKILL)",
        ),
        (Failure(rank=1, host="n1", exit_code=1), TRACEBACK, "rank 1 on n1 failed: KeyError: 'a'"),
        (
            Failure(rank=1, exit_code=1, error="nan: loss"),
            TRACEBACK,
            "rank 1 failed: nan: loss",
        ),
        (Failure(rank=0, host="n1", exit_code=3), ["bye"], "rank 0 on n1 exited with code 3"),
        (Failure(rank=0, host="n1"), ["bye"], "rank 0 on n1 ended without a word"),
        (Failure(), ["mpirun: no"], "it broke"),
    ],
)
def test_what_is_said(failure: Failure, lines: list[str], first: str) -> None:
    named = failure.rank is not None
    own, launcher = (lines, ["mpirun: bye"]) if named else ([], lines)
    said = describe(failure, own, launcher, otherwise="it broke").split("\n")
    assert said[0] == first
    assert said[2:] == [f"  {line}" for line in lines]
    assert said[1] == ("its" if named else "the launcher's") + " last lines:"


def test_for_a_rank_that_wrote_nothing_the_launcher_speaks() -> None:
    said = describe(Failure(rank=1, exit_code=2), [], ["srun: error: no"], otherwise="it broke")
    assert said == "rank 1 exited with code 2\nthe launcher's last lines:\n  srun: error: no"


ORTE_OPTION = """\
--------------------------------------------------------------------------
An unrecognized option was included on the mpirun command line:

  Option: --no-such-flag

Please use the "mpirun --help" command to obtain a list of all
supported options.
--------------------------------------------------------------------------"""


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("", None),
        ("0: cpu-bind=MASK - n1, task  0  0 [7]: mask 0x1 set", None),
        (
            "/usr/bin/srun: unrecognized option '--x'\nTry \"srun --help\" for more information",
            "/usr/bin/srun: unrecognized option '--x'",
        ),
        (
            "srun: Job step creation temporarily disabled, retrying\n"
            "srun: error: Unable to create step for job 5: Invalid account",
            "srun: error: Unable to create step for job 5: Invalid account",
        ),
        (
            ORTE_OPTION,
            "An unrecognized option was included on the mpirun command line: Option: "
            '--no-such-flag Please use the "mpirun --help" command to obtain a list of all '
            "supported options.",
        ),
        ("[mpiexec@n1] match_arg (args.c:166): no", "[mpiexec@n1] match_arg (args.c:166): no"),
        (
            "[mpiexec@n1] HYDU_set_str (lib/utils/args.c:198): duplicate setting: bind-to\n"
            "[mpiexec@n1] bind_to_fn (mpiexec/options.c:1069): error setting binding",
            "[mpiexec@n1] HYDU_set_str (lib/utils/args.c:198): duplicate setting: bind-to",
        ),
    ],
)
def test_what_launchers_say_of_themselves(printed: str, words: str | None) -> None:
    assert launchers_words(printed.splitlines()) == words


def test_what_is_said_is_capped() -> None:
    said = describe(Failure(rank=0), ["x" * 5000] * 50, [], otherwise="")
    assert len(said) <= 4096
    assert describe(Failure(rank=0), [], [], otherwise="") == "rank 0 ended without a word"


SRUN_KILLED = """\
srun: error: n2: task 2: Killed
srun: launch/slurm: _step_signal: Terminating StepId=3.0
slurmstepd-n1: error: *** STEP 3.0 ON n1 CANCELLED AT 2026-11-21T03:02:32 ***
srun: error: n2: task 3: Terminated
srun: error: n1: tasks 0-1: Terminated
srun: Force Terminated StepId=3.0"""
SRUN_NODE = """\
srun: error: Node failure on n[2-3]
0: slurmstepd-n1: error: *** STEP 13.0 ON n1 CANCELLED AT 2026-11-21T03:41:16 DUE TO NODE FAILURE, \
SEE SLURMCTLD LOG FOR DETAILS ***
srun: Job step aborted: Waiting up to 12 seconds for job step to finish."""
PRTE_LOST = """\
PRTE has lost communication with a remote daemon.

  HNP daemon   : [prterun-n1-8717@0,0] on node n1
  Remote daemon: [prterun-n1-8717@0,1] on node n2

This is usually due to either a failure of the TCP network"""
ORTE_LOST = """\
ORTE has lost communication with a remote daemon.

  HNP daemon   : [[24842,0],0] on node n1
  Remote daemon: [[24842,0],2] on node n3
"""


def test_of_a_step_that_srun_ended_the_first_rank_is_the_culprit() -> None:
    reports = launcher_reports(SRUN_KILLED.splitlines())
    assert reports[0] == Report(rank=2, host="n2", signal=9)
    ranks = [RankFacts(rank) for rank in range(4)]
    failure = first_failure(ranks, reports)
    assert (failure.rank, failure.signal, failure.host) == (2, 9, "n2")


@pytest.mark.parametrize(
    ("said", "hosts"),
    [
        (SRUN_NODE, ["n2", "n3"]),
        (PRTE_LOST, ["n2"]),
        (ORTE_LOST, ["n3"]),
        (SRUN_KILLED, []),
        ("srun: error: Node failure on n[1-", []),
    ],
)
def test_hosts_that_are_lost(said: str, hosts: list[str]) -> None:
    assert lost_hosts(said.splitlines()) == hosts


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        (" DUE TO PREEMPTION", Cause.PREEMPTED),
        (" DUE TO TIME LIMIT", Cause.TIME_LIMIT),
        (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", Cause.NODE_FAIL),
        (" DUE TO NODE n2 FAILURE", Cause.NODE_FAIL),
        ("", None),
    ],
)
def test_why_slurm_ended_a_step(why: str, cause: Cause | None) -> None:
    line = f"slurmstepd: error: *** STEP 3.0 ON n1 CANCELLED AT 2026-11-21T03:02:32{why} ***"
    assert cause_printed([line]) is cause
