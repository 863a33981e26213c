"""What is asked of Slurm, what is refused before it is asked, and what a person is warned of."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import CodeSource, Plan
from clusterseg.plan.planner import fill, place
from clusterseg.plan.sbatch_words import set_by_key
from clusterseg.plan.slurm_options import notice_lead
from clusterseg.plan.words import describe
from clusterseg.spec.errors import SpecError
from tests.plan.plans import SITE, job, plan, site, slurm_plan


def options(made: Plan) -> dict[str, str]:
    assert made.slurm is not None
    pairs = [option.partition("=") for option in made.slurm.options]
    assert len({name for name, _, _ in pairs}) == len(pairs), "none is said twice"
    return {name: value for name, _, value in pairs}


def refusal(text: str, **other: object) -> ClustersegError:
    with pytest.raises(ClustersegError) as caught:
        slurm_plan(text, **other)  # type: ignore[arg-type]
    return caught.value


@settings(deadline=None)
@given(
    ranks=st.integers(2, 70),
    nodes=st.none() | st.integers(1, 6),
    cores=st.none() | st.integers(1, 40),
    cpus=st.none() | st.integers(1, 8),
)
def test_a_person_reads_words_for_nodes_that_have_no_name_yet(
    ranks: int, nodes: int | None, cores: int | None, cpus: int | None
) -> None:
    known = "{}" if cores is None else f"{{cores: {cores}}}"
    at = site(f"title: x\npartitions: {{p: {known}}}\ndefault_partition: p\n")
    asked = {"ranks": ranks, "nodes": nodes, "cpus_per_rank": cpus}
    text = ", ".join(f"{key}: {value}" for key, value in asked.items() if value is not None)
    try:
        made = slurm_plan(f"resources: {{{text}}}\n", at=at)
    except ClustersegError as error:
        said = f"{error.message} {error.help}"
    else:
        said = describe(made)
        assert f"{made.geometry.nodes} node" in said
        with pytest.raises(ClustersegError) as caught:
            place(made, [])
        said += caught.value.message
    assert "{host" not in said


def test_equal_and_unequal_nodes_in_words() -> None:
    equal = describe(slurm_plan("resources: {nodes: 2, ranks_per_node: 4, cpus_per_rank: 1}\n"))
    assert "hosts: 2 nodes that Slurm chooses, 4 ranks on each\n" in equal
    unequal = describe(slurm_plan("resources: {nodes: 3, ranks: 7, cpus_per_rank: 1}\n"))
    assert "3 ranks on 1 node, 2 ranks on 2 nodes\n" in unequal
    unknown = describe(slurm_plan("resources: {nodes: 2}\n", at=site("title: x\n")))
    assert "the cores of the nodes are not known" in unknown


@settings(deadline=None)
@given(
    nodes=st.integers(1, 40),
    per_node=st.integers(2, 64),
    cpus=st.none() | st.integers(1, 8),
    extra=st.integers(0, 39),
)
def test_there_is_room_for_the_ranks_of_every_node(
    nodes: int, per_node: int, cpus: int | None, extra: int
) -> None:
    """Whatever the geometry, the nodes that Slurm gives hold it, in any order of equal nodes."""
    at = site("title: x\npartitions: {p: {cores: 512}}\ndefault_partition: p\n")
    ranks = nodes * per_node - min(extra, nodes - 1)
    given_cpus = "" if cpus is None else f", cpus_per_rank: {cpus}"
    made = slurm_plan(f"resources: {{nodes: {nodes}, ranks: {ranks}{given_cpus}}}\n", at=at)
    asked = {name: int(value) for name, value in options(made).items() if value.isdigit()}
    assert asked["--nodes"] == nodes == len(made.hosts)
    assert asked["--ntasks"] == asked["--nodes"] * asked["--ntasks-per-node"]
    assert asked["--cpus-per-task"] == made.geometry.cpus_per_rank
    for count in made.hosts.values():
        assert count <= asked["--ntasks-per-node"]
    assert sum(made.hosts.values()) == ranks
    assert f"--ntasks={ranks}" in made.argv
    assert (made.hostfile is None) == (len(set(made.hosts.values())) == 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resources: {time: 1-00:01:00}", "resources.time: 1-00:01:00, but the partition cpu"),
        ("resources: {nodes: 9}", "resources.nodes: 9, but the partition cpu of Example allows 8"),
        ("resources: {memory: 241G}", "resources.memory: 241G, but a node of the partition cpu"),
        (
            "resources: {ranks_per_node: 5, accelerator: cuda}\nslurm: {partition: gpu}",
            "5 a node, but a node of the partition gpu of Example has 4",
        ),
        ("resources: {ranks_per_node: 33}", "ranks × cpus_per_rank"),
        ("resources: {ranks_per_node: 8, cpus_per_rank: 5}", "but a node has 32 cores"),
    ],
)
def test_what_the_profile_knows_to_be_impossible_is_refused(text: str, said: str) -> None:
    error = refusal(text + "\n")
    assert said in error.message or "33" in error.message
    assert error.exit_code == 2
    assert error.help


def test_what_the_profile_does_not_know_is_left_to_slurm() -> None:
    for partition in ("other", "cpu,gpu"):
        made = slurm_plan(f"slurm: {{partition: '{partition}'}}\nresources: {{time: 30-00}}\n")
        assert options(made)["--partition"] == partition
    assert slurm_plan("slurm: {partition: gpx}\n").warnings[-1] == (
        "the profile example knows no partition gpx; did you mean gpu?"
    )


def test_the_job_is_asked_before_the_partition_before_the_site() -> None:
    assert options(slurm_plan(""))["--account"] == "abc"
    gpu = slurm_plan("slurm: {partition: gpu}\n")
    assert (options(gpu)["--account"], options(gpu)["--qos"]) == ("gpus", "fast")
    own = slurm_plan("slurm: {partition: gpu, account: me, qos: low}\n")
    assert (options(own)["--account"], options(own)["--qos"]) == ("me", "low")


@pytest.mark.parametrize(
    ("style", "option"),
    [
        ("gres", ("--gres", "gpu:v100:8")),
        ("gpus-per-node", ("--gpus-per-node", "v100:8")),
        ("gpus-per-task", ("--gpus-per-task", "v100:2")),
    ],
)
def test_accelerators_are_asked_for_as_the_site_does(style: str, option: tuple[str, str]) -> None:
    made = slurm_plan(
        "resources: {nodes: 2, ranks_per_node: 4, accelerator: cuda, accelerators_per_rank: 2}\n",
        at=site(f"title: x\ngpus: {style}\ngres: {{cuda: 'gpu:v100'}}\n"),
    )
    assert option in options(made).items()
    assert ("--gpus-per-task=2" in made.argv) == (style == "gpus-per-task")
    # Slurm's options for GPUs would ask for GPUs.
    for kind, of_site in (("hpu", ""), ("npu", "gres: {npu: 'npu:910'}\n")):
        made = slurm_plan(
            f"resources: {{ranks: 2, nodes: 1, accelerator: {kind}}}\n",
            at=site(f"title: x\ngpus: {style}\n{of_site}"),
        )
        assert options(made)["--gres"] == ("hpu:2" if kind == "hpu" else "npu:910:2")
        assert "gpu" not in " ".join((*options(made), *made.argv))


@pytest.mark.parametrize(
    "extra",
    ["--nodes=3", "--nod=3", "--wrap=true", "--parsable", "--test-only", "--array=1", "--hold"],
)
def test_an_option_of_clusterseg_is_not_said_twice(extra: str) -> None:
    error = refusal(f"slurm: {{extra: ['{extra}']}}\n")
    assert error.code == "sbatch-option"
    assert extra in error.message


@pytest.mark.parametrize("extra", ["-N3", "exclusive", "--a b", "--comment='x'", "--a=b#c", ":"])
def test_an_option_is_one_plain_word(extra: str) -> None:
    with pytest.raises(SpecError, match=r"slurm\.extra\.0"):
        job(f'slurm: {{extra: ["{extra}"]}}\n')


def test_other_options_may_be_said_and_replace_the_sites() -> None:
    for word in ("--tasks=3", "--tasks-per-node=3", "--ntasks-per-n=3"):
        assert set_by_key(word) == "resources"
    for word in ("--exclusive", "--mem-per-cpu=2G", "--time-min=10", "--mail-type=END"):
        assert set_by_key(word) is None
    made = slurm_plan(
        "slurm: {extra: ['--mail-type=END', '--exclusive']}\n",
        at=site("title: x\noptions: ['--mail-type=NONE', '--nice=3']\n"),
    )
    assert list(options(made))[-3:] == ["--nice", "--mail-type", "--exclusive"]
    assert options(made)["--mail-type"] == "END"


@pytest.mark.parametrize(
    ("budgets", "word"),
    [
        ("{preemption: 0, time_limit: 0, node: 0}", "--no-requeue"),
        ("{preemption: 0, time_limit: 0, node: 1}", "--requeue"),
        ("{preemption: 0, time_limit: 1, node: 0}", "--requeue"),
        ("{preemption: unlimited, time_limit: 0, node: 0}", "--requeue"),
        ("{preemption: 0, time_limit: 0, node: 0, crash: 5}", "--no-requeue"),
    ],
)
def test_slurm_may_requeue_what_has_a_budget(budgets: str, word: str) -> None:
    made = slurm_plan(f"restart: {budgets}\n")
    assert word in options(made)
    assert made.slurm is not None
    assert made.slurm.requeue == (word == "--requeue")


@pytest.mark.parametrize("limit", [None, 60, 90, 600, 3600, 86400])
def test_the_warning_comes_within_the_limit_and_not_at_its_start(limit: int | None) -> None:
    lead = notice_lead(limit)
    assert 10 <= lead <= 120
    assert limit is None or lead < limit / 2


def test_no_notice_of_preemption_is_said_where_it_costs() -> None:
    spot, told = "slurm: {partition: spot}\n", "slurm: {partition: told}\n"
    (warning,) = slurm_plan(spot, "openmpi5").warnings
    assert warning == (
        "Example gives no notice of preemption in the partition spot; "
        "at most one checkpoint interval is lost"
    )
    assert not slurm_plan(spot, "srun").warnings
    assert not slurm_plan(told, "openmpi5").warnings
    assert not slurm_plan("", "openmpi5").warnings
    (warning,) = slurm_plan("", "openmpi5", at=site(SITE + "preemption_notice: false\n")).warnings
    assert "gives no notice if it preempts a job in the" in warning
    noticed = site(SITE + "preemption_notice: true\n")
    assert not slurm_plan(spot, "openmpi5", at=noticed).warnings


def test_cores_that_are_shared_need_a_number_of_cores() -> None:
    """Without one Slurm is asked for a core a rank, which it may never find."""
    text = "resources: {nodes: 1, ranks: 4, cpus_per_rank: 1}\nplacement: {oversubscribe: true}\n"
    (warning,) = slurm_plan(text, at=site("title: x\n")).warnings
    assert "placement.oversubscribe does nothing" in warning
    assert "4 a node" in warning
    assert "`cores`" in warning
    known = slurm_plan(text, at=site("title: x\ndefault_partition: a\npartitions: {a: {cores: 2}}"))
    assert options(known)["--ntasks"] == "2"
    assert not [one for one in known.warnings if "does nothing" in one]
    for fits in (text.replace("ranks: 4", "ranks: 1"), text.replace("true", "false")):
        assert not slurm_plan(fits, at=site("title: x\n")).warnings


def test_symbols_are_filled_in_where_they_stand() -> None:
    made = slurm_plan("slurm: {after: x}\ncommand: [echo, '{run_dir}', '{output}']\n")
    filled = fill(made, run_dir="/r", output="/r/100%/o", after="17")
    assert options(filled)["--output"] == "/r/100%%/o"
    assert options(filled)["--dependency"] == "afterany:17"
    assert filled.argv[-3:] == ("echo", "{run_dir}", "{output}")
    assert filled.argv[-5] == "/r"
    assert "--dependency" not in options(fill(made, after=""))
    assert "{run_dir}" in fill(made, after="").script
    assert "#SBATCH --output=/r/100%%/o\n" in filled.script


def test_real_hosts_take_the_place_of_symbols() -> None:
    made = slurm_plan("resources: {nodes: 3, ranks: 11}\n")
    placed = place(made, ["x7", "x12", "y1", "spare"])
    assert placed.hosts == {"x7": 4, "x12": 4, "y1": 3} == placed.geometry.hosts
    assert placed.hostfile == "x7\n" * 4 + "x12\n" * 4 + "y1\n" * 3
    with pytest.raises(ClustersegError, match="the hosts x7, x12, but the plan asks for 3"):
        place(made, ["x7", "x12"])
    more = place(slurm_plan("resources: {nodes: 8}\n"), [f"n{n}" for n in range(8)])
    assert list(more.hosts) == [f"n{n}" for n in range(8)]


def test_named_hosts_are_those_of_the_allocation() -> None:
    made = slurm_plan("resources: {hosts: {n2: 1, n1: 3}, cpus_per_rank: 1}\n")
    assert options(made)["--nodelist"] == "n2,n1"
    assert place(made, ["n1.cluster", "N2"]).hosts == {"n2": 1, "n1": 3}
    assert place(made, ["n1", "n2"]).hostfile == "n2\nn1\nn1\nn1\n"
    with pytest.raises(ClustersegError, match="allocation has the hosts n1, n3"):
        place(made, ["n1", "n3"])


def test_a_local_plan_has_its_hosts_already() -> None:
    local = plan("")
    assert place(local, ["other"]) is local


def test_a_container_sees_the_copy_of_the_code() -> None:
    text = "environment: {container: a.sif}\ncode: snapshot\n"
    code = CodeSource(top="/home/ada", directory="/home/ada/camvid")
    for tool in ("apptainer", "pyxis"):
        made = fill(slurm_plan(text, code=code, container_tool=tool), run_dir="/r")
        assert not [word for word in made.argv if "{run_dir}" in word]
        line = " ".join(made.argv)
        assert "/home/ada/camvid/a.sif" in line
        where = "--pwd /r/code/camvid" if tool == "apptainer" else "workdir=/r/code/camvid"
        assert where in line


@pytest.mark.parametrize(
    ("root", "mounted"),
    [
        ("/data/x", "/data/x"),
        ("../sets/x", "/home/ada/sets/x"),
        ("data/x", None),
        ("/home/ada/camvid/data", None),
        ("/scratch/x", None),
    ],
)
def test_a_container_sees_the_data_that_it_trains_on(root: str, mounted: str | None) -> None:
    text = (
        f"train: {{model: {{name: fastscnn, classes: 2}}, data: {{format: camvid, root: {root}}}}}"
        "\nenvironment: {container: a.sif}\n"
    )
    expected = ["/home/ada/camvid", "/scratch", *([mounted] if mounted else [])]
    at = site("title: x\nscratch: /scratch\n")
    argv = slurm_plan(text, at=at, container_tool="apptainer").argv
    binds = [word for flag, word in pairwise(argv) if flag == "--bind"]
    assert binds == ["{run_dir}", *expected]
    made = fill(slurm_plan(text, at=at, container_tool="pyxis"), run_dir="/r")
    assert "--container-mounts=" + ",".join(f"{p}:{p}" for p in ["/r", *expected]) in made.argv
    if mounted:
        said = refusal(text.replace(root, "'/a:b'"), at=at, container_tool="apptainer").message
        assert "/a:b can't be mounted" in said


def test_a_container_sees_the_file_of_weights_that_it_starts_from() -> None:
    text = (
        "train: {model: {name: fastscnn, classes: 2}, data: {format: camvid, root: d}, "
        "initial_weights: ../old/a.hdf5}\nenvironment: {container: a.sif}\n"
    )
    argv = slurm_plan(text, container_tool="apptainer").argv
    binds = [word for flag, word in pairwise(argv) if flag == "--bind"]
    assert binds == ["{run_dir}", "/home/ada/camvid", "/home/ada/old/a.hdf5"]
    # A checkpoint of TensorFlow is several files.
    argv = slurm_plan(text.replace("a.hdf5", "a.ckpt"), container_tool="apptainer").argv
    binds = [word for flag, word in pairwise(argv) if flag == "--bind"]
    assert binds == ["{run_dir}", "/home/ada/camvid", "/home/ada/old"]


def test_containers_want_paths_that_can_be_mounted() -> None:
    text = "environment: {container: a.sif}\n"
    made = slurm_plan(text, container_tool="pyxis")
    (mounts,) = [w for w in fill(made, run_dir="/r").argv if w.startswith("--container-mounts=")]
    assert mounts == "--container-mounts=/r:/r,/home/ada/camvid:/home/ada/camvid"
    assert "MPI4PY_LIBMPI" not in made.environment
    for path in ("/a:b", "/a,b"):
        with pytest.raises(ClustersegError, match="can't be mounted"):
            fill(made, run_dir=path)
        assert "can't be mounted" in refusal(text, directory=path, container_tool="pyxis").message
    assert "can't start ranks" in refusal(text, launcher="openmpi5", container_tool="pyxis").message
    for image in ("docker://python:3", "/images/a.sif"):
        made = slurm_plan(f"environment: {{container: '{image}'}}\n", container_tool="apptainer")
        assert image in made.argv


def test_a_partition_of_several_sockets_is_laid_out_on_them() -> None:
    """3 ranks on 2 × 16 cores: two of them share a socket."""
    made = slurm_plan("resources: {nodes: 1, ranks: 3}\n")
    assert made.geometry.cpus_per_rank == 8
    by_numa = site(SITE.replace("sockets: 2,", "sockets: 2, numa_nodes: 8,"))
    keys = "resources: {nodes: 1, ranks: 3}\nplacement: {map_by: numa}\n"
    assert slurm_plan(keys, "openmpi5", at=by_numa).geometry.cpus_per_rank == 4
