"""What the ranks of these tests are: they tell what they see, and end as they are told.

    rank.py FOLDER ACT [WORD…]

Each writes FOLDER/<rank>.json, whole. ACT is what they do once all are there: `report` and end;
`return:CODE`; `stop` when the stop file asks for it, or `listen` for a signal, with exit code 75;
`exit:RANK:CODE`, `kill:RANK` or `abort:RANK:CODE`, while the others `sleep`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from mpi4py import MPI

LONGEST = 30.0  # seconds until a rank that nobody stops ends by itself, with code 9


def main() -> int:
    folder, act, *_ = sys.argv[1:]
    world = MPI.COMM_WORLD
    heard: list[str] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda received, _frame: heard.append(signal.Signals(received).name))
    place = Path(folder) / f"{world.rank}.json"
    seen = look(world)
    write(place, seen)
    world.Barrier()
    write(place, seen | {"met": True})
    code = perform(act, world, heard)
    write(place, seen | {"met": True, "heard": heard})
    return code


def look(world: MPI.Comm) -> dict[str, object]:
    """What this rank sees of itself; texts as their bytes in hexadecimal."""
    return {
        "rank": world.rank,
        "size": world.size,
        "sum": world.allreduce(world.rank),
        "local_rank": int(os.environ["CLUSTERSEG_LOCAL_RANK"]),
        "told_rank": int(os.environ["CLUSTERSEG_RANK"]),
        "host": os.uname().nodename,
        "cpus": sorted(os.sched_getaffinity(0)),
        "library": MPI.Get_library_version().split("\0")[0].splitlines()[0],
        "stop_file": os.environ.get("CLUSTERSEG_STOP_FILE"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "argv": [os.fsencode(word).hex() for word in sys.argv[3:]],
        "environment": {
            name.decode(): value.hex()
            for name, value in os.environb.items()
            if name.startswith(b"TOLD_")
        },
    }


def perform(act: str, world: MPI.Comm, heard: list[str]) -> int:
    """Ends as `act` says, or returns the exit code that it does."""
    what, *numbers = act.split(":")
    if what == "report":
        return 0
    if what == "return":
        return int(numbers[0])
    stop = Path(os.environ["CLUSTERSEG_STOP_FILE"])
    if numbers and world.rank == int(numbers[0]):
        if what == "exit":
            os._exit(int(numbers[1]))
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "abort":
            world.Abort(int(numbers[1]))
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        if what == "stop" and stop_asked(stop):
            return 75
        if what == "listen" and heard:
            return 75
        time.sleep(0.05)
    return 9


def stop_asked(file: Path) -> bool:
    try:
        return bool(file.read_bytes())
    except FileNotFoundError:
        return False


def write(place: Path, seen: dict[str, object]) -> None:
    beside = place.with_suffix(".new")
    beside.write_text(json.dumps(seen))
    beside.rename(place)


if __name__ == "__main__":
    sys.exit(main())
