"""The batch script as bash runs it: whatever a job says arrives as data, and nothing else runs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.plan.planner import fill
from clusterseg.spec.model import EnvironmentSpec, JobSpec
from tests.plan.plans import job, plan

# Notes the words and the environment that it was started with, each ended by a zero byte.
FAKE = """#!/bin/sh
printf '%s\\0' "$@" > "$OUT/words"
/usr/bin/env -0 > "$OUT/environment"
"""

anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
nasty = st.sampled_from(
    [
        "$(touch hit)",
        "`touch hit`",
        "'; touch hit; '",
        '"; touch hit; "',
        "\n touch hit \n",
        "\\",
        "#",
        "*",
        "~",
        "-x",
        "--",
        "!!",
        "a b",
        "",
        "\t",
        "é→",
        "$HOME",
        "{run_dir}",
        "\r",
        "&",
    ]
)
texts = anything | nasty | st.builds(str.__add__, nasty, anything)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with a program that stands for clusterseg."""
    program = tmp_path / "clusterseg"
    program.write_text(FAKE)
    program.chmod(0o700)
    (tmp_path / "work dir's").mkdir()
    return tmp_path


def planned(bench: Path, spec: JobSpec, run_dir: str) -> Plan:
    made = plan(spec, program=(str(bench / "clusterseg"),), directory=str(bench / "work dir's"))
    return fill(made, run_dir=run_dir)


def run(bench: Path, made: Plan, **environ: str) -> tuple[list[str], dict[str, str]]:
    """Runs the script; what clusterseg got: its words, and its environment."""
    script = bench / "batch.sh"
    script.write_text(made.script)
    subprocess.run(
        ["bash", str(script)],
        env={"OUT": str(bench), "PATH": os.environ["PATH"], **environ},
        check=True,
        timeout=60,
        cwd=bench,
    )
    assert not list(bench.rglob("hit")), "a value was executed"
    words = os.fsdecode((bench / "words").read_bytes()).split("\0")[:-1]
    pairs = (bench / "environment").read_bytes().split(b"\0")[:-1]
    return words, dict(os.fsdecode(pair).split("=", 1) for pair in pairs)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    command=st.lists(texts, min_size=1, max_size=4),
    arguments=st.lists(texts, max_size=3),
    variables=st.dictionaries(names, texts, max_size=4),
    run_dir=texts.map("/runs/".__add__),
)
def test_no_value_changes_the_script(bench, command, arguments, variables, run_dir):
    spec = JobSpec(
        name="demo",
        command=tuple(command),
        launcher_args=tuple(arguments),
        environment=EnvironmentSpec(variables=variables),
    )
    try:
        made = planned(bench, spec, run_dir)
    except ClustersegError as error:
        assert error.code == "environment"  # a name that bash keeps for itself
        return
    words, environment = run(bench, made)
    # What stands in launcher_args as a symbol is one; the user's own command is never touched.
    assert words == ["attempt", run_dir, "--", *made.argv]
    assert words[-len(command) :] == command
    assert {name: environment.get(name) for name in made.environment} == made.environment


def test_names_that_bash_keeps_for_itself_are_refused(bench):
    """Every variable that bash itself has either arrives as it was given, or is refused."""
    known = subprocess.run(
        ["bash", "-c", "compgen -v"], env={}, capture_output=True, text=True, check=True
    ).stdout.split()
    arrived = set()
    for name in {*known, "RANDOM", "SECONDS", "LINENO", "FUNCNAME", "HISTCMD", "SRANDOM"}:
        spec = JobSpec(
            name="demo",
            command=("true",),
            environment=EnvironmentSpec(variables={name: "1 2"}),
        )
        try:
            made = planned(bench, spec, "/r")
        except ClustersegError:
            continue
        assert run(bench, made)[1][name] == "1 2", name
        arrived.add(name)
    assert {"PATH", "TERM", "HOSTNAME"} <= arrived, "but what can be set may be set"


def test_what_an_outer_job_left_does_not_arrive_and_what_a_site_set_does(bench):
    left = {
        "SLURM_JOB_ID": "7",
        "SLURM_CPU_BIND": "x",
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_MCA_orte_hnp_uri": "u",
        "PMIX_RANK": "3",
        "PMI_FD": "4",
        "OPAL_PREFIX": "/other",
        "HYDRA_BSTRAP_LOCALHOST": "n1",
        "I_MPI_PIN_INFO": "0,1",
        "HOROVOD_RANK": "3",
        "CLUSTERSEG_LOCAL_RANK": "1",
        "KMP_AFFINITY": "compact",
        "GOMP_CPU_AFFINITY": "0",
        "MKL_NUM_THREADS": "64",
        "OLDPWD": "/old",
    }
    site = {
        "I_MPI_FABRICS": "shm:ofi",
        "HYDRA_LAUNCHER": "ssh",
        "HOROVOD_FUSION_THRESHOLD": "1",
        "OMP_STACKSIZE": "16M",
        "OMPI_MCA_btl_tcp_if_include": "ib0",
        "name": "mine",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    own = {"SLURM_MINE": "kept", "OMPI_COMM_WORLD_X": "kept", "OMP_PLACES": "cores"}
    spec = job(f"environment: {{variables: {json.dumps(own)}}}\n")
    _, environment = run(bench, planned(bench, spec, "/r"), **left, **site)
    assert not left.keys() & environment.keys()
    assert site.items() <= environment.items()
    assert own.items() <= environment.items(), "what the job says stays"


def test_setup_lines_run_as_they_are_and_have_the_last_word(bench):
    spec = job(
        """
environment:
  modules: [cuda/12, "a b"]
  variables: {A: one, B: two}
  setup:
    - export A="$B and $(pwd)"
    - |
      for number in 1 2; do
        export C="$C$number"
      done
"""
    )
    made = planned(bench, spec, "/r")
    # A site's `module` is a function that shells inherit.
    functions = {"BASH_FUNC_module%%": '() { export LOADED="$LOADED<$1 $2>"; }'}
    _, environment = run(bench, made, **functions)
    assert environment["A"] == f"two and {made.directory}"
    assert environment["C"] == "12"
    assert environment["LOADED"] == "<load cuda/12><load a b>"
    assert environment["PWD"] == made.directory


@pytest.mark.parametrize("line", ["false", "module load nothing", "cd /nowhere"])
def test_a_set_up_that_fails_ends_the_script_before_the_job(bench, line):
    made = planned(bench, job(f"environment: {{setup: ['{line}']}}\n"), "/r")
    with pytest.raises(subprocess.CalledProcessError):
        run(bench, made)
    assert not (bench / "words").exists()


def test_script_can_be_shown_on_a_terminal(bench):
    odd = "\x1b[2J'\\ \x07\x9b1m\u202eabc\r\n\x7f0"
    spec = JobSpec(name="demo", command=(odd,), environment=EnvironmentSpec(variables={"A": odd}))
    made = planned(bench, spec, "/r")
    assert all(character.isprintable() or character == "\n" for character in made.script)
    words, environment = run(bench, made)
    assert words[-1] == environment["A"] == odd


def test_script_is_well_formed_and_starts_one_thing(bench):
    made = planned(bench, job("resources: {ranks: 4}\n"), "/runs/demo-1")
    done = subprocess.run(
        ["bash", "-n"], input=made.script, text=True, capture_output=True, check=True
    )
    assert not done.stderr
    lines = made.script.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert [line.split()[0] for line in lines if line[:5] == "exec "] == ["exec"]
    assert all(len(line) <= 110 for line in lines)
