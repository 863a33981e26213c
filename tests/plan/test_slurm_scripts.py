"""Scripts for Slurm as bash runs them: no text in any field of job.yaml becomes a command, or a
directive of sbatch."""

from __future__ import annotations

import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import inspect as types

from clusterseg.errors import ClustersegError
from clusterseg.plan.array_script import array_script
from clusterseg.plan.bare_script import bare_script
from clusterseg.plan.model import Plan
from clusterseg.plan.planner import fill
from clusterseg.plan.slurm_directives import directive
from clusterseg.spec.errors import SpecError
from clusterseg.spec.frozen import frozen_overrides
from clusterseg.spec.kinds import members, type_of, unwrap
from clusterseg.spec.model import JobSpec
from clusterseg.spec.reader import parse_job
from tests.plan.plans import site, slurm_plan

FAKE = """#!/bin/sh
printf '%s\\0' "$@" > "$OUT/words"
/usr/bin/env -0 > "$OUT/environment"
cat > "$OUT/stdin"
"""
COMMAND = "name: demo\ncommand: [python, fit.py]\n"
TRAIN = """name: demo
train:
  model: {name: fastscnn}
  data: {format: camvid, root: data}
"""

anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
nasty = st.sampled_from(
    [
        "\n#SBATCH --wrap=hit",
        "x\n#SBATCH --partition=other\n",
        "x --partition=other",
        "x #",
        "x'; touch hit; '",
        '"; touch hit; "',
        "$(touch hit)",
        "`touch hit`",
        "x\\",
        "\x1b[2J",
        "\u2028#SBATCH --nodes=9",
        "\r#SBATCH --nodes=9",
        "JOB_YAML\ntouch hit\n",
        "--hold",
        "-",
        ":",
        "{run_dir}",
        "{output}",
        "${HOME}",
        "%j",
    ]
)
texts = nasty | anything | st.builds(str.__add__, nasty, anything)


def text_fields(kind: Any, path: str = "") -> list[str]:
    """Every key path of a job.yaml where text can stand: an item for lists, a key for mappings."""
    bare = unwrap(kind)[0]
    if isinstance(bare, types.UnionType):
        return [found for member in members(bare) for found in text_fields(member, path)]
    if isinstance(bare, types.StructType):
        return [
            found
            for field in bare.fields
            if "options" not in unwrap(field.type)[1]
            for found in text_fields(field.type, f"{path}.{field.encode_name}".lstrip("."))
        ]
    if isinstance(bare, types.VarTupleType):
        return text_fields(bare.item_type, f"{path}.0")
    if isinstance(bare, types.DictType):
        return text_fields(bare.value_type, f"{path}.KEY")
    return [path] if isinstance(bare, types.StrType) else []


FIELDS = sorted(set(text_fields(type_of(JobSpec))))


def test_every_text_of_a_job_is_tried() -> None:
    assert {"name", "notes", "command.0", "slurm.partition", "slurm.extra.0"} <= set(FIELDS)
    assert {"environment.variables.KEY", "environment.setup.0", "train.data.root"} <= set(FIELDS)
    assert len(FIELDS) > 20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    program = folder / "clusterseg"
    program.write_text(FAKE)
    program.chmod(0o700)
    (folder / "work dir's #1").mkdir()
    return folder


def planned(bench: Path, text: str, overrides: list[str]) -> Plan:
    spec = parse_job(text, "job.yaml", overrides=overrides, environ={"HOME": "/h"}).spec
    return slurm_plan(
        spec,
        program=(str(bench / "clusterseg"),),
        directory=str(bench / "work dir's #1"),
        container_tool="apptainer",
    )


def run(bench: Path, script: str, **environ: str) -> list[str]:
    """The words that clusterseg is started with."""
    for name in ("words", "stdin", "environment"):
        (bench / name).unlink(missing_ok=True)
    (bench / "batch.sh").write_text(script)
    done = subprocess.run(
        ["bash", str(bench / "batch.sh")],
        env={"OUT": str(bench), "PATH": os.environ["PATH"], **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        cwd=bench,
    )
    assert not list(bench.rglob("hit")), "a value was executed"
    assert done.returncode == 0, done.stderr
    return os.fsdecode((bench / "words").read_bytes()).split("\0")[:-1]


def directives(script: str) -> list[str]:
    """The lines that sbatch would read: it stops at the first that is no comment and not empty."""
    found = []
    for line in re.split(r"[\n]", script):
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#SBATCH"):
            found.append(line)
    return found


def quoted(text: str) -> str:
    """`text` within YAML's double quotes."""
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'


@pytest.mark.parametrize("field", FIELDS)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=texts)
@example(text="x\n#SBATCH --partition=other")
@example(text="x #'\"")
@example(text="$(touch hit)")
def test_text_in_any_field_stays_data(bench: Path, field: str, text: str) -> None:
    base = TRAIN if field.startswith("train.") else COMMAND
    key = field.replace("KEY", "n1" if field.startswith("resources.hosts") else "MINE")
    overrides = [f"{key}={quoted(text.replace('${', '$${'))}"]
    try:
        made = planned(bench, base, overrides)
        filled = fill(made, run_dir="/runs/a b", output="/runs/a b/%out", after="12")
    except ClustersegError:
        return  # refused, nothing is written
    assert "\x1b" not in filled.script
    assert made.slurm is not None
    assert len(directives(filled.script)) == len(filled.slurm.options if filled.slurm else ())
    if field in ("environment.setup.0", "environment.modules.0"):
        return  # the former is bash by intention, of the latter there is no `module` here
    words = run(bench, filled.script)
    assert words == ["attempt", "/runs/a b", "--", *filled.argv]
    frozen = frozen_overrides(base, overrides, {"HOME": "/h"})
    assert planned(bench, base, frozen).spec == made.spec
    bare = bare_script(fill(made, after="12"), base, frozen, "/runs/a b")
    assert len(directives(bare)) == len(made.slurm.options)
    words = run(bench, bare)
    start = words.index("--job")
    assert words[start + 1 :] == ["/dev/stdin", "--", *made.argv]
    sets = [word for flag, word in pairwise(words) if flag == "--set"]
    assert sets[: len(frozen)] == frozen
    assert (bench / "stdin").read_bytes() == base.encode()


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(notes=st.lists(texts | st.sampled_from(["JOB_YAML", "JOB_YAML1", "EOF"]), max_size=5))
def test_any_job_survives_in_its_script(bench: Path, notes: list[str]) -> None:
    text = COMMAND + "".join(f"# {line}\n{line}\n" for line in notes)
    words = run(bench, bare_script(slurm_program(bench), text, [], "/r"))
    assert words[:3] == ["attempt", "--runs-dir", "/r"]
    given = (bench / "stdin").read_bytes()
    assert b"\r" not in given
    assert given == text.replace("\r\n", "\n").replace("\r", "\n").encode()
    assert (bench / "environment").exists()


@pytest.mark.parametrize("end", ["\r\n", "\r", "", "\r\r\n"])
def test_a_job_with_the_line_breaks_of_dos_is_the_same_job(bench: Path, end: str) -> None:
    text = COMMAND + "notes: |\n  one\n  two"
    script = bare_script(slurm_program(bench), text.replace("\n", "\r\n") + end, [], "/r")
    assert "\r" not in script
    run(bench, script)
    given = (bench / "stdin").read_text()
    meant = parse_job(text + "\n", "job.yaml", environ={}).spec
    assert parse_job(given, "job.yaml", environ={}).spec == meant


def slurm_program(bench: Path) -> Plan:
    return slurm_plan("", program=(str(bench / "clusterseg"),), directory=str(bench))


@settings(max_examples=100, deadline=None)
@given(value=texts, variable=texts, default=st.text("abc[{'\" ", max_size=5), quotes=st.booleans())
def test_what_a_variable_said_is_fixed(
    value: str, variable: str, default: str, quotes: bool
) -> None:
    """The overrides of a script make the same job, whatever the environment is then."""
    then = {"A": variable, "B": ""}
    body = f"${{A}} {value.replace('${', '$${')} ${{B:-{default.replace('}', '')}}}"
    text = f"name: demo\ncommand: [a, {quoted(body)}]\nnotes: "
    text += quoted("${A}") if quotes else "${A}"
    text += "\ntags: ['${C:-plain}', x]\nenvironment: {variables: {X: '${A}'}}\n"
    try:
        spec = parse_job(text, "job.yaml", environ=then).spec
    except SpecError:
        return
    frozen = frozen_overrides(text, [], then)
    for now in ({}, {"A": "other", "B": "other", "C": "other"}):
        assert parse_job(text, "job.yaml", overrides=frozen, environ=now).spec == spec


def test_what_an_outer_job_left_goes_and_what_slurm_says_stays(bench: Path) -> None:
    left = {
        "SLURM_CPU_BIND": "x",
        "SLURM_CPU_BIND_TYPE": "x",
        "SLURM_STEP_ID": "1",
        "SLURM_STEPID": "1",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "3",
        "SLURM_HOSTFILE": "/x",
        "SLURM_DISTRIBUTION": "cyclic",
        "SLURM_ARRAY_TASK_ID": "4",
        "SBATCH_NO_REQUEUE": "1",
        "SRUN_CPUS_PER_TASK": "4",
        "PMIX_RANK": "3",
        "PMI_FD": "3",
        "OMPI_COMM_WORLD_RANK": "3",
        "OPAL_PREFIX": "/x",
        "SLURM_MEM_PER_CPU": "1",
        "SLURM_THREADS_PER_CORE": "1",
        "SLURM_GPUS_PER_TASK": "1",
        "SLURM_JOB_GPUS": "0",
        "SLURM_TRES_PER_TASK": "cpu=1",
        "SLURM_HINT": "nomultithread",
        "SLURM_OF_A_RELEASE_TO_COME": "1",
    }
    stays = {
        "SLURM_CONF": "/c",
        "SLURM_JOB_ID": "7",
        "SLURM_TASKS_PER_NODE": "2",
        "SLURM_MEM_PER_NODE": "1",
        "SLURM_RESTART_COUNT": "2",
        "OMPI_MCA_btl": "self",
    }
    made = slurm_plan(
        "resources: {memory: 1G}\n",
        program=(str(bench / "clusterseg"),),
        directory=str(bench),
    )
    run(bench, made.script, **left, **stays)
    pairs = (bench / "environment").read_bytes().split(b"\0")[:-1]
    environment = dict(os.fsdecode(pair).split("=", 1) for pair in pairs)
    assert not left.keys() & environment.keys()
    assert stays.items() <= environment.items()


def test_what_slurm_sets_for_an_option_stays_where_the_job_has_it() -> None:
    """Whoever gives the option: a key of job.yaml, the site, or `slurm.extra`, which may shorten
    its name as Slurm allows."""
    some = {"SLURM_GPUS_PER_TASK", "SLURM_HINT", "SLURM_NETWORK", "SLURM_MEM_PER_CPU"}
    some |= {"SLURM_MEM_PER_NODE", "SLURM_JOB_GPUS"}
    extra = "slurm: {extra: [--hin=compute_bound, --network=x, --mem-per-cpu=1G]}\n"
    gpus = "resources: {accelerator: cuda}\n"
    for text, at, stay in (
        ("", site(), set[str]()),
        (extra, site(), {"SLURM_HINT", "SLURM_NETWORK", "SLURM_MEM_PER_CPU"}),
        (gpus, site(), {"SLURM_JOB_GPUS"}),
        (gpus, site("title: x\ngpus: gpus-per-task\n"), {"SLURM_GPUS_PER_TASK", "SLURM_JOB_GPUS"}),
        ("resources: {memory: 1G}\n", site(), {"SLURM_MEM_PER_NODE"}),
    ):
        assert some & set(slurm_plan(text, at=at).own) == stay, text


def test_modules_come_from_the_profile_of_a_shell_that_has_none(bench: Path) -> None:
    made = slurm_plan(
        "environment: {modules: [cuda/12]}\n",
        at=site("title: x\nmodules: [slurm]\nsetup: ['export ORDER=$LOADED']\n"),
        program=(str(bench / "clusterseg"),),
        directory=str(bench),
    )
    functions = {"BASH_FUNC_module%%": '() { export LOADED="$LOADED<$2>"; }'}
    run(bench, made.script, **functions)
    assert b"ORDER=<slurm><cuda/12>" in (bench / "environment").read_bytes()
    # A site's profile is not written for `set -e`: a line of it that fails is its own business.
    profile = bench / "profile.sh"
    profile.write_text('false\nmodule() { export LOADED="$LOADED{$2}"; }\n')
    run(bench, made.script.replace("/etc/profile", str(profile)))
    assert b"ORDER={slurm}{cuda/12}" in (bench / "environment").read_bytes()


def test_a_task_of_an_array_becomes_its_runs_script(bench: Path, tmp_path: Path) -> None:
    scripts, outputs = {}, {}
    for task in (3, 11):
        folder = tmp_path / f"run {task}'s"
        folder.mkdir()
        (folder / "batch.sh").write_text(f"echo $$ task {task}; exit {task}\n")
        scripts[task], outputs[task] = str(folder / "batch.sh"), str(folder / "output.log")
    script = array_script(["--array=3,11", "--output=/a b/%a.log"], scripts, outputs)
    assert directives(script) == ["#SBATCH --array=3,11", '#SBATCH --output="/a b/%a.log"']
    for task in (3, 11):
        with subprocess.Popen(
            ["bash", "-c", script],
            env={"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": str(task)},
        ) as process:
            assert process.wait(30) == task
        assert Path(outputs[task]).read_text() == f"{process.pid} task {task}\n"
    done = subprocess.run(
        ["bash", "-c", script], env={"SLURM_ARRAY_TASK_ID": "5"}, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"no run for task 5" in done.stderr


@pytest.mark.parametrize("folder", ["/a\nb", "/a\x1b[2J", "/a\u2028b"])
def test_a_folder_that_no_directive_holds_is_refused(folder: str) -> None:
    with pytest.raises(ClustersegError, match="directive"):
        slurm_plan("", directory=folder)


def test_directives_are_as_plain_as_they_can_be() -> None:
    assert directive("--constraint=[a*2&b|c]") == "--constraint=[a*2&b|c]"
    assert directive('--chdir=/a b/"c"\\d#e\'f') == '--chdir="/a b/\\"c\\"\\\\d#e\'f"'
