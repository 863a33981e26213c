"""All cases side by side, as the nodes allow; each one's result as a future."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.proof.arena import Arena, Case, Lane, play, whole
from tests.proof.faults import BOTH, FAULTS
from tests.proof.verdict import Outcome

Result = tuple[Outcome, bytes | None]
Futures = dict[tuple[str, str], "Future[Result]"]

UNDISTURBED = (Case("srun", None), Case("mpirun", None, long=True))
WHOLE = (*UNDISTURBED, *(Case(launcher, fault) for fault in FAULTS for launcher in BOTH))


@dataclass
class _Work:
    """What a cluster has to do: cases for either lane, then pairs for both lanes at once."""

    single: list[Case] = field(default_factory=list)
    shared: dict[str, list[Case]] = field(default_factory=dict)


@contextmanager
def played(arena: Arena, cases: Sequence[Case]) -> Iterator[Futures]:
    """Begins all cases; at the end waits for those that still run (Ctrl-C ends them)."""
    futures: Futures = {(case.launcher, case.row): Future() for case in cases}
    work = {id(arena.noticed): _Work(), id(arena.silent): _Work()}
    for case in cases:
        own = work[id(arena.lanes(case.fault))]
        if case.fault is not None and case.fault.shared:
            own.shared.setdefault(case.row, []).append(case)
        else:
            own.single.append(case)
    threads = [
        threading.Thread(target=_run_cluster, args=(lanes, work[id(lanes)], futures))
        for lanes in (arena.noticed, arena.silent)
    ]
    for thread in threads:
        thread.start()
    try:
        yield futures
    except BaseException:
        arena.given_up.set()
        raise
    finally:
        for thread in threads:
            thread.join()


def _run_cluster(lanes: Sequence[Lane], work: _Work, futures: Futures) -> None:
    left, lock = list(work.single), threading.Lock()

    def run_lane(lane: Lane) -> None:
        while True:
            with lock:
                if not left or lane.given_up.is_set():
                    return
                case = left.pop(0)
            _fulfil([case], futures, lambda case=case: play([case], [lane]))  # type: ignore[misc]

    threads = [threading.Thread(target=run_lane, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pair in work.shared.values():
        if lanes[0].given_up.is_set():
            return
        both = [whole(lane) for lane in lanes[: len(pair)]]
        _fulfil(pair, futures, lambda pair=pair, both=both: play(pair, both))  # type: ignore[misc]
        lanes[0].cluster.clean()


def _fulfil(cases: Sequence[Case], futures: Futures, work: Callable[[], list[Result]]) -> None:
    try:
        for case, result in zip(cases, work(), strict=True):
            futures[case.launcher, case.row].set_result(result)
    except BaseException as error:
        for case in cases:
            future = futures[case.launcher, case.row]
            if not future.done():
                future.set_exception(error)
