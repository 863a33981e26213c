"""Causes and decisions, from values alone: the table of causes row by row, and its laws."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.errors import ExitCode
from clusterseg.runs.control import StopReason
from clusterseg.runs.records import Cause, State
from clusterseg.supervise.causes import (
    Evidence,
    cause_of_request,
    cause_of_signal,
    classify,
)
from clusterseg.supervise.policy import (
    LONGEST_BACK_OFF,
    Action,
    Budgets,
    Decision,
    Ended,
    decide,
    prevailing,
    refuse,
    signature,
)

TRAIN = {"ranks": 2, "reports_ends": True}
DONE, STOPPED, FAILED = ("done", "done"), ("stopped", "stopped"), ("failed",)

CASES: list[tuple[str, Evidence, Cause]] = [
    ("a program that ends well", Evidence(0, 2), Cause.DONE),
    ("all ranks done", Evidence(0, statuses=DONE, **TRAIN), Cause.DONE),
    ("done before the stop was seen", Evidence(0, 2, asked=Cause.PREEMPTED), Cause.DONE),
    ("a rank never said that it is done", Evidence(0, statuses=("done",), **TRAIN), Cause.CRASH),
    ("success of nobody", Evidence(0, **TRAIN), Cause.CRASH),
    (
        "a failure, exit 0",
        Evidence(0, statuses=("done", "failed"), **TRAIN),
        Cause.CRASH,
    ),
    ("stopped on TERM at a rank", Evidence(75, statuses=STOPPED, **TRAIN), Cause.PREEMPTED),
    ("nothing said, on a full disk", Evidence(1, no_room=True, **TRAIN), Cause.DISK_FULL),
    (
        "another reason said, on a full disk",
        Evidence(1, statuses=FAILED, error="ValueError: moon", no_room=True, **TRAIN),
        Cause.CRASH,
    ),
    ("a program that exits 75", Evidence(75, 2), Cause.PREEMPTED),
    (
        "stopped as asked",
        Evidence(75, statuses=STOPPED, asked=Cause.TIME_LIMIT, **TRAIN),
        Cause.TIME_LIMIT,
    ),
    (
        "all stopped, the launcher has its own opinion",
        Evidence(143, statuses=STOPPED, asked=Cause.PREEMPTED, **TRAIN),
        Cause.PREEMPTED,
    ),
    (
        "some were ended by the launcher after the first 75",
        Evidence(75, statuses=("stopped",), asked=Cause.PREEMPTED, **TRAIN),
        Cause.PREEMPTED,
    ),
    ("ended by the supervisor", Evidence(143, 2, asked=Cause.PREEMPTED), Cause.PREEMPTED),
    ("a launcher killed", Evidence(None, 2), Cause.CRASH),
    ("cancelled", Evidence(137, 2, asked=Cause.CANCELLED), Cause.CANCELLED),
    ("cancelled while the disk was full", Evidence(1, 2, asked=Cause.CANCELLED), Cause.CANCELLED),
    ("found hanging", Evidence(143, 2, forced=Cause.HANG), Cause.HANG),
    ("exit 1", Evidence(1, 2), Cause.CRASH),
    (
        "75 from one, a failure of another",
        Evidence(75, statuses=("stopped", "failed"), **TRAIN),
        Cause.CRASH,
    ),
    (
        "Python's memory",
        Evidence(1, statuses=FAILED, error="MemoryError: ", **TRAIN),
        Cause.OUT_OF_MEMORY,
    ),
    (
        "the trainer's word for it",
        Evidence(1, statuses=FAILED, error="out of memory: OOM when allocating tensor", **TRAIN),
        Cause.OUT_OF_MEMORY,
    ),
    ("C++", Evidence(134, 2, log_tail=("what():  std::bad_alloc",)), Cause.OUT_OF_MEMORY),
    ("the kernel", Evidence(137, 2, killed_for_memory=True), Cause.OUT_OF_MEMORY),
    (
        "Slurm",
        Evidence(137, 2, log_tail=("slurmstepd: error: Detected 1 oom_kill event",)),
        Cause.OUT_OF_MEMORY,
    ),
    (
        "a full disk, even while stopping",
        Evidence(
            1, asked=Cause.PREEMPTED, statuses=FAILED, error="disk full: saving step 7", **TRAIN
        ),
        Cause.DISK_FULL,
    ),
    (
        "a full disk in a log",
        Evidence(1, 2, log_tail=("OSError: [Errno 28] No space left on device",)),
        Cause.DISK_FULL,
    ),
    ("a quota", Evidence(1, 2, log_tail=("Disk quota exceeded",)), Cause.DISK_FULL),
    (
        "not a number",
        Evidence(1, statuses=FAILED, error="nan: loss of step 3 is not finite", **TRAIN),
        Cause.NAN,
    ),
    ("nan in a log means nothing", Evidence(1, 2, log_tail=("val_loss nan",)), Cause.CRASH),
    (
        "a lost node",
        Evidence(1, 2, log_tail=("PRTE has lost communication with a remote daemon.",)),
        Cause.NODE_FAIL,
    ),
    (
        "a node lost while stopping",
        Evidence(
            1,
            2,
            asked=Cause.PREEMPTED,
            log_tail=("ORTE has lost communication with a remote daemon.",),
        ),
        Cause.PREEMPTED,
    ),
]


@pytest.mark.parametrize(
    ("evidence", "cause"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_causes(evidence: Evidence, cause: Cause) -> None:
    assert classify(evidence) is cause


evidences = st.builds(
    Evidence,
    exit_code=st.none() | st.sampled_from([0, 1, 2, 75, 134, 137, 143]),
    ranks=st.integers(1, 4),
    asked=st.none() | st.sampled_from([Cause.PREEMPTED, Cause.TIME_LIMIT, Cause.CANCELLED]),
    forced=st.none() | st.sampled_from([Cause.HANG, Cause.CRASH]),
    reports_ends=st.booleans(),
    statuses=st.lists(st.sampled_from(["done", "stopped", "failed"]), max_size=4).map(tuple),
    error=st.none() | st.sampled_from(["MemoryError", "disk full: x", "nan: x", "ValueError: x"]),
    log_tail=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    killed_for_memory=st.booleans(),
)


@given(evidences)
def test_laws_of_causes(evidence: Evidence) -> None:
    cause = classify(evidence)
    assert cause is not Cause.UNKNOWN  # that is the absence of a supervisor's word
    if cause is Cause.DONE:
        assert evidence.exit_code == 0
    if evidence.forced:
        assert cause is evidence.forced
    elif evidence.asked is Cause.CANCELLED:
        # A request that came when all ranks had done their work has changed nothing.
        all_done = set(evidence.statuses) == {"done"} and evidence.exit_code == 0
        assert cause is Cause.CANCELLED or (all_done and cause is Cause.DONE)
    if cause in (Cause.TIME_LIMIT, Cause.CANCELLED):
        assert evidence.asked is cause
    if evidence.asked and not evidence.forced:
        # Nobody restarts at once what was asked to stop.
        assert cause not in (Cause.CRASH, Cause.HANG, Cause.NODE_FAIL)


@pytest.mark.parametrize(
    ("number", "left", "cause"),
    [
        (signal.SIGTERM, None, Cause.PREEMPTED),
        (signal.SIGTERM, 10.0, Cause.PREEMPTED),
        (signal.SIGHUP, None, Cause.PREEMPTED),
        (signal.SIGUSR1, None, Cause.PREEMPTED),
        (signal.SIGUSR1, 3600.0, Cause.PREEMPTED),
        (signal.SIGUSR1, 100.0, Cause.TIME_LIMIT),
        (signal.SIGINT, 100.0, Cause.CANCELLED),
    ],
)
def test_what_a_signal_means(number: int, left: float | None, cause: Cause) -> None:
    assert cause_of_signal(number, left) is cause


def test_what_a_request_means() -> None:
    assert cause_of_request(StopReason.CANCEL) is Cause.CANCELLED
    assert cause_of_request(StopReason.CANCEL_NOW) is Cause.CANCELLED
    assert cause_of_request(StopReason.PREEMPTED) is Cause.PREEMPTED
    assert cause_of_request(StopReason.TIME_LIMIT) is Cause.TIME_LIMIT
    assert cause_of_request(StopReason.SUPERSEDED) is Cause.PREEMPTED
    assert cause_of_request("lunch") is Cause.CANCELLED


# cause, can be requeued -> action, state and exit code of the run if nothing is used up.
TABLE: dict[tuple[Cause, bool], tuple[Action, State, int]] = {}
for _queue in (False, True):
    _stop = Action.REQUEUE if _queue else Action.END
    TABLE |= {
        (Cause.DONE, _queue): (Action.END, State.DONE, 0),
        (Cause.PREEMPTED, _queue): (_stop, State.STOPPED, 75),
        (Cause.TIME_LIMIT, _queue): (_stop, State.STOPPED, 75),
        (Cause.CANCELLED, _queue): (Action.END, State.STOPPED, 75),
        (Cause.CRASH, _queue): (Action.RESTART, State.FAILED, 1),
        (Cause.HANG, _queue): (Action.RESTART, State.FAILED, 1),
        (Cause.UNKNOWN, _queue): (Action.RESTART, State.FAILED, 1),
        # The lost host stays in the allocation: a scheduler gives another one.
        (Cause.NODE_FAIL, _queue): (
            Action.REQUEUE if _queue else Action.RESTART,
            State.FAILED,
            1,
        ),
        (Cause.OUT_OF_MEMORY, _queue): (Action.END, State.FAILED, 1),
        (Cause.NAN, _queue): (Action.END, State.FAILED, 1),
        (Cause.DISK_FULL, _queue): (Action.END, State.STOPPED, 75),
    }


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(product(Cause, [False, True]))


@pytest.mark.parametrize(("cause", "queue"), TABLE)
def test_the_table(cause: Cause, queue: bool) -> None:
    decision = decide(Ended(cause), [], Budgets(), can_requeue=queue)
    assert (decision.action, decision.state, decision.exit_code) == TABLE[cause, queue]


@pytest.mark.parametrize("cause", Cause)
def test_nothing_is_restarted_against_a_request_to_stop(cause: Cause) -> None:
    decision = decide(Ended(cause), [], Budgets(), space_seen=True, asked=True)
    _, state, code = TABLE[cause, False]
    assert (decision.action, decision.state, decision.exit_code) == (Action.END, state, code)


def test_cancel_now_leaves_a_cancelled_run() -> None:
    decision = decide(Ended(Cause.CANCELLED), [], Budgets(), now=True)
    assert (decision.state, decision.exit_code) == (State.CANCELLED, ExitCode.FAILED)


BUDGET_OF = {
    Cause.CRASH: "crash",
    Cause.HANG: "crash",
    Cause.UNKNOWN: "crash",
    Cause.NODE_FAIL: "node",
    Cause.PREEMPTED: "preemption",
    Cause.TIME_LIMIT: "time_limit",
}


@pytest.mark.parametrize("cause", BUDGET_OF)
@pytest.mark.parametrize("budget", [0, 1, 3, "unlimited"])
def test_budgets_are_spent_by_their_own_causes_only(cause: Cause, budget: int | str) -> None:
    budgets = replace(Budgets(0, 0, 0, 0), **{BUDGET_OF[cause]: budget})
    others = [Ended(other) for other in Cause if BUDGET_OF.get(other) != BUDGET_OF[cause]]
    for used in range(6):
        history = [*others, *[Ended(cause, position=step) for step in range(used)]]
        decision = decide(Ended(cause, position=99), history, budgets, can_requeue=True)
        left = budget == "unlimited" or used < int(budget)
        assert (decision.action is not Action.END) == left


def test_disk_full_is_tried_once_more_after_space_is_seen() -> None:
    full = Ended(Cause.DISK_FULL)
    assert decide(full, [], Budgets(), space_seen=True).action is Action.RESTART
    assert decide(full, [], Budgets(), space_seen=False).action is Action.END
    again = decide(full, [full], Budgets(), space_seen=True)
    assert (again.action, again.state, again.exit_code) == (Action.END, State.STOPPED, 75)


CRASH = Ended(Cause.CRASH, 40, "rank 1 on n1 failed: ValueError: bad shape 0x7f31 at 3\n  line")


@pytest.mark.parametrize(
    ("now", "repeats"),
    [
        (CRASH, True),
        (replace(CRASH, error="rank 1 on n1 failed: ValueError: bad shape 0x9aa0 at 5"), True),
        (replace(CRASH, cause=Cause.HANG), True),
        (replace(CRASH, position=41), False),
        (replace(CRASH, position=None), False),
        (replace(CRASH, error="rank 1 on n1 failed: KeyError: 'x'"), False),
        (replace(CRASH, signal=signal.SIGKILL), False),
        (replace(CRASH, signal=signal.SIGSEGV), True),
        (replace(CRASH, cause=Cause.NODE_FAIL), False),
    ],
)
def test_what_repeats_without_progress_is_not_retried(now: Ended, repeats: bool) -> None:
    unlimited = Budgets(crash="unlimited", node="unlimited")
    assert (decide(now, [CRASH], unlimited).action is Action.END) == repeats
    # Something else in between is progress of a kind: it was not the same thing twice running.
    between = [CRASH, Ended(Cause.PREEMPTED, 40)]
    assert decide(now, between, unlimited).action is Action.RESTART


@pytest.mark.parametrize(
    ("error", "repeats"),
    [
        ("the launcher ended with exit code 1: no such flag", True),
        ("the launcher ended with exit code 1: no such host", False),
        ("rank 1 on n1 exited with code 3", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("position", [None, 40])
def test_a_launch_that_fails_as_before_is_not_retried(
    error: str | None, repeats: bool, position: int | None
) -> None:
    """Also of a program that tells no steps: it has not begun."""
    launch = "the launcher ended with exit code 213: no such flag"
    now = Ended(Cause.CRASH, position, launch, unlaunched=True)
    decision = decide(now, [Ended(Cause.CRASH, 39, error)], Budgets())
    assert (decision.action is Action.END) == repeats
    assert decide(now, [], Budgets()).action is Action.RESTART
    assert decide(replace(now, unlaunched=False), [now], Budgets()).action is (
        Action.RESTART if position is None else Action.END
    )


def test_back_off_grows_with_each_failure_in_a_row_and_has_an_end() -> None:
    unlimited = Budgets(crash="unlimited")
    history: list[Ended] = []
    delays = []
    for step in range(9):
        ended = Ended(Cause.CRASH, position=step)
        delays.append(decide(ended, history, unlimited).delay)
        history.append(ended)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert delays[-1] == LONGEST_BACK_OFF
    history.append(Ended(Cause.PREEMPTED, position=9))
    assert decide(Ended(Cause.CRASH, position=10), history, unlimited).delay == 1


budgets = st.integers(0, 4) | st.just("unlimited")
ends = st.builds(
    Ended,
    cause=st.sampled_from(Cause),
    position=st.none() | st.integers(0, 3),
    error=st.none() | st.sampled_from(["a 1", "a 2", "b"]),
    signal=st.none() | st.sampled_from([9, 11]),
)


@given(
    st.lists(ends, min_size=1, max_size=30),
    st.builds(Budgets, budgets, budgets, budgets, budgets),
    st.booleans(),
    st.booleans(),
)
def test_a_run_ends_within_its_budgets(
    outcomes: list[Ended], limits: Budgets, can_requeue: bool, space: bool
) -> None:
    """Whatever happens, no budget is overdrawn, and every decision is one of the table's."""
    history: list[Ended] = []
    for ended in outcomes:
        decision: Decision = decide(
            ended, history, limits, can_requeue=can_requeue, space_seen=space
        )
        history.append(ended)
        assert decision.exit_code in (0, 1, 75)
        assert (decision.exit_code == 0) == (decision.state is State.DONE)
        assert decision.delay <= LONGEST_BACK_OFF
        assert decision.reason
        if decision.action is Action.END:
            break
    restarts = history[:-1]
    for name, limit in vars(limits).items():
        used = sum(BUDGET_OF.get(one.cause) == name for one in restarts)
        assert limit == "unlimited" or used <= limit
    never = {Cause.DONE, Cause.CANCELLED, Cause.OUT_OF_MEMORY, Cause.NAN}
    assert not never & {one.cause for one in restarts}
    assert sum(one.cause is Cause.DISK_FULL for one in restarts) <= 1


def test_signatures_forget_numbers_and_what_follows_the_first_line() -> None:
    assert signature("step 12 at 0xff: bad\nlog") == signature("step 7 at 0x1: bad\nother")
    assert signature("a") != signature("b")
    assert signature(None) == signature("")


def killed(cause: Cause, position: int | None = None) -> Ended:
    """An attempt without an end record, and what the scheduler says of it."""
    return Ended(cause, position, killed=True)


PREEMPTED = Ended(Cause.PREEMPTED)
NEVER = Budgets(preemption=0, time_limit=0, crash=0, node=0)


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ([killed(Cause.UNKNOWN)], State.FAILED),
        ([killed(Cause.NODE_FAIL)], State.FAILED),
        ([killed(Cause.OUT_OF_MEMORY)], State.FAILED),
        ([killed(Cause.PREEMPTED)], State.STOPPED),
        ([killed(Cause.TIME_LIMIT)], State.STOPPED),
        # Its own end said so already, and Slurm has queued it again all the same.
        ([Ended(Cause.PREEMPTED, final=True)], State.STOPPED),
        ([Ended(Cause.NODE_FAIL, final=True)], State.FAILED),
        ([Ended(Cause.CRASH), Ended(Cause.NODE_FAIL, 7, final=True)], State.FAILED),
    ],
)
def test_a_job_started_against_its_budgets_is_refused(history: list[Ended], state: State) -> None:
    decision = refuse(history, NEVER)
    assert decision is not None
    assert (decision.action, decision.state) == (Action.END, state)
    assert decision.exit_code == (75 if state is State.STOPPED else 1)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [Ended(Cause.PREEMPTED)],  # whether it may go on was decided when it ended
        [Ended(Cause.NODE_FAIL)],
        [Ended(Cause.CRASH, final=True)],  # a person has requeued it
        [Ended(Cause.CANCELLED, final=True)],
        [killed(Cause.CRASH), Ended(Cause.CRASH)],
    ],
)
def test_a_job_that_is_wanted_again_is_not_refused(history: list[Ended]) -> None:
    assert refuse(history, NEVER) is None


@pytest.mark.parametrize("position", [None, 0, 500])  # where they resumed
@pytest.mark.parametrize("used", range(5))
def test_silent_kills_are_counted(used: int, position: int | None) -> None:
    history = [killed(Cause.UNKNOWN, position)] * used
    assert (refuse(history, Budgets(crash=3)) is not None) == (used > 3)
    history = [PREEMPTED] * (used - 1) + [killed(Cause.PREEMPTED)] * (used > 0)
    assert (refuse(history, Budgets(preemption=3)) is not None) == (used > 3)
    assert refuse(history, Budgets(preemption="unlimited")) is None


def test_an_error_after_a_silent_kill_is_no_repetition() -> None:
    crash = Ended(Cause.CRASH, 0)
    assert decide(crash, [killed(Cause.UNKNOWN, 0)], Budgets()).action is Action.RESTART
    assert refuse([crash, killed(Cause.UNKNOWN, 0)], Budgets()) is None


def test_a_job_that_is_queued_again_already_is_not_restarted_here() -> None:
    decision = decide(Ended(Cause.CRASH), [], Budgets(), can_requeue=True, requeued=True)
    assert decision.action is Action.REQUEUE


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.DONE])
def test_who_lost_the_run_starts_nothing(cause: Cause) -> None:
    """The next attempt runs in the same job: to queue that again would kill it."""
    decision = decide(Ended(cause), [], Budgets(), can_requeue=True, superseded=True)
    assert (decision.action, decision.exit_code) == (Action.YIELD, 75)


def test_an_mpirun_whose_daemons_were_ended_has_not_succeeded() -> None:
    line = "srun returned non-zero exit status (36608) from launching"
    assert classify(Evidence(0, 2, log_tail=(line,))) is not Cause.DONE
    assert classify(Evidence(0, 2, statuses=("stopped", "stopped"))) is Cause.PREEMPTED
    # Intel's mpiexec ends the other, and says 255; of ranks that train both have to say it.
    assert classify(Evidence(255, 2, statuses=("stopped",))) is Cause.PREEMPTED
    assert classify(Evidence(255, 2, statuses=("stopped",), reports_ends=True)) is Cause.CRASH
    # One was killed, and the other told to end because of that.
    assert classify(Evidence(137, 2, statuses=("stopped",))) is Cause.CRASH
    assert classify(Evidence(0, 2, statuses=("done",))) is Cause.DONE


def nan(resumed: int, position: int) -> Ended:
    return Ended(Cause.NAN, position, f"nan: the loss of step {position + 1}", resumed=resumed)


def test_after_a_step_that_was_not_finite_it_ends_unless_told_to_roll_back() -> None:
    for rollback, action in ((False, Action.END), (True, Action.RESTART)):
        decision = decide(nan(30, 36), [], Budgets(), rollback=rollback)
        assert (decision.action, decision.state, decision.exit_code) == (action, State.FAILED, 1)
    assert decide(Ended(Cause.OUT_OF_MEMORY), [], Budgets(), rollback=True).action is Action.END


def test_it_rolls_back_to_one_step_three_times_whatever_was_between() -> None:
    history: list[Ended] = []
    for number in range(3):
        decision = decide(nan(30, 36 + number), history, Budgets(), rollback=True)
        assert decision.action is Action.RESTART
        assert (
            decision.reason
            == f"rolled back to the last checkpoint: {number + 1} of 3 from step 30 on"
        )
        history += [nan(30, 36 + number), Ended(Cause.PREEMPTED, 33)]
    again = decide(nan(30, 39), history, Budgets(), rollback=True)
    assert (again.action, again.exit_code) == (Action.END, 1)
    assert again.reason == "nan in 4 attempts from step 30 on: not retried"
    # A save in between is progress.
    assert decide(nan(38, 41), history, Budgets(), rollback=True).action is Action.RESTART


def test_a_save_of_nothing_but_steps_left_out_is_no_progress() -> None:
    """Every step is saved, and from one on all are bad: each attempt begins one step later."""
    history = [nan(29 + number, 30 + number) for number in range(3)]
    again = decide(nan(32, 33), history, Budgets(), rollback=True)
    assert (again.action, again.exit_code) == (Action.END, 1)
    assert again.reason == "nan in 4 steps one after the other: not retried"
    # A good step between them is.
    assert decide(nan(33, 34), history, Budgets(), rollback=True).action is Action.RESTART


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(4, 30)), min_size=1, max_size=40))
def test_rollbacks_end(tries: list[tuple[int, int]]) -> None:
    """However a run is rolled back: at most four attempts begin at each of its checkpoints, and at
    most four steps in a row are found bad."""
    history: list[Ended] = []
    for resumed, position in tries:
        ended = nan(resumed, position)
        before = {one.position for one in history}
        row = all(position - back in before for back in (1, 2, 3))
        again = sum(one.resumed == resumed for one in history) >= 3
        decision = decide(ended, history, Budgets(), rollback=True)
        assert (decision.action is Action.END) == (row or again)
        history.append(ended)


def test_a_stop_that_was_asked_for_is_not_rolled_back_over() -> None:
    assert decide(nan(30, 36), [], Budgets(), rollback=True, asked=True).action is Action.END


@pytest.mark.parametrize("asked", [Cause.PREEMPTED, Cause.TIME_LIMIT])
def test_a_stop_asked_for_as_a_step_was_not_finite_is_a_stop_where_it_would_be_rolled_back(
    asked: Cause,
) -> None:
    ended = nan(30, 36)
    assert prevailing(ended, [], asked, rollback=True) is asked
    assert prevailing(ended, [], asked, rollback=False) is Cause.NAN  # it would come again
    spent = [nan(30, 36 + number) for number in range(3)]
    assert prevailing(nan(30, 40), spent, asked, rollback=True) is Cause.NAN
    assert prevailing(Ended(Cause.CRASH), [], asked, rollback=True) is Cause.CRASH
    stopped = replace(ended, cause=asked)
    queued = decide(stopped, [], Budgets(), can_requeue=True, asked=True, rollback=True)
    assert (queued.action, queued.state, queued.exit_code) == (Action.REQUEUE, State.STOPPED, 75)
    left = decide(stopped, [], Budgets(), asked=True, rollback=True)
    assert (left.action, left.state, left.exit_code) == (Action.END, State.STOPPED, 75)
