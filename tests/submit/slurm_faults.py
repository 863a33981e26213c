"""Slurm's real programs behind shims that fail in the ways that real ones were seen to.

A story is one submission: its first client, with faults in its way, and a person who resumes.
Clients are forked, so that they can be killed.
"""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.runs import store
from clusterseg.runs.paths import RunPaths
from clusterseg.submit.submission import start, submit
from tests.devcluster import DevCluster

PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel")

# $FAULTS/<call> holds the faults of the next calls, a line each; "-" is none.
_SHIM = """\
#!/bin/bash
name=${0##*/}
real=$REAL_SLURM/$name
call=$name
[ "$name" = scontrol ] && call=scontrol-$1
fault=-
if [ -s "$FAULTS/$call" ]; then
    read -r fault < "$FAULTS/$call"
    sed -i 1d "$FAULTS/$call"
fi
echo "$call $fault" >> "$FAULTS/log"
timed_out() { echo "$name: error: Socket timed out on send/recv operation" >&2; exit 1; }
case $fault in
    fail-before) timed_out ;;
    fail-after) "$real" "$@" > /dev/null 2>&1; timed_out ;;
    odd-after) "$real" "$@" > /dev/null 2>&1; echo "wrapper: disk quota" >&2; exit 7 ;;
    killed-after) "$real" "$@" > /dev/null 2>&1; kill -9 $$ ;;
    garbage) "$real" "$@" > /dev/null 2>&1; echo '<html>502 Bad Gateway</html>' ;;
    empty) exit 0 ;;
    no-jobs) "$real" "$@" | head -n 1 ;;
    other-id) echo $(($("$real" "$@") + 1000)) ;;
    hang) sleep 60 ;;
    late) setsid bash -c 'sleep 0.7; exec "$0" "$@"' "$real" "$@" < /dev/null > /dev/null 2>&1 &
          sleep 60 ;;
    client-before) kill -9 $PPID ;;
    client-after) "$real" "$@" > /dev/null 2>&1; kill -9 $PPID ;;
    crash) "$real" "$@"; "$CRASH" ;;
    *) exec "$real" "$@" ;;
esac
"""

FAULTS: Mapping[str, Sequence[str]] = {
    "sbatch": (
        *("fail-before", "fail-after", "odd-after", "killed-after", "garbage", "other-id"),
        *("hang", "late", "client-before", "client-after"),
    ),
    "squeue": ("fail-before", "hang", "garbage", "empty", "client-before", "client-after"),
    "scontrol-release": (
        *("fail-before", "fail-after", "killed-after", "hang", "client-before", "client-after"),
    ),
}


@dataclass
class Story:
    """One submission. `faults`: what the calls of each program meet, in order."""

    folder: Path
    faults: dict[str, list[str]]
    run: RunPaths | None = None
    ends: list[str] = field(default_factory=list)

    @property
    def marker(self) -> Path:
        """A line for each job that ran."""
        return self.folder / "ran"

    @property
    def root(self) -> Path:
        return self.folder / "runs"

    @property
    def calls(self) -> list[str]:
        log = self.folder / "faults" / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def injected(self) -> list[str]:
        return [call for call in self.calls if not call.endswith(" -")]

    def __str__(self) -> str:
        return f"{self.folder.name}: {self.faults}, ends {self.ends}, calls {self.calls}"


class Stage:
    """Plays stories on a cluster."""

    def __init__(self, cluster: DevCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.shims = folder / "shims"
        self.shims.mkdir(parents=True)
        for name in PROGRAMS:
            (self.shims / name).write_text(_SHIM)
            (self.shims / name).chmod(0o755)
        self.crash = self.shims / "crash"
        self.crash.write_text("#!/bin/bash\nexit 0\n")
        self.crash.chmod(0o755)
        self._count = 0

    def story(self, faults: Mapping[str, Iterable[str]]) -> Story:
        self._count += 1
        folder = self.folder / f"story-{self._count}"
        (folder / "faults").mkdir(parents=True)
        story = Story(folder, {call: list(each) for call, each in faults.items()})
        for call, each in story.faults.items():
            (folder / "faults" / call).write_text("".join(f"{fault}\n" for fault in each))
        return story

    def environ(self, story: Story) -> dict[str, str]:
        environ = self.cluster.environ
        return environ | {
            "PATH": f"{self.shims}:{environ['PATH']}",
            "FAULTS": str(story.folder / "faults"),
            "REAL_SLURM": "/usr/bin",
            "CRASH": str(self.crash),
        }

    def play(self, story: Story, plan: Plan, text: str) -> Story:
        """Submits, and as often as the client does not come to its end, resumes."""
        environ = self.environ(story)
        first = _client(lambda: submit(plan, text, (), story.root, environ, patience=20))
        story.ends.append(first)
        runs = store.find_runs(story.root)
        if not runs:  # refused, or killed before there was a run
            return story
        (run,) = runs
        story.run = run
        while story.ends[-1] != "done":
            again = functools.partial(start, run, run.submission(0), environ, patience=20)
            story.ends.append(_client(again))
            assert len(story.ends) < 12, str(story)
        return story


def random_faults(chance: random.Random) -> dict[str, list[str]]:
    """One to four faults, anywhere on the way."""
    faults: dict[str, list[str]] = {}
    for _ in range(chance.choice((1, 1, 2, 2, 3, 4))):
        call = chance.choice(("sbatch", "sbatch", "squeue", "scontrol-release"))
        faults.setdefault(call, []).extend(["-"] * chance.choice((0, 0, 0, 1)))
        faults[call].append(chance.choice(FAULTS[call]))
    return faults


def until_idle(cluster: DevCluster, *, seconds: float = 60) -> None:
    """Waits until no job runs or may run; held ones stay."""
    deadline = time.monotonic() + seconds
    while left := [line for line in cluster.squeue("-o", "%T %r %i %j") if "JobHeld" not in line]:
        if time.monotonic() > deadline:
            told = [line for one in left for line in cluster.told(one.split()[-2])]
            raise AssertionError("\n".join([*left, *told]))
        time.sleep(0.2)


def _client(act: Callable[[], object]) -> str:
    """Runs `act` in a process of its own: "done", "killed", or the error's code."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "crashed"
        try:
            os.setsid()
            act()
            said = "done"
        except ClustersegError as error:
            said = error.code
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writing, said.encode()[:1000])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said or "killed"
