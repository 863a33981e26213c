"""Which MPI launchers this machine has, each with the library that its ranks must load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as replace_sighting
from itertools import zip_longest
from pathlib import Path

from msgspec.structs import replace

from clusterseg.cluster.sayings import remembered
from clusterseg.plan.model import Definition, LauncherPair
from clusterseg.runs.files import same_file

_PATIENCE = 20.0  # seconds for `mpirun --version`; a cold network file system is slow
_LONGEST = 65536  # bytes of its answer that are looked at
_TYPE = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Sighting:
    """A program that may be a launcher: its pair, or why it is none that can be used.

    `name` is the definition that knows it, None where none does. `is_other`: it ran, and what it
    says is no launcher's.
    """

    program: Path
    where: str
    pair: LauncherPair | None
    reason: str = ""
    name: str | None = None
    is_other: bool = False

    def is_of(self, pair: LauncherPair) -> bool:
        """Whether it is another name for a launcher that was found in the same folder."""
        return self.name == pair.name and self.program.parent == Path(pair.program).parent


def find_pairs(
    definitions: Mapping[str, Definition], environ: Mapping[str, str]
) -> list[LauncherPair]:
    """Every usable pair: those on PATH in its order, then those beside this Python."""
    return [seen.pair for seen in look_around(definitions, environ) if seen.pair is not None]


def look_around(
    definitions: Mapping[str, Definition], environ: Mapping[str, str]
) -> Iterator[Sighting]:
    """Looks at one program after the other, so that a caller may stop at the first that will do.

    `definitions` are launcher definitions by name. A program that several names lead to is one;
    it is run once (for each way of asking), to say its version.
    """
    done: set[Path] = set()
    tried: set[tuple[Path, str]] = set()
    for folder, where in _folders(environ):
        beside = folder == Path(sys.executable).parent
        here: dict[str, LauncherPair] = {}  # of several names in a folder the first counts
        for target, names in _candidates(folder, definitions, beside=beside).items():
            fresh = {
                name: file
                for name, file in names.items()
                if (target, name) not in tried and name not in here
            }
            if target in done or not fresh:
                continue
            tried |= {(target, name) for name in fresh}
            sighting = _look_at(fresh, where, definitions, environ)
            sighting = _of_its_own(sighting, here.values())
            if sighting.pair is not None:
                done.add(target)
                here[sighting.pair.name] = sighting.pair
            yield sighting


def _of_its_own(sighting: Sighting, here: Iterable[LauncherPair]) -> Sighting:
    """`sighting`, unless its libmpi is that of another launcher of the same folder.

    Intel's mpirun is a script that starts the first mpiexec.hydra of PATH, and says what that
    says: it must not be taken for that one, with Intel's library.
    """
    pair = sighting.pair
    for other in here:
        if pair is not None and pair.libmpi is not None and pair.libmpi == other.libmpi:
            reason = f"says it is {pair.name} {pair.version}, but {pair.libmpi} is that of "
            return replace_sighting(sighting, pair=None, reason=reason + other.program)
    return sighting


def mpi_types(program: str, environ: Mapping[str, str]) -> frozenset[str]:
    """What an srun can speak with ranks: the words of `srun --mpi=list`, empty if it says none."""
    try:
        said = _run(Path(program), ("--mpi=list",), dict(environ))
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return _types_in(said)


def _types_in(said: str) -> frozenset[str]:
    # One a line, in releases before 20.11 behind "srun: "; and the versions of one after a colon:
    # "specific pmix plugin versions available: pmix_v3,pmix_v4".
    types: set[str] = set()
    for line in said.splitlines():
        words = line.removeprefix("srun:").rpartition("available:")[2].split(",")
        if all(_TYPE.fullmatch(word.strip()) for word in words):
            types.update(word.strip() for word in words)
    return frozenset(types)


def _folders(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    for entry in environ.get("PATH", os.defpath).split(os.pathsep):
        # A relative entry would make what is started depend on the current folder.
        if Path(entry).is_absolute():
            yield Path(entry), "on PATH"
    yield Path(sys.executable).parent, "beside this Python"


def _candidates(
    folder: Path, definitions: Mapping[str, Definition], *, beside: bool
) -> dict[Path, dict[str, Path]]:
    """What may be a launcher in a folder, links resolved: by whom it is sought, and as what.

    Debian's mpirun leads over two links to Hydra's mpiexec.hydra: one file that several
    definitions look for under other names. What a Python package installs is only looked for
    `beside` this Python: another's horovodrun starts another Python's Horovod.
    """
    found: dict[Path, dict[str, Path]] = {}
    # The names that each definition gives first come first: mpirun before mpiexec.hydra.
    ordered = zip_longest(*(known.programs for known in definitions.values()))
    programs = dict.fromkeys(name for names in ordered for name in names if name is not None)
    executable = {
        name: program
        for name in programs
        if os.access(program := folder / name, os.X_OK) and program.is_file()
    }
    for program in executable.values():
        found.setdefault(program.resolve(), {})
    for name, definition in definitions.items():
        if definition.detect is None or (definition.detect.package is not None and not beside):
            continue
        for program in (executable[known] for known in definition.programs if known in executable):
            found[program.resolve()].setdefault(name, program)
    return found


def _look_at(
    programs: Mapping[str, Path],
    where: str,
    definitions: Mapping[str, Definition],
    environ: Mapping[str, str],
) -> Sighting:
    """One file, which each of the definitions in `programs` looks for under the name there."""
    answers: dict[tuple[str, ...], str] = {}
    first = next(iter(programs.values()))
    for name, program in programs.items():
        definition = definitions[name]
        if definition.detect is None:
            continue
        if definition.detect.package is not None:
            version = _package_version(definition.detect.package)
            if version is None:
                continue
            pair = LauncherPair(name=name, version=version, program=str(program), where=where)
            return Sighting(program, where, pair, name=name)
        arguments = definition.detect.arguments
        if arguments not in answers:
            try:
                answers[arguments] = _answer(program, arguments, definition, environ)
            except (OSError, subprocess.SubprocessError) as error:
                return Sighting(program, where, None, f"does not run: {error}")
        found = re.search(definition.detect.pattern or "", answers[arguments])
        if found is not None:
            pair = LauncherPair(name=name, version=found[1], program=str(program), where=where)
            return _with_library(pair, definition, environ)
    said = next((line for text in answers.values() for line in text.splitlines() if line), "")
    text = "".join(answers.values())
    for name, definition in definitions.items():
        pattern = definition.detect.pattern if definition.detect is not None else None
        found = re.search(pattern, text) if pattern is not None else None
        if found is not None:
            started = " or ".join(definition.programs)
            reason = f"is of {definition.title} {found[1]}, which is started by {started}"
            return Sighting(first, where, None, reason, name)
    reason = f"says {said[:80]!r}, which is no launcher that is looked for"
    return Sighting(first, where, None, reason, is_other=True)


def _with_library(
    pair: LauncherPair, definition: Definition, environ: Mapping[str, str]
) -> Sighting:
    """A launcher that was recognised, with its libmpi if it has one of its own."""
    program = Path(pair.program)
    if definition.starts_any_mpi:
        return Sighting(program, pair.where, pair, name=pair.name)
    prefix, libmpi = _library(program, definition)
    if libmpi is None:
        looked = ", ".join(definition.libmpi)
        reason = f"is {definition.title} {pair.version}, but has no {looked} below {prefix}"
        return Sighting(program, pair.where, None, reason, pair.name)
    moved = _moved_prefix(prefix, definition, environ)
    whole = replace(pair, libmpi=str(libmpi), prefix=moved)
    return Sighting(program, pair.where, whole, name=pair.name)


def _package_version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (most need none)

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _answer(
    program: Path, arguments: tuple[str, ...], definition: Definition, environ: Mapping[str, str]
) -> str:
    clean = dict(environ)
    moved = definition.prefix_variable
    if moved and not same_file(clean.get(moved), program.parent.parent):
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
    return str(prefix) if name and same_file(environ.get(name), prefix) else None
