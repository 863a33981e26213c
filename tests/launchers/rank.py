"""What the ranks of these tests are: they tell what they see, and end as they are told.

    rank.py FOLDER ACT [WORD…]

Each writes FOLDER/<rank>.json, whole. ACT: `report`, or what the ranks do once all are there:
`wait` for the stop file (exit code 75), `exit:RANK:CODE`, `kill:RANK`, `abort:RANK:CODE`.
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


def main() -> None:
    folder, act, *_ = sys.argv[1:]
    world = MPI.COMM_WORLD
    heard: list[str] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda received, _frame: heard.append(signal.Signals(received).name))
    place = Path(folder) / f"{world.rank}.json"
    seen = {
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
    write(place, seen)
    world.Barrier()
    perform(act, world, heard)
    write(place, seen | {"heard": heard})


def perform(act: str, world: MPI.Comm, heard: list[str]) -> None:
    what, *numbers = act.split(":")
    if what == "wait":
        stop = Path(os.environ["CLUSTERSEG_STOP_FILE"])
        until = time.monotonic() + LONGEST
        while not stop_asked(stop) and not heard and time.monotonic() < until:
            time.sleep(0.05)
        sys.exit(75 if time.monotonic() < until else 9)
    if what != "report" and world.rank == int(numbers[0]):
        if what == "exit":
            sys.stdout.flush()
            os._exit(int(numbers[1]))
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "abort":
            world.Abort(int(numbers[1]))
    if what != "report":
        time.sleep(LONGEST)
        sys.exit(9)


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
    main()
