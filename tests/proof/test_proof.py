"""Every fault that a cluster can do to a run, on a real Slurm, with the real trainer.

`make test` meets a few of them, `make proof` all, with both launchers. With PROOF_RECORD=1
the latter writes docs/proof.json and the table of docs/proof.md anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec
import pytest

from tests.proof import record
from tests.proof.arena import SHORT, Case, arena
from tests.proof.faults import BOTH, FAULTS
from tests.proof.matrix import UNDISTURBED, WHOLE, Futures, played

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(3600)]
BY_NAME = {fault.name: fault for fault in FAULTS}
QUICK = (
    Case("srun", BY_NAME["the supervisor is killed"]),
    Case("mpirun", BY_NAME["a rank is killed"]),
    Case("srun", BY_NAME["cancel, then resume"]),
)


def names(cases: tuple[Case, ...]) -> list[tuple[str, str]]:
    return [(case.launcher, case.row) for case in cases]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Futures]:
    with arena(tmp_path_factory.mktemp("q"), silent=False) as lanes, played(lanes, QUICK) as all_:
        yield all_


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Futures]:
    with arena(tmp_path_factory.mktemp("w")) as lanes, played(lanes, WHOLE) as all_:
        yield all_


@pytest.mark.parametrize(("launcher", "fault"), names(QUICK))
def test_a_few_faults(quick: Futures, launcher: str, fault: str) -> None:
    outcome, _ = quick[launcher, fault].result()
    assert outcome.wrong == []


def test_the_weights_after_a_few_faults_are_the_same(quick: Futures) -> None:
    """Bit for bit, whatever happened on the way and whatever launched the ranks."""
    final = {future.result()[1] for future in quick.values()}
    assert len(final) == 1
    assert None not in final


@pytest.mark.proof
@pytest.mark.parametrize(("launcher", "fault"), names(WHOLE))
def test_every_fault(whole: Futures, launcher: str, fault: str) -> None:
    outcome, _ = whole[launcher, fault].result()
    assert outcome.wrong == []


@pytest.mark.proof
@pytest.mark.parametrize("case", WHOLE, ids=lambda case: f"{case.launcher}-{case.row}")
def test_the_weights_are_those_of_an_undisturbed_run(whole: Futures, case: Case) -> None:
    undisturbed = weights_of(whole, reference(case))
    assert undisturbed is not None
    assert weights_of(whole, case) == undisturbed


def reference(case: Case) -> Case:
    """The undisturbed run of as many steps."""
    short, long = UNDISTURBED
    return short if case.epochs == SHORT else long


def weights_of(whole: Futures, case: Case) -> bytes | None:
    return whole[case.launcher, case.row].result()[1]


def compared(whole: Futures, case: Case) -> record.Outcome:
    """The case's outcome, with what its weights came to."""
    outcome = whole[case.launcher, case.row].result()[0]
    if case in UNDISTURBED:
        return outcome
    final = weights_of(whole, case)
    equal = final is not None and final == weights_of(whole, reference(case))
    return msgspec.structs.replace(outcome, bit_equal=equal)


@pytest.mark.proof
def test_the_results_are_recorded(whole: Futures) -> None:
    outcomes = [compared(whole, case) for case in WHOLE]
    if os.environ.get("PROOF_RECORD"):
        record.write_results(outcomes)
    recorded = record.read_results()
    assert names_of(recorded) == names_of(outcomes)


def names_of(outcomes: list[record.Outcome]) -> list[tuple[str, str]]:
    return [(one.launcher, one.fault) for one in outcomes]


@pytest.mark.proof
def test_a_recorded_matrix_is_whole(whole: Futures) -> None:
    assert {name for name in names(WHOLE) if name[1] in BY_NAME} == {
        (launcher, fault) for launcher in BOTH for fault in BY_NAME
    }
