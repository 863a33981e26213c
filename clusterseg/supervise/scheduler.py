"""What the supervisor asks of whoever runs its job; and the answers where nobody does.

A scheduler is asked rarely and briefly: at the start, at events, every ten minutes, never in the
way of a stop that has to reach the ranks.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from clusterseg.runs.records import Cause, Claim
from clusterseg.supervise.causes import cause_of_signal
from clusterseg.supervise.slurm_job import NO_WORD, Word


class Queued(Enum):
    """What came of asking to be queued again."""

    YES = "yes"
    REFUSED = "refused"
    BY_ITSELF = "by itself"  # the scheduler does so when it has killed this job
    UNANSWERED = "unanswered"


class Scheduler(Protocol):
    """The world around one supervisor. Nothing here raises: no answer is an answer."""

    def begin(self) -> Word:
        """Once, before the first claim; what the scheduler says of the job by then."""
        ...

    def claimed(self) -> None:
        """After each claim: the job is surely the one that holds the run."""
        ...

    @property
    def restart_count(self) -> int:
        """Which life of the job this is, from 0, as far as is known."""
        ...

    @property
    def end_of_time(self) -> float | None:
        """When the allocation ends, by the monotonic clock; None: never, or not known."""
        ...

    @property
    def allotted(self) -> float | None:
        """How long the allocation is, in seconds."""
        ...

    def look(self) -> Word | None:
        """Asks again if the last answer is old; None if there is nothing new."""
        ...

    def ask(self) -> Word:
        """Asks now, briefly."""
        ...

    def confirm_end(self) -> None:
        """Before a stop for the end of the allocation: the limit may have been changed."""
        ...

    def guess(self, number: int) -> Cause:
        """What a signal at the supervisor most likely means; without asking."""
        ...

    def meaning(self, number: int) -> Cause:
        """What it means, asked."""
        ...

    def hurries(self, number: int) -> bool:
        """Whether this signal, while a stop is under way, means: end the ranks now."""
        ...

    def lost_hosts(self, hosts: Sequence[str]) -> list[str]:
        """Those of `hosts` that are known to be gone."""
        ...

    def can_queue_again(self, cause: Cause) -> bool:
        """Whether the job can start again after it has ended for `cause`."""
        ...

    def queue_again(self, cause: Cause, word: Word, avoid: Sequence[str]) -> Queued:
        """Has the job queued again, off the hosts in `avoid`. What follows may kill us."""
        ...

    def end_steps(self, *, wait: bool = True, beat: Callable[[], None] | None = None) -> None:
        """Ends what a launcher left behind on other hosts of the allocation.

        Without `wait` they are only told to: those on a lost host can't be seen to end. `beat` is
        called where asking took long.
        """
        ...

    def cause_of_kill(self, claim: Claim) -> Cause:
        """Why an attempt of this job, which has no end record, was killed."""
        ...

    def job_lives(self, claim: Claim) -> bool | None:
        """Whether the job that holds `claim` still runs or waits; None: not known."""
        ...


class NoScheduler:
    """A job without a scheduler: its time limit is its own, nobody queues it again."""

    def __init__(self, time_limit: float | None) -> None:
        """`time_limit` in seconds from now."""
        self.restart_count = 0
        self.allotted = time_limit
        self.end_of_time = None if time_limit is None else time.monotonic() + time_limit

    def begin(self) -> Word:
        return NO_WORD

    def claimed(self) -> None:
        pass

    def look(self) -> Word | None:
        return None

    def ask(self) -> Word:
        return NO_WORD

    def confirm_end(self) -> None:
        pass

    def guess(self, number: int) -> Cause:
        left = None if self.end_of_time is None else self.end_of_time - time.monotonic()
        return cause_of_signal(number, left)

    def meaning(self, number: int) -> Cause:
        return self.guess(number)

    def hurries(self, number: int) -> bool:
        return number != signal.SIGUSR1

    def lost_hosts(self, hosts: Sequence[str]) -> list[str]:
        return []

    def can_queue_again(self, cause: Cause) -> bool:
        return False

    def queue_again(self, cause: Cause, word: Word, avoid: Sequence[str]) -> Queued:
        return Queued.REFUSED

    def end_steps(self, *, wait: bool = True, beat: Callable[[], None] | None = None) -> None:
        pass

    def cause_of_kill(self, claim: Claim) -> Cause:
        return Cause.UNKNOWN

    def job_lives(self, claim: Claim) -> bool | None:
        return None
