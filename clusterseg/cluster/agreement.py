"""Do an mpirun, a libmpi and what ranks load it through agree? Two ranks are started, and asked.

Which libraries fit together can't be told from versions: of pairs that don't, some abort, some
hang, and some start two ranks of which each is a world of its own and ends well (Open MPI's ranks
under Hydra, Intel MPI's under Open MPI). Only ranks that really met count.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterseg.cluster.brief import ending_in_order, run_briefly
from clusterseg.runs.text import one_line, signal_name

RANKS = 2
_LONGEST = 300  # characters of a line that is told
_LEFT_ALONE = 30.0  # seconds after which ranks end themselves that were to be ended

# What a rank does. Ranks that don't know each other can't name their files by rank. They end
# themselves where nobody is left to do it: a launcher may outlive a doctor that was killed.
_REPORT = """
import json, os, re, signal, sys
signal.alarm(int(sys.argv[2]))
def mapped():
    with open("/proc/self/maps") as maps:
        paths = dict.fromkeys(line.split(None, 5)[5].strip() for line in maps if "/" in line)
    return [path for path in paths if re.match(".*/libmpi(ch|_ibm)?[.]so", path)]
def report(**values):
    name = os.path.join(sys.argv[1], "rank-%d" % os.getpid())
    with open(name + ".part", "w") as file:
        json.dump(values, file)
    os.rename(name + ".part", name + ".json")
"""
MPI4PY = (
    _REPORT
    + """
try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:
    report(error="mpi4py: %s" % error)
    sys.exit(1)
world = MPI.COMM_WORLD
size = world.allreduce(1)
report(size=size, library=MPI.Get_library_version(), loaded=mapped())
"""
)
HOROVOD = (
    _REPORT
    + """
try:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Both, in this order, as in a rank that trains.
    from mpi4py import MPI
    import tensorflow as tf
    import horovod
    import horovod.tensorflow as hvd
    report(loaded=mapped())  # of two MPIs the second one may end the rank
    hvd.init()
except (ImportError, RuntimeError, ValueError) as error:
    report(error="Horovod: %s" % error)
    sys.exit(1)
size = min(MPI.COMM_WORLD.allreduce(1), int(float(hvd.allreduce(tf.constant(1.0), op=hvd.Sum))))
report(size=size, library="Horovod " + horovod.__version__, loaded=mapped())
"""
)


@dataclass(frozen=True)
class Agreement:
    """What two ranks said, or the `problem` with them.

    `size` is that of the world that they found themselves in, None where none said one; `library`
    what the library calls itself, `loaded` its files in the rank; `seconds` how long it all took.
    """

    size: int | None
    library: str
    loaded: tuple[str, ...]
    problem: str | None
    seconds: float


@dataclass(frozen=True)
class Ending:
    """How a launcher ended: its exit code (negative: the signal), None if it did not in time;
    what its ranks reported, and the lines that were printed."""

    code: int | None
    reports: Sequence[Mapping[str, Any]]
    lines: Sequence[str]


def ask_two_ranks(
    line: Callable[[Sequence[str], Path], Sequence[str]],
    environ: Mapping[str, str],
    program: str,
    python: str,
    *,
    patience: float = 60.0,
) -> Agreement:
    """Starts `program` (`MPI4PY`, `HOROVOD`) as two ranks of this host, and hears what they say.

    `line` makes the launch line that starts two ranks with the argv it is given, and may write
    files into the folder; `python` runs the ranks, `environ` is what the launcher is started with.
    After `patience` seconds, or when this process is to end, whatever was started is ended.
    """
    with (
        ending_in_order(),
        tempfile.TemporaryDirectory(
            prefix="clusterseg-doctor-", ignore_cleanup_errors=True
        ) as name,
    ):
        folder = Path(name)
        source = folder / "rank.py"
        source.write_text(program)
        longest = str(math.ceil(patience + _LEFT_ALONE))
        argv = line([python, str(source), name, longest], folder)
        # By this variable what is left is known; the launch line passes it on to the ranks.
        mark = {"CLUSTERSEG_RUN_DIR": name}
        # An mpirun of Open MPI 5.0.11 does not come up where one with its process id was killed
        # before ("listener thread failed to start"): of 1,200 in /tmp 5, of 2,400 with a folder
        # each none.
        environ = {**environ, "TMPDIR": name}
        start = time.monotonic()
        try:
            code, lines = run_briefly(argv, environ, folder, mark=mark, patience=patience)
        except OSError as error:
            problem = f"{argv[0]} can't be started: {error.strerror}"
            return Agreement(None, "", (), problem, time.monotonic() - start)
        ending = Ending(code, _reports(folder), lines)
    return judge(ending, time.monotonic() - start, patience)


def judge(ending: Ending, seconds: float, patience: float) -> Agreement:
    """What an ending means; pure."""
    sizes = [report["size"] for report in ending.reports if isinstance(report.get("size"), int)]
    first: Mapping[str, Any] = next((one for one in ending.reports if "size" in one), {})
    return Agreement(
        size=min(sizes, default=None),
        library=_short(str(first.get("library", ""))),
        loaded=_loaded(first),
        problem=_problem(ending, sizes, patience),
        seconds=seconds,
    )


def _problem(ending: Ending, sizes: Sequence[int], patience: float) -> str | None:
    errors = [str(report["error"]) for report in ending.reports if "error" in report]
    if errors:
        hint = _DEBIAN if _MPICH in errors[0] else ""
        return one_line(errors[0], _LONGEST) + hint
    loaded = max(map(_loaded, ending.reports), key=len, default=())
    if len(loaded) > 1:
        return f"a rank loads two MPIs, {' and '.join(loaded)}, of which the launcher knows one"
    if sizes and min(sizes) < RANKS:
        return (
            f"each rank is alone, in a world of {min(sizes)}: the ranks' MPI does not hear this "
            "launcher. A job would run as many times over, and end well; load the libmpi of this "
            "launcher, or use the launcher of that libmpi"
        )
    what = _wrong_end(ending.code, patience)
    if what is None and (len(sizes) != RANKS or max(sizes) != RANKS):
        what = f"{len(sizes)} of two ranks answered, though the launcher ended well"
    last = _telling_line(ending.lines)
    return what if what is None or not last else f"{what}; it says: {last}"


# mpi4py's package finds MPICH's library by this name; Debian calls it libmpich.so.12.
_MPICH = "libmpi.so.12: cannot open shared object file"
_DEBIAN = "; make a link of that name to this MPI's library, in a folder that is on LD_LIBRARY_PATH"


def _wrong_end(code: int | None, patience: float) -> str | None:
    if code is None:
        return (
            f"two ranks had not ended after {patience:g} s, and were killed: they could not reach "
            "each other, or the launcher hangs"
        )
    if code < 0:
        return f"the launcher was killed by signal {-code} ({signal_name(-code)})"
    if code == 0:
        return None
    return (
        f"two ranks ended with exit code {code}: their MPI and this launcher do not understand "
        "each other (use an mpirun with its own libmpi), or it can't work here"
    )


def _short(library: str) -> str:
    """What a library says of itself, without where and when it was built.

    Open MPI: "Open MPI v5.0.11, package: …"; MPICH: "MPICH Version:      5.0.2" and many lines;
    Intel: "Intel(R) MPI Library 2021.18 for Linux* OS".
    """
    line = next(iter(library.replace("\0", "").splitlines()), "")
    words = line.partition(",")[0].replace(" Version:", "").replace(" for Linux* OS", "").split()
    return one_line(" ".join(words), 80)


def _telling_line(lines: Sequence[str]) -> str:
    """The line that most likely says what is wrong: one that names an error, else the last."""
    # Not "round-off errors" and the like, of which TensorFlow informs.
    told = [(line, line.lower().replace("errors", "")) for line in lines]
    telling = [line for line, small in told if any(word in small for word in _TELLING)]
    return next(iter(telling), next((line for line in reversed(lines) if line.strip("-= ")), ""))


_TELLING = (
    "error",
    "abort",
    "not compatible",
    "cannot",
    "can't",
    "unable",
    "failed",
    "refus",
    "signal:",
)


def _loaded(report: Mapping[str, Any]) -> tuple[str, ...]:
    files = report.get("loaded")
    return tuple(map(str, files)) if isinstance(files, list) else ()


def _reports(folder: Path) -> list[dict[str, Any]]:
    reports = []
    for file in sorted(folder.glob("rank-*.json")):
        with suppress(OSError, ValueError):
            report = json.loads(file.read_text())
            if isinstance(report, dict):
                reports.append(report)
    return reports
