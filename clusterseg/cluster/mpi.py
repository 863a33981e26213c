"""Which MPI launchers this machine has, each with the library that its ranks must load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterseg.cluster.sayings import remembered
from clusterseg.plan.model import Definition, LauncherPair

_PATIENCE = 20.0  # seconds for `mpirun --version`; a cold network file system is slow
_LONGEST = 65536  # bytes of its answer that are looked at
_HOROVOD_RECORD = "horovod_build.json"  # written by tools/build_horovod.py


@dataclass(frozen=True)
class Sighting:
    """A program that may be a launcher: its pair, or why it is none that can be used."""

    program: Path
    where: str
    pair: LauncherPair | None
    reason: str = ""


def find_pairs(
    definitions: Mapping[str, Definition], environ: Mapping[str, str]
) -> list[LauncherPair]:
    """Every usable pair: those on PATH in its order, then those beside this Python."""
    return [seen.pair for seen in look_around(definitions, environ) if seen.pair is not None]


def look_around(
    definitions: Mapping[str, Definition], environ: Mapping[str, str]
) -> Iterator[Sighting]:
    """Looks at one program after the other, so that a caller may stop at the first that will do.

    `definitions` are launcher definitions by name. Each program is run once, to say its version.
    """
    seen: set[Path] = set()
    programs = dict.fromkeys(name for known in definitions.values() for name in known.programs)
    for folder, where in _folders(environ):
        for name in programs:
            program = folder / name
            if not os.access(program, os.X_OK) or not program.is_file():
                continue
            target = program.resolve()
            if target not in seen:
                seen.add(target)
                known = {n: d for n, d in definitions.items() if name in d.programs}
                yield _look_at(program, where, known, environ)


def mpi_types(program: str, environ: Mapping[str, str]) -> frozenset[str]:
    """What an srun can speak with ranks: the words of `srun --mpi=list`, empty if it says none."""
    try:
        said = _run(Path(program), ("--mpi=list",), dict(environ))
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    # One a line; and in releases before 20.11 behind "srun: ".
    words = (line.removeprefix("srun:").strip() for line in said.splitlines())
    return frozenset(word for word in words if re.fullmatch(r"[a-z0-9_]+", word))


def horovod_fits(pair: LauncherPair) -> bool:
    """Whether Horovod is installed for this Python and was built, and proved, for `pair`.

    Read from the record of its build, without importing it. A Horovod that came another way has
    no record: which MPI it is bound to can't be told before it runs, so it doesn't count.
    """
    if pair.libmpi is None:
        return False
    for folder in map(Path, sys.path):
        if not (folder / "horovod" / "tensorflow").is_dir():
            continue
        try:
            record = json.loads((folder / _HOROVOD_RECORD).read_text())
            return (
                record["mpi_version"] == pair.version
                and Path(record["libmpi"]).samefile(pair.libmpi)
                and (folder / f"tensorflow-{record['tensorflow']}.dist-info").is_dir()
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False
    return False


def _folders(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for entry in environ.get("PATH", os.defpath).split(os.pathsep):
        # A relative entry would make what is started depend on the current folder.
        if Path(entry).is_absolute():
            yield Path(entry), "on PATH"
    yield Path(sys.executable).parent, "beside this Python"


def _look_at(
    program: Path, where: str, definitions: Mapping[str, Definition], environ: Mapping[str, str]
) -> Sighting:
    answers: dict[tuple[str, ...], str] = {}
    for name, definition in definitions.items():
        if definition.detect is None or definition.detect.pattern is None:
            continue
        arguments = definition.detect.arguments
        if arguments not in answers:
            try:
                answers[arguments] = _answer(program, arguments, definition, environ)
            except (OSError, subprocess.SubprocessError) as error:
                return Sighting(program, where, None, f"does not run: {error}")
        found = re.search(definition.detect.pattern, answers[arguments])
        if found is None:
            continue
        if definition.starts_any_mpi:
            pair = LauncherPair(name=name, version=found[1], program=str(program), where=where)
            return Sighting(program, where, pair)
        prefix, libmpi = _library(program, definition)
        if libmpi is None:
            looked = ", ".join(definition.libmpi)
            reason = f"is {definition.title} {found[1]}, but has no {looked} below {prefix}"
            return Sighting(program, where, None, reason)
        pair = LauncherPair(
            name=name,
            version=found[1],
            program=str(program),
            libmpi=str(libmpi),
            prefix=_moved_prefix(prefix, definition, environ),
            where=where,
        )
        return Sighting(program, where, pair)
    first = next((line for text in answers.values() for line in text.splitlines() if line), "")
    return Sighting(program, where, None, f"says {first[:80]!r}, which is none of these")


def _answer(
    program: Path, arguments: tuple[str, ...], definition: Definition, environ: Mapping[str, str]
) -> str:
    clean = dict(environ)
    moved = definition.prefix_variable
    if moved and not _same(clean.get(moved), program.parent.parent):
        clean.pop(moved, None)  # it is another installation's
    return _run(program, arguments, clean)


def _run(program: Path, arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    return remembered(program, arguments, environ, lambda: _ask(program, arguments, environ))


def _ask(program: Path, arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        timeout=_PATIENCE,
        check=False,
    )
    return done.stdout[:_LONGEST].decode(errors="replace")


def _library(program: Path, definition: Definition) -> tuple[Path, Path | None]:
    """The launcher's prefix and its libmpi: below its own folder, else below its link's target."""
    prefixes = [program.parent.parent, program.resolve().parent.parent]
    for prefix in prefixes:
        for pattern in definition.libmpi:
            for path in sorted(prefix.glob(pattern)) if "*" in pattern else [prefix / pattern]:
                if path.is_file():
                    return prefix, path
    return prefixes[0], None


def _moved_prefix(prefix: Path, definition: Definition, environ: Mapping[str, str]) -> str | None:
    """The prefix where the environment already says it for this very launcher, else None."""
    name = definition.prefix_variable
    return str(prefix) if name and _same(environ.get(name), prefix) else None


def _same(path: str | None, other: Path) -> bool:
    try:
        return path is not None and other.samefile(path)
    except OSError:
        return False
