"""Leaving a life of the job that is to start again; Slurm is played, its bad moments are rare."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

import pytest

from clusterseg.runs.records import Cause
from clusterseg.supervise import departure
from clusterseg.supervise.departure import Departure
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.scheduler import NoScheduler, Queued
from clusterseg.supervise.signals import Wakeups
from clusterseg.supervise.slurm_job import NO_WORD, Fate, Word


class Played(NoScheduler):
    """Answers in order; a YES is followed by TERM, as from Slurm, if `terminates`."""

    def __init__(
        self, answers: list[Queued], words: Sequence[Word] = (), *, terminates: bool = True
    ) -> None:
        super().__init__(None)
        self.answers, self.words, self.terminates = answers, list(words), terminates
        self.asked_for: list[tuple[str, ...]] = []

    def ask(self) -> Word:
        return self.words.pop(0) if self.words else NO_WORD

    def queue_again(self, cause: Cause, word: Word, avoid: Sequence[str]) -> Queued:
        self.asked_for.append(tuple(avoid))
        answer = self.answers.pop(0)
        if answer is Queued.YES and self.terminates:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"_FIRST_RETRY": 0.01, "_AFTER_TERM": 0.05, "_UNTIL_TERM": 0.1, "_UNTIL_KILLED": 0.1}
    for name, seconds in quick.items():
        monkeypatch.setattr(departure, name, seconds)


@pytest.fixture
def wakeups() -> Iterator[Wakeups]:
    with Wakeups() as entered:
        yield entered


def leave(wakeups: Wakeups, scheduler: Played) -> bool:
    return Departure(scheduler, wakeups, Journal()).leave(Cause.PREEMPTED, ("n2",))


def test_queued_again(wakeups: Wakeups) -> None:
    scheduler = Played([Queued.YES])
    assert leave(wakeups, scheduler)
    assert scheduler.asked_for == [("n2",)]


def test_a_controller_that_does_not_answer_is_asked_again(wakeups: Wakeups) -> None:
    scheduler = Played([Queued.UNANSWERED, Queued.UNANSWERED, Queued.YES])
    assert leave(wakeups, scheduler)
    assert len(scheduler.asked_for) == 3


def test_a_requeue_that_the_controller_forgot_is_asked_for_again(wakeups: Wakeups) -> None:
    """It answered, and crashed before its state was on the disk: nobody ends this job."""
    scheduler = Played([Queued.YES, Queued.YES, Queued.REFUSED], terminates=False)
    assert not leave(wakeups, scheduler)
    assert len(scheduler.asked_for) == 3


def test_refused(wakeups: Wakeups) -> None:
    assert not leave(wakeups, Played([Queued.REFUSED]))


def test_what_slurm_queued_again_first_is_not_refused(wakeups: Wakeups) -> None:
    again = Word(Fate.REQUEUED)
    scheduler = Played([Queued.REFUSED, Queued.YES], words=[Word(Fate.RUNNING), again, again])
    assert leave(wakeups, scheduler)
    assert len(scheduler.asked_for) == 2


def test_a_job_that_was_cancelled_meanwhile_is_never_queued_again(wakeups: Wakeups) -> None:
    scheduler = Played([], words=[Word(Fate.CANCELLED)])
    assert not leave(wakeups, scheduler)
    assert scheduler.asked_for == []
    scheduler = Played([Queued.UNANSWERED], words=[NO_WORD, Word(Fate.CANCELLED)])
    assert not leave(wakeups, scheduler)


def test_without_scontrol_it_waits_to_be_killed(wakeups: Wakeups) -> None:
    assert leave(wakeups, Played([Queued.BY_ITSELF]))
