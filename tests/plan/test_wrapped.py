"""horovodrun: what it is told itself, and what it hands on to the mpirun that it calls."""

from __future__ import annotations

import shlex

import pytest

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.dialect_reader import read_dialect
from clusterseg.plan.symbols import filled_line
from clusterseg.spec.errors import SpecError
from tests.plan.plans import HERE, inner, plan, slurm_plan

EIGHT = "resources: {ranks: 8, cpus_per_rank: 4}\n"


def handed_on(argv: tuple[str, ...]) -> list[str]:
    """The words that a shell makes of what stands in the one argument."""
    (word,) = [word for word in argv if word.startswith("--binding-args=")]
    return shlex.split(word.removeprefix("--binding-args="))


def test_the_binding_is_that_of_the_mpirun_that_it_calls():
    for launcher in ("openmpi4", "openmpi5", "spectrum"):
        made = plan(EIGHT, "horovodrun", inner=inner(launcher))
        alone = plan(EIGHT, launcher)
        said = handed_on(made.argv)
        start = alone.argv.index("--bind-to")
        end = alone.argv.index("-np")
        assert list(alone.argv[1:end]) == said, "in the same words, in the same order"
        assert said[said.index("--bind-to") :] == list(alone.argv[start:end])
        assert made.argv[0] == "/home/ada/env/bin/horovodrun"
        own = {name: value for name, value in alone.environment.items() if "LIBMPI" not in name}
        assert own.items() <= made.environment.items()


def test_its_mpirun_is_the_first_on_path_whatever_modules_and_setup_do():
    made = plan(
        EIGHT + "environment: {modules: [a], setup: [b]}\n", "horovodrun", inner=inner("openmpi4")
    )
    before, line, _ = made.script.partition('export PATH=/opt/ompi4/bin"${PATH:+:$PATH}"\n')
    assert line and "module load a\n" in before and "\nb\n" in before
    assert "export PATH" not in plan(EIGHT, "openmpi4").script


def test_the_folder_for_the_output_is_one_word_of_the_shell_too():
    made = plan(EIGHT + "launcher_output: files\n", "horovodrun", inner=inner("openmpi4"))
    filled = filled_line(made.argv, made, {"{launcher_folder}": "/r/a b; $(id)/launcher"})
    said = handed_on(filled)
    assert said[said.index("--output-filename") + 1] == "/r/a b; $(id)/launcher"


def test_what_the_inner_launcher_cannot_do_it_cannot_either():
    keys = "placement: {map_by: numa, bind_to: socket}\n" + EIGHT
    with pytest.raises(ClustersegError, match="can't bind to socket with map_by: numa"):
        plan(keys, "horovodrun", inner=inner("openmpi5"))
    assert plan(keys, "horovodrun", inner=inner("openmpi4")).ranks == 8


def test_an_mpirun_that_it_does_not_call_is_refused():
    with pytest.raises(ClustersegError, match="not that of mpich") as caught:
        plan(EIGHT, "horovodrun", inner=inner("mpich"))
    assert caught.value.exit_code == ExitCode.CLUSTER
    with pytest.raises(ClustersegError, match="no MPI was found"):
        plan(EIGHT, "horovodrun")


def test_it_is_not_for_jobs_of_slurm():
    with pytest.raises(ClustersegError, match="knows nothing of a job of Slurm"):
        slurm_plan(EIGHT, "horovodrun", inner=inner("openmpi5"))


WRAPPER = """title: W
program: w
detect: {package: w}
wraps: [openmpi4]
flags: {bind_core: ['{inner}'], ranks: [-n, '{ranks}']}
"""


def test_what_the_inner_launcher_does_to_ranks_is_known_of_it_too():
    """Hydra keeps a variable from other hosts, and may not tell of a rank's end."""
    own = read_dialect("w", WRAPPER.replace("openmpi4", "mpich"), "w.yaml")
    made = plan(EIGHT, "horovodrun", dialect=own, inner=inner("mpich"))
    assert "--watched" in made.argv
    text = "environment: {variables: {DISPLAY: ':0'}}\nresources: {hosts: {login1: 1, n2: 1}}\n"
    text = text.replace("login1", HERE.name)
    listed = WRAPPER.replace("openmpi4", "mpich").replace(
        "ranks:", "hosts: [-f, '{hostfile}'], ranks:"
    )
    own = read_dialect("w", listed + "hostfile: {line: '{host}:{count}'}\n", "w.yaml")
    with pytest.raises(ClustersegError, match="does not pass it on"):
        plan(text, "horovodrun", dialect=own, inner=inner("mpich"))


@pytest.mark.parametrize(
    ("good", "bad", "message", "place"),
    [
        ("'{inner}'", "x", "`wraps` and `{inner}` go together", "w.yaml:4:1"),
        ("wraps: [openmpi4]\n", "", "`wraps` and `{inner}` go together", "w.yaml:1:1"),
        ("package: w", "pattern: '(1)'", "`wraps` and `detect.package` go together", "w.yaml:4:1"),
        ("wraps: [openmpi4]\n", "", "`wraps` and `detect.package` go together", "w.yaml:1:1"),
    ],
)
def test_what_a_wrapper_needs_is_told_with_its_place(good, bad, message, place):
    assert read_dialect("w", WRAPPER, "w.yaml").wraps == ("openmpi4",)
    with pytest.raises(SpecError) as caught:
        read_dialect("w", WRAPPER.replace(good, bad), "w.yaml")
    said = caught.value.render()
    assert message in said and f"--> {place}" in said
