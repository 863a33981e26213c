"""Launcher definitions: a new file is a new launcher, and a mistake is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.plan.dialect import MEANINGS
from clusterseg.plan.dialect_reader import read_dialect
from clusterseg.plan.model import Definition, Host, LauncherPair
from clusterseg.plan.planner import fill
from clusterseg.plan.symbols import filled_line
from clusterseg.spec.errors import SpecError
from tests.plan.plans import plan, site, slurm_plan

# Another family of MPI, with a host file of its own and settings by variables.
HYDRA = r"""
title: Some Hydra
program: mpiexec
detect: {pattern: 'HYDRA.* ([0-9.]+)', arguments: [-info]}
map: {core: core, socket: socket, numa: numa, node: machine}
flags:
  output: [-l]
  bind_core: [-bind-to, "core:{cpus}", -map-by, "{map}"]
  bind_none: [-bind-to, none]
  hosts: [-f, "{hostfile}"]
  ranks: [-n, "{ranks}"]
variables:
  bind_core: {PIN_DOMAIN: "{cpus}"}
  report_binding: {HYDRA_TOPO_DEBUG: "1"}
hostfile: {line: "{host}:{count}"}
unset: [HYDRA_*]
"""


def test_a_new_launcher_is_a_new_file():
    made = plan(
        "resources: {hosts: {n1: 2, n2: 1}, cpus_per_rank: 4}\nplacement: {map_by: node}\n",
        dialect=read_dialect("hydra", HYDRA, "hydra.yaml"),
        pair=LauncherPair(name="hydra", version="5.0", program="/opt/bin/mpiexec"),
    )
    assert made.launcher == "hydra"
    assert made.argv[:10] == (
        *("/opt/bin/mpiexec", "-l", "-bind-to", "core:4", "-map-by", "machine"),
        *("-f", "{hostfile}", "-n", "3"),
    )
    assert made.hostfile == "n1:2\nn2:1\n"
    assert made.environment["PIN_DOMAIN"] == "4"
    assert made.environment["HYDRA_TOPO_DEBUG"] == "1"
    assert "HYDRA_*" in made.unset


def test_a_host_file_may_have_a_line_for_each_rank():
    text = HYDRA.replace('{line: "{host}:{count}"}', '{line: "{host}", per: rank}')
    made = plan(
        "resources: {hosts: {n1: 2, n2: 1}, cpus_per_rank: 1}\n",
        dialect=read_dialect("hydra", text, "hydra.yaml"),
        pair=LauncherPair(name="hydra", version="5.0", program="/opt/bin/mpiexec"),
    )
    assert made.hostfile == "n1\nn1\nn2\n"


@pytest.mark.parametrize(
    ("good", "bad", "message", "line"),
    [
        ("title: Some", "titel: Some", "`titel`", 2),
        ("  ranks: [-n", "  rnaks: [-n", "`rnaks` in `flags`", 11),
        ('"{ranks}"', '"{rank}"', "`{rank}` in `ranks`", 11),
        ('"core:{cpus}"', '"core:{ranks}"', "`{ranks}` in `bind_core`", 8),
        ("([0-9.]+)", "[0-9.]+", "one group, the version", 4),
        ("([0-9.]+)", "([0-9.]+", "no regular expression", 4),
        ("numa: numa", "nmua: numa", "`nmua` in `map`", 5),
        ("program: mpiexec", "program: bin/mpiexec", "`bin/mpiexec` for `program`", 3),
        ("HYDRA_*", "HYDRA_$(id)", "`HYDRA_$(id)` in `unset`", 16),
        ("HYDRA_TOPO_DEBUG:", '"A B":', "`A B` is not the name of a variable", 14),
        ('"{host}:{count}"', '"{hots}:{count}"', "`hostfile.line`", 15),
        ('hostfile: {line: "{host}:{count}"}', "", "does not say its format", None),
        ('  ranks: [-n, "{ranks}"]\n', "", "how many `ranks`", 6),
        ("output: [-l]", "output: -l", "output", 7),
        ("numa: numa", 'numa: "numa:{ranks}"', "`{ranks}` in `map`", 5),
        ("unset: ", "order: {sokcet: [-r]}\nunset: ", "`sokcet` in `order`", 16),
        ("unset: ", 'order: {socket: ["{map}"]}\nunset: ', "`{map}` in `order`", 16),
        ("unset: ", "order: {socket: -r}\nunset: ", "order.socket", 16),
        ('{line: "{host}:{count}"}', '{line: "{host}", turns: often}', "hostfile.turns", 15),
        ("output: [-l]", 'rank_output: ["{rank}"]', "`{rank}` in `rank_output`", 7),
        ("output: [-l]", 'variables_list: ["{name}"]', "`{name}` in `variables_list`", 7),
        ("output: [-l]", 'many: ["{ranks}"]', "`{ranks}` in `many`", 7),
        ("output: [-l]", 'slurm: ["{mpi}"]', "`{mpi}` in `slurm`", 7),
        ("unset: ", "numa_first: [nodes]\nunset: ", "`nodes` in `numa_first`", 16),
        ("unset: ", "not_passed: [A-B]\nunset: ", "`A-B` in `not_passed`", 16),
        ("unset: ", "equal_only: [nodes]\nunset: ", "`nodes` in `equal_only`", 16),
        ("unset: ", "cannot: {numa: [sokcet]}\nunset: ", "`numa` in `cannot`", 16),
    ],
)
def test_a_mistake_is_told_with_its_place(good, bad, message, line):
    assert good in HYDRA
    with pytest.raises(SpecError) as caught:
        read_dialect("hydra", HYDRA.replace(good, bad), "my/hydra.yaml")
    said = caught.value.render()
    assert message in said
    assert "docs/launchers.md" in said
    if line is not None:
        assert f"--> my/hydra.yaml:{line}:" in said


def test_ranks_take_turns_where_the_lines_of_a_host_file_number_them():
    text = HYDRA.replace('"{host}:{count}"', '"{host}:{count}", turns: true')
    keys = "resources: {hosts: {n1: 3, n2: 1, n3: 2}, cpus_per_rank: 1}\n"
    pair = LauncherPair(name="hydra", version="5.0", program="/opt/bin/mpiexec")
    hydra = read_dialect("hydra", text, "hydra.yaml")
    dealt = plan(keys + "placement: {map_by: node}\n", dialect=hydra, pair=pair)
    assert dealt.hostfile == "n1:1\nn2:1\nn3:1\nn1:1\nn3:1\nn1:1\n"
    assert plan(keys, dialect=hydra, pair=pair).hostfile == "n1:3\nn2:1\nn3:2\n"


def test_what_a_launcher_keeps_from_other_hosts_is_refused_there():
    hydra = read_dialect("hydra", HYDRA + "not_passed: [DISPLAY]\n", "hydra.yaml")
    pair = LauncherPair(name="hydra", version="5.0", program="/opt/bin/mpiexec")
    keys = "environment: {variables: {DISPLAY: ':0'}}\n"
    assert plan(keys, dialect=hydra, pair=pair).environment["DISPLAY"] == ":0"
    for hosts in ("{n1: 1, n2: 1}", "{n3: 1}"):
        with pytest.raises(ClustersegError, match="does not pass it on") as caught:
            plan(
                keys + f"resources: {{hosts: {hosts}, cpus_per_rank: 1}}\n",
                dialect=hydra,
                pair=pair,
            )
        assert caught.value.code == "environment"


def test_a_launcher_that_counts_threads_needs_hosts_that_are_alike():
    pinning = HYDRA.replace('PIN_DOMAIN: "{cpus}"', 'PIN_DOMAIN: "{processors}"')
    hydra = read_dialect("hydra", pinning, "hydra.yaml")
    pair = LauncherPair(name="hydra", version="5.0", program="/opt/bin/mpiexec")
    two = [Host(name="n1", cores=8, threads_per_core=2, here=True), Host(name="n2", cores=8)]
    keys = "resources: {hosts: {n1: 1, n2: 1}, cpus_per_rank: 4}\n"
    with pytest.raises(ClustersegError, match="1 or 2 of them, by host") as caught:
        plan(keys, dialect=hydra, pair=pair, hosts=two)
    assert caught.value.code == "placement"
    # A host of which nothing is known is taken to be like this one.
    made = plan(keys, dialect=hydra, pair=pair, hosts=two[:1])
    assert made.environment["PIN_DOMAIN"] == "8"
    assert plan(keys, dialect=read_dialect("h", HYDRA, "h"), pair=pair, hosts=two).ranks == 2


def test_from_64_hosts_on_daemons_are_started_otherwise():
    """That is for those that are reached by ssh; Slurm starts its own."""
    flag = "plm_rsh_num_concurrent"
    names = [f"n{number}" for number in range(64)]

    def hosts(count: int) -> str:
        named = ", ".join(f"{name}: 1" for name in names[:count])
        return f"resources: {{hosts: {{{named}}}, cpus_per_rank: 1}}\n"

    argv = plan(hosts(64), "openmpi4").argv
    assert argv[argv.index(flag) + 1] == "64"
    assert flag not in plan(hosts(63), "openmpi4").argv
    big = site("title: S\npartitions: {p: {cores: 4}}\ndefault_partition: p\n")
    assert flag not in slurm_plan(hosts(64), "openmpi4", at=big).argv


def test_all_mistakes_are_told_at_once():
    text = HYDRA.replace('"{ranks}"', '"{rank}"').replace("numa: numa", "nmua: numa")
    with pytest.raises(SpecError) as caught:
        read_dialect("hydra", text, "hydra.yaml")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("text", ["", "[]", "a", "title: [", "\x00", "title: *x"])
def test_junk_is_one_clear_error(text):
    with pytest.raises(SpecError):
        read_dialect("junk", text, "junk.yaml")


def test_the_documented_example_is_read():
    page = (Path(__file__).parents[2] / "docs" / "launchers.md").read_text()
    example = page.partition("```yaml")[2].partition("```")[0]
    assert read_dialect("some", example, "docs/launchers.md").title == "Some MPI"
    for meaning in MEANINGS:
        assert f"`{meaning}`" in page, "every meaning is explained"
    for key in Definition.__struct_fields__:
        assert f"`{key}`" in page or f"\n{key}:" in example, "every key is explained"


def test_symbols_are_filled_in_wherever_a_definition_puts_them():
    """But not in words of the job, which may hold the same text."""
    text = HYDRA.replace('[-f, "{hostfile}"]', '["--hosts={hostfile}"]').replace(
        "  output: [-l]", '  container: [--mounts, "{mounts}", "--in={image}@{directory}"]'
    )
    made = slurm_plan(
        'command: [prog, "--x={run_dir}"]\nlauncher_args: ["--y={run_dir}", "{run_dir}/z"]\n'
        "resources: {hosts: {n1: 2, n2: 1}}\nenvironment: {container: a.sif}\n",
        dialect=read_dialect("hydra", text, "hydra.yaml"),
        pair=LauncherPair(name="hydra", version="5.0", program="/opt/bin/mpiexec"),
        container_tool="pyxis",
    )
    assert made.hostfile == "n1:2\nn2:1\n"
    argv = fill(made, run_dir="/r", hostfile="/r/hosts").argv
    for word in (
        "--hosts=/r/hosts",
        "/r:/r,/home/ada/camvid:/home/ada/camvid",
        "--in=/home/ada/camvid/a.sif@/home/ada/camvid",
        *("--y={run_dir}", "/r/z", "--x={run_dir}"),
    ):
        assert word in argv
    # A line that a person made shorter keeps the command as it is.
    assert filled_line(argv[-2:], made, {"{run_dir}": "/other"}) == argv[-2:]
