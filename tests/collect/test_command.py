"""`clusterseg collect`: what it prints and what it leaves in the run directory."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.cli import collect_commands
from clusterseg.cli.main import main
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Steps
from tests.collect.hand import checkpoint, claim, end, epoch, log, start, window

EVIL = "n\x1b[2J[red]\n[/nope]\u202e"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "demo-20260101-000000-abcd"
    claim(run, 0, 0, ranks=2)
    events = [window(2, 1, 1, 1.0), window(4, 3, 2, 2.0), epoch(5, 1, 3, 0.5)]
    saved = checkpoint(6, 1, 3, "weights-0001-0.5000.safetensors")
    log(run, 0, 0, start(1, "n1"), *events, saved)
    slow = [window(2, 1, 1, 4.0), window(4, 3, 2, 8.0)]
    log(run, 0, 1, start(1, EVIL), *slow, tail="\n{")
    end(run, 0, 10, "crash", will_restart=False)
    return run


def collect(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[str, str]:
    """What the command prints to stdout and stderr; it must end well."""
    with pytest.raises(SystemExit) as ending:
        main(["collect", *map(str, arguments)])
    assert not ending.value.code
    return capsys.readouterr()


def test_json_is_the_summary_and_is_written_too(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, said = collect(capsys, run, "--json")
    summary = json.loads(printed)
    assert list(summary) == [
        *("run", "state", "ranks", "per_rank", "attempts", "steps", "images_per_second"),
        *("val_accuracy", "val_mean_iou", "best", "goodput", "history", "missing"),
    ]
    assert summary["state"] == "failed"
    assert summary["per_rank"][0].keys() == {
        *("rank", "host", "images_per_second", "straggler_score"),
    }
    assert summary["best"] == {
        "epoch": 1,
        "val_accuracy": 0.5,
        "file": "weights-0001-0.5000.safetensors",
    }
    assert (run / "summary.json").read_text() == printed
    assert not said


def test_csv_is_the_history_and_is_written_too(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, _ = collect(capsys, run, "--csv")
    assert (run / "summary.csv").read_text() == printed
    (row,) = csv.DictReader(io.StringIO(printed))
    assert row == {
        "epoch": "1",
        "step": "3",
        "attempt": "0",
        "loss": "0.5",
        "val_loss": "0.6",
        "val_accuracy": "0.5",
        "val_mean_iou": "0.5",
        "seconds": "1.0",
    }


def test_the_table_shows_stragglers_and_what_is_missing_and_escapes_the_rest(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, _ = collect(capsys, run)
    lines = [line.split() for line in printed.splitlines()]
    assert ["state", "failed,", "2", "ranks"] in lines
    assert ["steps", "3", "completed"] in lines
    assert ["0", "n1", "4.00", "1.00"] in lines
    assert sum("straggler" in line for line in lines) == 1
    assert "attempt 0: rank 1: the last line is torn" in printed
    assert r"n\x1b[2J[red]\n[/nope]\u202e" in printed
    assert "\x1b" not in printed


def test_a_terminal_gets_colours_and_no_escape_from_outside(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    printed, _ = collect(capsys, run)
    assert "\x1b[1;31mfailed" in printed
    assert "\x1b[2J" not in printed


def test_files_are_private(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0)
    try:
        collect(capsys, run, "--plot")
    finally:
        os.umask(before)
    for name in ("summary.json", "summary.csv", "summary.png"):
        assert (run / name).stat().st_mode & 0o777 == 0o600


def test_a_run_is_found_by_its_name_even_without_run_json(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, _ = collect(capsys, run.name, "--runs-dir", run.parent, "--json")
    assert json.loads(printed)["run"] == run.name


def test_somebody_elses_run_is_printed_with_a_note(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("clusterseg.collect.files.replace", refused)
    printed, said = collect(capsys, run, "--json", "--plot")
    assert json.loads(printed)["steps"] == {"completed": 3, "replayed": 0}
    assert "can't be written (Permission denied)" in said
    assert not list(run.glob("summary*"))


def test_json_and_csv_exclude_each_other(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["collect", str(run), "--json", "--csv"])
    assert ending.value.code == 2
    assert "give one of them" in capsys.readouterr().out


def test_an_unknown_run_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["collect", "nope", "--runs-dir", str(tmp_path)])
    assert ending.value.code == 2
    assert "no run 'nope'" in capsys.readouterr().err


def test_follow_ends_with_the_table_and_the_files(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect_commands.show_summary(RunPaths(run))
    assert "straggler" in capsys.readouterr().out
    assert (run / "summary.json").exists()
    assert (run / "summary.csv").exists()


def test_a_run_that_is_written_meanwhile_always_gives_a_summary(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second attempt's ranks write between and during the readings."""
    claim(run, 1, 20, resume_step=3, ranks=2)
    (run / "attempts/001/ranks").mkdir(exist_ok=True)
    writers = [EventWriter(RunPaths(run).attempt(1).events(rank)) for rank in range(2)]
    before = 3
    for step in range(4, 12):
        for rank, writer in enumerate(writers):
            writer.write(
                Steps(t=20.0 + step, rank=rank, epoch=1, step=step, count=1, images=4, seconds=1.0)
            )
            printed, _ = collect(capsys, run, "--json")  # also when one rank is ahead
            summary = json.loads(printed)
            assert summary["steps"] == {"completed": step, "replayed": 0}
            assert summary["attempts"][1]["last_step"] == step >= before
            before = step
    for writer in writers:
        writer.close()


def test_only_what_is_asked_for_is_loaded(run: Path) -> None:
    """A small run must cost no more than the light commands; a table costs Rich."""
    program = (
        "import atexit, sys; heavy = sys.argv.pop(1).split(',');"
        "atexit.register(lambda: sys.stderr.write(str([m for m in heavy if m in sys.modules])));"
        "from clusterseg.cli.main import main; main(sys.argv[1:])"
    )
    heavy = "numpy,matplotlib,rich,multiprocessing,tensorflow,jinja2,yaml"
    for arguments, loaded in ((["--json"], "[]"), (["--csv"], "[]"), ([], "['rich']")):
        done = subprocess.run(
            [sys.executable, "-c", program, heavy, "collect", str(run), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == loaded, arguments
