"""What a run came to after its fault: measured, and held against what had to come."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec

from clusterseg.cluster.processes import processes_with_environment
from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.eventlog import Tally, iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Steps
from tests.proof.live import Live


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of the matrix. Seconds are null where there was nothing to measure.

    `first_step`: from the second attempt's claim to its first step. `bit_equal`: the last weights
    against those of the undisturbed run; null for that run itself.
    """

    launcher: str
    fault: str
    causes: list[str]
    completed: int
    replayed: int
    first_step: float | None
    wrong: list[str]
    bit_equal: bool | None = None


def measure(
    live: Live,
    launcher: str,
    fault: str,
    *,
    causes: tuple[str, ...],
    steps: int,
    may_replay: int,
    left: list[str],
) -> Outcome:
    """Looks at everything that is there; `wrong` says what is not as it has to be.

    `left`: what was left behind on nodes that are whole again by now.
    """
    status = json.loads(live.cli("status", live.run.run_id, "--json", check=False).stdout)
    summary = json.loads(live.cli("collect", live.run.run_id, "--json").stdout)
    found = [attempt["cause"] for attempt in summary["attempts"]]
    counted = summary["steps"]
    wrong = []
    if status["state"] != "done" or summary["state"] != "done":
        wrong.append(f"its state is {status['state']}")
    if not (len(found) == len(causes) and all(map(_is_one_of, found, causes))):
        wrong.append(f"the causes are {found}, not {list(causes)}")
    if counted["completed"] != steps:
        wrong.append(f"{counted['completed']} steps were completed, not {steps}")
    if counted["replayed"] > may_replay:
        wrong.append(f"{counted['replayed']} steps were done twice, {may_replay} may be")
    for number, cause in enumerate(found):
        own = f"attempt {number}: it has no end record"
        summary["missing"] = [
            one for one in summary["missing"] if cause != "unknown" or own not in one
        ]
    wrong += summary["missing"]
    wrong += unreadable(live.run)
    wrong += left or left_behind(live)
    return Outcome(
        launcher=launcher,
        fault=fault,
        causes=found,
        completed=counted["completed"],
        replayed=counted["replayed"],
        first_step=seconds_to_first_step(live),
        wrong=wrong,
    )


def _is_one_of(found: str, causes: str) -> bool:
    return found in causes.split("|")


def weights(run: RunPaths) -> bytes | None:
    """All tensors of the newest checkpoint; None if there is none."""
    checkpoints = list_checkpoints(run.checkpoints)
    return bytes(read_verified(checkpoints[-1].path)[1]) if checkpoints else None


def unreadable(run: RunPaths) -> list[str]:
    """Every file that can't be read whole: records, logs of events, checkpoints."""
    wrong = []
    for path in run.root.rglob("*"):
        if not path.is_file():
            continue
        name = str(path.relative_to(run.root))
        if path.name.startswith((".tmp-", ".weights-")):
            wrong.append(f"{name} was left unfinished")
        try:
            problem = _problem(path)
        except Exception as error:
            problem = str(error)
        if problem:
            wrong.append(f"{name}: {problem}")
    return wrong


def _problem(path: Path) -> str | None:
    if path.suffix == ".json" or path.name.startswith("stop-"):
        content = path.read_bytes()
        if content or path.suffix == ".json":
            json.loads(content)
    elif path.suffix == ".jsonl":
        tally = Tally()
        for _ in iter_events(path, tally):
            pass
        if tally.unreadable or tally.unknown or tally.torn:
            return f"{tally.unreadable} lines can't be read, torn: {tally.torn}"
    elif path.suffix == ".safetensors":
        read_verified(path)
    elif path.name == "heartbeat":
        count, t = path.read_text().split()
        int(count), float(t)
    return None


def left_behind(live: Live, *, processes_of: str = "job", patience: float = 15.0) -> list[str]:
    """Processes of the run, and of its jobs, on any node (they share the machine's processes).

    On a node whose slurmd is dead Slurm's own (slurmstepd) stay until it is back: there, of the
    "run" alone.
    """
    wanted = [{"CLUSTERSEG_RUN_DIR": str(live.run.root)}]
    conf = str(live.cluster.slurm_conf)
    jobs = {path.read_text().split()[0] for path in live.run.submissions.glob("*/job_id")}
    if processes_of == "job":
        wanted += [{"SLURM_JOB_ID": job, "SLURM_CONF": conf} for job in jobs]
    until = time.monotonic() + patience
    while True:
        left = {one.pid for each in wanted for one in processes_with_environment(each)}
        if not left or time.monotonic() > until:
            return [f"process {pid} was left behind: {_command(pid)}" for pid in sorted(left)]
        time.sleep(0.5)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    except OSError:
        return "?"


def seconds_to_first_step(live: Live) -> float | None:
    claims = sorted(live.run.attempts.glob("*/claim.json"))
    if len(claims) < 2:
        return None
    claimed = json.loads(claims[1].read_bytes())["t"]
    steps = [one for one in live.events(1) if isinstance(one, Steps)]
    return round(steps[0].t - claimed, 2) if steps else None
