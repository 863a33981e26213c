"""What is said of tasks that failed."""

from __future__ import annotations

import pytest

from clusterseg.cli.fanout_view import complain, raise_fault
from clusterseg.cluster.fanout import Failure, FanOut, Fault
from clusterseg.errors import ClustersegError


def failed(*errors: str, tries: int = 2, good: int = 0) -> FanOut:
    failures = tuple(
        Failure(number=n, name=f"part {n}", error=error, last_lines=("help: mend",), tries=tries)
        for n, error in enumerate(errors)
    )
    return FanOut(values=(None,) * len(errors) + (1,) * good, failures=failures, folder="left")


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (failed("full"), ["part 0: full (tried 2 times)"]),
        (failed("full", good=1, tries=1), ["part 0: full"]),
        (failed("full", "full"), ["the run: full (tried 2 times)"]),
        (failed("full", "full", good=1), ["part 0 and 1 more: full (tried 2 times)"]),
        (
            failed("full", "gone", "full"),
            ["part 0 and 1 more: full (tried 2 times)", "part 1: gone (tried 2 times)"],
        ),
        (failed("part 0 does not fit", good=1), ["part 0 does not fit (tried 2 times)"]),
    ],
)
def test_each_way_of_failing_is_told_once(
    done: FanOut, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    complain(done, "the run")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "what its jobs left: left"
    assert lines[:-1:2] == said
    assert set(lines[1:-1:2]) == {"    help: mend"}


def test_a_fault_of_all_is_the_error_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    raise_fault(failed("full"))
    fault = Fault(code="bad-weights", message="no good", help="mend it", exit_code=1)
    with pytest.raises(ClustersegError) as caught:
        raise_fault(FanOut(values=(None,), fault=fault, problem="no answer"))
    assert caught.value.render() == "error[bad-weights]: no good\nhelp: mend it"
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "jobs may still be there: no answer\n"
