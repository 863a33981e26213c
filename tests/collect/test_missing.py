"""What can't be read is said in plain words, and costs only what it held."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from clusterseg.collect.missing import missing_attempts, name_ranges
from clusterseg.collect.ranklog import read_rank
from clusterseg.collect.windows import Windows
from clusterseg.runs.attempts import Attempt, iter_attempts, pack_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import State
from tests.collect.hand import claim, end, epoch, log, start, summary, window


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    claim(run, 0, 0, ranks=3)
    for rank in range(3):
        log(run, 0, rank, start(1, world_size=3), window(2, 1, 1, 1.0), window(4, 3, 2, 2.0))
    end(run, 0, 5, "done")
    return run


def test_nothing_is_missing_in_a_whole_run(run: Path) -> None:
    assert summary(run).missing == []


def test_absent_logs_of_ranks(run: Path) -> None:
    (run / "attempts/000/ranks/00000.jsonl").unlink()
    (run / "attempts/000/ranks/00001.jsonl").unlink()
    found = summary(run)
    assert found.missing == ["attempt 0: no event log of ranks 0-1"]
    assert [rank.rank for rank in found.per_rank] == [2]
    assert found.ranks == 3
    assert found.steps.completed == 3


def test_torn_lines_are_told_and_the_rest_counts(run: Path) -> None:
    for rank in (1, 2):
        whole = [window(2, 1, 1, 1.0), window(4, 3, 2, 2.0)]
        log(run, 0, rank, *whole, tail='\n{"t":5,"rank":1,"kind":"ste')
    found = summary(run)
    assert found.missing == ["attempt 0: ranks 1-2: the last line is torn"]
    assert found.steps.completed == 3


def test_junk_lines_are_counted(run: Path) -> None:
    path = run / "attempts/000/ranks/00001.jsonl"
    path.write_bytes(b"junk\n" + path.read_bytes() + b"\xff\xff\n")
    assert summary(run).missing == ["attempt 0: rank 1: 2 lines could not be read"]


@pytest.mark.parametrize(
    "damage", [{"count": 0}, {"count": -3}, {"seconds": -1.0}, {"step": 1 << 63}, {"images": -1}]
)
def test_a_window_that_can_not_be_is_damage(run: Path, damage: dict[str, float]) -> None:
    log(run, 0, 1, window(2, 1, 1, 1.0), window(4, 3, 2, 2.0) | damage)
    found = summary(run)
    assert found.missing == ["attempt 0: rank 1: 1 line could not be read"]
    assert found.images_per_second == 8 * 2 / 2.0


def test_unknown_kinds_and_fields_are_not_missing(run: Path) -> None:
    log(run, 0, 1, {"t": 1, "kind": "power", "watts": 5}, window(2, 1, 1, 1.0) | {"x": [{}]},
        window(4, 3, 2, 2.0))  # fmt: skip
    assert summary(run).missing == []


def test_an_empty_log(run: Path) -> None:
    (run / "attempts/000/ranks/00002.jsonl").write_bytes(b"")
    assert summary(run).missing == ["attempt 0: rank 2: the event log is empty"]


def test_a_log_that_can_not_be_opened(run: Path) -> None:
    (run / "attempts/000/ranks/00001.jsonl").unlink()
    (run / "attempts/000/ranks/00001.jsonl").symlink_to("/nowhere/at/all")
    assert summary(run).missing == ["attempt 0: no event log of rank 1"]


def test_a_pipe_instead_of_a_log_is_not_waited_for(run: Path) -> None:
    (run / "attempts/000/ranks/00001.jsonl").unlink()
    os.mkfifo(run / "attempts/000/ranks/00001.jsonl")
    assert summary(run).missing == ["attempt 0: no event log of rank 1"]


def test_an_attempt_without_an_end(run: Path) -> None:
    (run / "attempts/000/end.json").unlink()
    found = summary(run, State.FAILED)
    assert found.missing == ["attempt 0: it has no end record"]
    assert found.attempts[0].cause == "unknown"
    assert found.attempts[0].seconds == 4.0


def test_a_running_attempt_misses_nothing(run: Path) -> None:
    (run / "attempts/000/end.json").unlink()
    log(run, 0, 1, window(2, 1, 1, 1.0), tail='\n{"t":5,"rank":1,"kind":"ste')
    assert summary(run, State.RUNNING, alive=True).missing == []
    claim(run, 1, 10, resume_step=3, ranks=2)
    found = summary(run, State.RUNNING, alive=True).missing
    assert found == [
        "attempt 0: it has no end record",
        "attempt 0: rank 1: the last line is torn",
    ]


def test_a_lost_claim_is_made_up_for_by_what_the_ranks_wrote(run: Path) -> None:
    """Its ranks began after step 2, so that step 3 of attempt 0 was done again."""
    log(run, 1, 0, start(20, world_size=5), window(22, 3, 1, 1.0), epoch(23, 1, 3, 0.5))
    end(run, 1, 30, "done")
    found = summary(run)
    assert (found.steps.completed, found.steps.replayed) == (3, 1)
    assert found.attempts[1].ranks == 5
    assert found.attempts[1].seconds == 10.0
    assert len(found.missing) == 2
    assert "claim.json is missing" in found.missing[0]
    assert found.missing[1] == "attempt 1: no event log of ranks 1-4"


def test_a_damaged_end_is_named_once(run: Path) -> None:
    (run / "attempts/000/end.json").write_text('{"t": 5, "cau')
    (sentence,) = summary(run).missing
    assert "end is damaged" in sentence


def test_gaps_between_attempts(run: Path) -> None:
    claim(run, 4, 100, resume_step=3)
    log(run, 4, 0, window(102, 4, 1, 1.0))
    end(run, 4, 110, "done")
    found = summary(run)
    assert found.missing == ["attempts 1-3: nothing is there"]
    assert found.steps.completed == 4


def test_a_huge_attempt_number_takes_no_time() -> None:
    assert missing_attempts([999_999_999]) == ["attempts 0-999999998: nothing is there"]


def test_a_huge_claimed_number_of_ranks_takes_no_time(run: Path) -> None:
    claim(run, 0, 0, ranks=1 << 40)
    assert summary(run).missing == [f"attempt 0: no event log of ranks 3-{(1 << 40) - 1}"]


def test_no_rank_of_an_attempt_left_a_log(run: Path) -> None:
    claim(run, 1, 20, ranks=2)
    assert summary(run, State.RUNNING, alive=True).missing == []  # they may be starting
    end(run, 1, 30, "crash")
    assert summary(run, State.FAILED).missing == ["attempt 1: no event log of any rank"]


def test_a_log_that_breaks_off_in_reading_counts_up_to_there() -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise OSError(5, "Input/output error")
            return data

    windows = Windows()
    lines = [json.dumps({"rank": 0, **window(t, t, 1, 1.0)}) + "\n" for t in (1, 2)]
    found = read_rank(0, Breaking("".join(lines).encode()), windows, None)
    assert (found.problem, found.events) == ("Input/output error", 2)
    assert list(windows.step) == [1, 2]


def test_an_attempt_that_is_packed_meanwhile_is_read_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = summary(run)

    def pack_after_the_look(paths: RunPaths, *, salvage: bool) -> list[Attempt]:
        attempts = list(iter_attempts(paths, salvage=salvage))
        if not paths.attempt(0).packed.exists():
            pack_attempt(paths.attempt(0))
        return attempts

    monkeypatch.setattr("clusterseg.collect.summarize.iter_attempts", pack_after_the_look)
    assert summary(run) == expected
    assert (run / "attempts" / "000.tar.zst").exists()


def test_a_damaged_archive_is_named(run: Path) -> None:
    packed = pack_attempt(RunPaths(run).attempt(0))
    packed.write_bytes(packed.read_bytes()[:-30])
    found = summary(run)
    assert any("is damaged" in sentence for sentence in found.missing)
    assert found.attempts[0].attempt == 0


def test_many_ranges_are_cut_short() -> None:
    assert name_ranges("rank", [(3, 3)]) == "rank 3"
    assert name_ranges("rank", [(0, 1), (3, 3)]) == "ranks 0-1, 3"
    assert name_ranges("rank", [(2 * n, 2 * n) for n in range(50)]).endswith("14 and more")
