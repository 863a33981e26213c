"""`clusterseg predict`, where nothing comes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from clusterseg.cluster import fanout
from clusterseg.cluster.fanout import FanOut
from tests.cli.conftest import Done

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))

JOB = """
name: predicted
train:
  model: {name: fastscnn}
  data: {format: cityscapes, root: gone, size: [32, 64]}
"""


def test_tiles_that_the_network_can_not_take_are_refused_before_anything_is_started(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("fastscnn", "unet"))
    (tmp_path / "weights.h5").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = ("predict", tmp_path / "weights.h5", tmp_path / "a.png", "-o", tmp_path / "out")
    done = cli(*line, "--job", tmp_path / "job.yaml", "--tile", "50x50")
    assert done.code == 2 and "divisible by 16" in done.err
    assert not (tmp_path / "out").exists()


def test_a_call_that_writes_no_records_fails_and_leaves_none_of_another(
    cli: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What predictions.json says is of the call that ended last, never of one before it."""
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "weights.h5").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    records = tmp_path / "out" / "predictions.json"
    records.parent.mkdir()
    records.write_text("of another call")

    def full(*_: object, **__: object) -> FanOut:
        assert not records.exists()
        records.mkdir()  # no disk can be filled here
        return FanOut(values=({"unknown": None, "device": None, "pictures": [], "failures": []},))

    monkeypatch.setattr(fanout, "fan_out", full)
    line = ("predict", tmp_path / "weights.h5", tmp_path / "a.png", "-o", tmp_path / "out")
    done = cli(*line, "--job", tmp_path / "job.yaml")
    assert done.code == 1 and "predictions.json can't be written" in done.err


KILLED = """
import os, signal, sys
from pathlib import Path
from clusterseg.runs.lock import held
with held(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_second_one_is_refused_and_interrupted_before_the_first_picture_it_shows_none(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    """No header without lines, and nothing said to be written; one that was killed before is no
    hindrance."""
    killed = [sys.executable, "-c", KILLED, str(tmp_path / "out" / ".work" / "lock")]
    assert subprocess.run(killed, check=False).returncode == -signal.SIGKILL
    old = tmp_path / "out" / ".work" / "fanout" / "old"
    old.mkdir(parents=True)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "weights.h5").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    first = "predict weights.h5 a.png --job job.yaml --output out"
    with subprocess.Popen(
        [CLUSTERSEG, *first.split()],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not list(tmp_path.glob("out/.work/fanout/*/results/*.begun")):
            assert process.poll() is None
            time.sleep(0.02)
        line = ("predict", tmp_path / "weights.h5", tmp_path / "a.png", "-o", tmp_path / "out")
        second = cli(*line, "--job", tmp_path / "job.yaml")
        assert second.code == 1
        assert f"(process {process.pid} on {os.uname().nodename}, since " in second.err
        assert f"{tmp_path / 'out'}: another `clusterseg predict`" in second.err
        assert old.is_dir() and process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), err
    assert "cancelled" in err and "Traceback" not in err
    told = msgspec.json.decode((tmp_path / "out" / "predictions.json").read_bytes())
    assert (told["interrupted"], [one["name"] for one in told["jobs"]]) == (True, ["a"])
    assert not (tmp_path / "out" / ".work" / "lock").exists()
