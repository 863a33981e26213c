"""What a plan holds: golden texts, refusals, and how symbols are filled."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import clusterseg.plan
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import Host, Plan
from clusterseg.plan.planner import fill
from clusterseg.plan.symbols import filled_line
from tests.plan import golden_plans
from tests.plan.plans import HERE, PAIRS, job, plan, shipped, slurm_plan

TRAIN = "train: {model: {name: unet}, data: {format: camvid, root: d}}\n"


@pytest.mark.parametrize("name", sorted(golden_plans.texts()))
def test_golden(name):
    """If a change is meant: python -m tests.plan.golden_plans, and look at the difference."""
    assert golden_plans.texts()[name] == (golden_plans.FOLDER / name).read_text()


def test_no_golden_plan_is_left_over():
    assert {file.name for file in golden_plans.FOLDER.iterdir()} == set(golden_plans.texts())


def test_plan_survives_json():
    made = plan(TRAIN + "resources: {ranks: 2, hosts: {login1: 2}}\n")
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


def test_fill_replaces_symbols_everywhere_but_in_the_users_own_words():
    made = plan(
        """
command: [prog, "{run_dir}", "{hostfile}"]
environment: {variables: {A: "{hostfile}", B: "{run_dir}"}}
resources: {hosts: {n1: 1, n2: 1}}
"""
    )
    filled = fill(made, run_dir="/runs/it's here", hostfile="/runs/hosts")
    start = filled.argv.index("train")
    assert filled.argv[start:] == (
        "train",
        "/runs/it's here",
        "--",
        "prog",
        "{run_dir}",
        "{hostfile}",
    )
    assert filled.argv[filled.argv.index("--hostfile") + 1] == "/runs/hosts"
    assert filled.environment["A"] == "{hostfile}"
    assert filled.environment["B"] == "{run_dir}"
    assert "attempt '/runs/it'\"'\"'s here' --" in filled.script
    assert "--hostfile /runs/hosts" in filled.script


def test_filling_in_two_steps_is_filling_at_once():
    made = plan("resources: {hosts: {n1: 1, n2: 1}}\n")
    first = fill(made, run_dir="/runs/a b")
    assert "'{hostfile}'" in first.script
    assert fill(first, hostfile="/h") == fill(made, run_dir="/runs/a b", hostfile="/h")


@pytest.mark.parametrize("launcher", ["openmpi4", "openmpi5", "mpich", "intelmpi"])
def test_the_launcher_writes_files_where_it_is_asked_to(launcher):
    made = plan("resources: {ranks: 2}\nlauncher_output: files\n", launcher)
    filled = filled_line(made.argv, made, {"{launcher_folder}": "/r/attempts/000/launcher"})
    assert any("/r/attempts/000/launcher" in word for word in filled)
    assert not any("launcher_folder" in word for word in filled)
    assert fill(made, run_dir="/r").run_dir == "/r"
    for odd in ("/a%b", "/a:b", "/a,b", "/a\\b"):
        with pytest.raises(ClustersegError, match="mean something to launchers"):
            fill(made, run_dir=odd)
        assert fill(plan(launcher=launcher), run_dir=odd).run_dir == odd


def test_a_launcher_that_writes_no_files_says_so():
    with pytest.raises(ClustersegError, match="local writes no file a rank") as caught:
        plan("launcher_output: files\n", "local")
    assert "clusterseg logs" in str(caught.value.help)


def test_as_root_the_flag_is_added_and_said_or_refused():
    made = plan(as_root=True)
    assert "--allow-run-as-root" in made.argv
    assert any("root" in warning for warning in made.warnings)
    assert "--allow-run-as-root" not in plan(as_root=False).argv
    with pytest.raises(ClustersegError, match="allow_root is false"):
        plan("placement: {allow_root: false}\n", as_root=True)


@pytest.mark.parametrize("launcher", ["openmpi4", "srun"])
def test_a_word_that_ends_the_command_for_a_launcher_is_refused(launcher):
    """mpirun takes what follows it for another program; see tests/launchers/test_environment.py."""
    make = slurm_plan if launcher == "srun" else plan
    with pytest.raises(ClustersegError, match="the word ':' would not arrive") as caught:
        make("command: [python, fit.py, ':', x]\n", launcher)
    assert "sh, -c" in caught.value.help
    kept = make("command: [python, fit.py, 'a:b', '::']\n", launcher)
    assert kept.argv[-2:] == ("a:b", "::")


def test_without_a_launcher_a_word_is_a_word():
    made = plan("command: [python, fit.py, ':']\nresources: {ranks: 1}\n", "local")
    assert made.argv[-1] == ":"


def test_what_comes_later_is_refused_all_at_once():
    with pytest.raises(ClustersegError) as caught:
        devices = "accelerator: hpu, accelerators_per_rank: 2"
        plan(TRAIN + f"resources: {{memory: 4G, {devices}}}\nenvironment: {{container: a}}\n")
    said = caught.value.render()
    assert caught.value.exit_code == ExitCode.USAGE
    for key in ("resources.memory", "resources.accelerators_per_rank", "environment.container"):
        assert key in said
    assert said.count("not there yet") == 3


@pytest.mark.parametrize(
    ("keys", "horovod", "launcher", "communicator"),
    [
        ("resources: {ranks: 2}", True, "openmpi5", "horovod"),
        ("resources: {ranks: 2}", False, "openmpi5", "mpi"),
        ("resources: {ranks: 1}", True, "openmpi5", "solo"),
        ("resources: {ranks: 1}", False, "local", "solo"),
    ],
)
def test_auto_communicator(keys, horovod, launcher, communicator):
    assert plan(TRAIN + keys, launcher, horovod=horovod).communicator == communicator


def test_communicator_of_a_command_is_its_own_business():
    assert plan("resources: {ranks: 2}\n").communicator == "none"


@pytest.mark.parametrize(
    ("communicator", "ranks", "launcher", "why"),
    [
        ("solo", 2, "openmpi5", "solo is for one rank, but ranks = 2"),
        ("horovod", 2, "openmpi5", "Horovod is not installed for openmpi5 5.0.11"),
        ("mpi", 1, "local", "needs an MPI"),
        ("mpi", 2, "local", "needs an MPI"),
        ("auto", 2, "local", "local has no MPI, by which the 2 ranks of a training talk"),
    ],
)
def test_communicator_that_can_not_be(communicator, ranks, launcher, why):
    keys = TRAIN.replace("}}\n", f"}}, communicator: {communicator}}}\n")
    with pytest.raises(ClustersegError, match=why):
        plan(f"{keys}resources: {{ranks: {ranks}}}\n", launcher)


@pytest.mark.parametrize("key", ["command", "launcher_args"])
def test_a_word_that_no_process_can_be_given_is_refused(key):
    """Linux takes 131,072 bytes with the NUL at its end (execve(2), MAX_ARG_STRLEN)."""
    for launcher in ("openmpi4", "local"):
        plan(f"{key}: [{'é' * 65_535}x]\n", launcher)
        with pytest.raises(ClustersegError, match=f"{key}: a word is 131072 bytes long"):
            plan(f"{key}: [{'é' * 65_536}]\n", launcher)


@pytest.mark.parametrize(
    ("keys", "launcher", "why"),
    [
        ("resources: {hosts: {elsewhere: 1}}", "local", "on this host alone"),
        ("placement: {map_by: numa, bind_to: socket}", "openmpi5", "can't bind to socket"),
        (
            "placement: {map_by: node}\nresources: {hosts: {login1: 2, n2: 1}}",
            "openmpi5",
            "can't map unequal hosts by node",
        ),
    ],
)
def test_what_a_launcher_can_not_do_is_refused(keys, launcher, why):
    with pytest.raises(ClustersegError, match=why):
        plan(keys + "\n", launcher)


LAUNCHERS = ("openmpi4", "openmpi5", "srun", "local")


@pytest.mark.parametrize(
    ("keys", "launcher", "help"),
    [
        (
            "placement: {map_by: numa, bind_to: socket}",
            "openmpi5",
            "it can: core, numa, none; launchers that can: openmpi4, local",
        ),
        (
            "placement: {map_by: numa}",
            "srun",
            "it can: core, socket, node; launchers that can: openmpi4, openmpi5, local",
        ),
        (
            "placement: {map_by: core, bind_to: socket}",
            "openmpi4",
            "it can: core, none; launchers that can: srun, local",
        ),
        # Plain processes are no launcher of other hosts, nor of ranks that need an MPI.
        (
            "placement: {map_by: core, bind_to: socket}\n" + TRAIN + "resources: {ranks: 2}",
            "openmpi4",
            "it can: core, none; launchers that can: srun",
        ),
        (
            "resources: {hosts: {elsewhere: 1}}",
            "local",
            "launchers that can: openmpi4, openmpi5, srun",
        ),
    ],
)
def test_a_refusal_says_which_launchers_can(keys, launcher, help):
    with pytest.raises(ClustersegError) as caught:
        plan(keys + "\n", launcher, launchers=lambda: {name: shipped(name) for name in LAUNCHERS})
    assert str(caught.value.help).endswith(help)


@pytest.mark.parametrize(
    ("keys", "host"),
    [
        ("placement: {map_by: core, bind_to: socket}", Host(name="n", cores=8, here=True)),
        (
            "placement: {map_by: socket, bind_to: numa}",
            Host(name="n", cores=8, sockets=2, numa_nodes=2, here=True),
        ),
    ],
)
def test_where_there_is_only_one_to_bind_to_open_mpi_5_can(keys, host):
    keys = f"resources: {{ranks: 2}}\n{keys}\n"
    assert "--bind-to" in plan(keys, hosts=[host]).argv
    wide = Host(name="n", cores=8, sockets=2, numa_nodes=4, here=True)
    with pytest.raises(ClustersegError, match="which has several"):
        plan(keys, hosts=[wide])


NARROW = Host(
    name="login1",
    cores=8,
    sockets=2,
    shape=((4,), (4,)),
    own_cores=(4, 5, 6, 7, 20, 21, 22, 23),
    here=True,
)


def test_open_mpi_5_is_told_the_cores_of_an_affinity():
    argv = plan("resources: {ranks: 4}\n", hosts=[NARROW]).argv
    at = argv.index("hwloc_default_cpu_list")
    assert argv[at - 1 : at + 2] == ("--prtemca", "hwloc_default_cpu_list", "4-7,20-23")
    unbound = plan("resources: {ranks: 4}\nplacement: {bind_to: none}\n", hosts=[NARROW])
    assert "hwloc_default_cpu_list" not in unbound.argv
    assert "hwloc_default_cpu_list" not in plan("resources: {ranks: 4}\n").argv


@pytest.mark.parametrize("launcher", ["intelmpi", "local"])
def test_some_heed_an_affinity_by_themselves(launcher):
    assert plan("resources: {ranks: 4}\n", launcher, hosts=[NARROW]).ranks == 4


@pytest.mark.parametrize(
    ("launcher", "host", "far"),
    [
        ("openmpi4", NARROW, ""),
        ("mpich", NARROW, ""),
        ("openmpi5", replace(NARROW, own_cores=()), ""),
        ("openmpi5", NARROW, ", n2: 2"),
    ],
)
def test_an_affinity_that_a_launcher_would_not_heed(launcher, host, far):
    keys = f"resources: {{hosts: {{login1: 2{far}}}, cpus_per_rank: 1}}\n"
    with pytest.raises(ClustersegError, match="heeds a cpuset, but not the affinity") as caught:
        plan(keys, launcher, hosts=[host])
    assert "it can: none" in str(caught.value.help)
    assert plan(keys + "placement: {bind_to: none}\n", launcher, hosts=[host]).ranks


@pytest.mark.parametrize(
    ("ranks", "cpus", "warning"),
    [
        (3, 10, "the cores of a rank would lie on several sockets: ranks are not bound"),
        (40, 1, "ranks share cores: they are not bound, and each will be slower"),
    ],
)
def test_what_oversubscribing_comes_to_is_said(ranks, cpus, warning):
    made = plan(
        f"resources: {{ranks: {ranks}, cpus_per_rank: {cpus}}}\n"
        "placement: {oversubscribe: true}\n"
    )
    assert warning in made.warnings
    assert made.argv[made.argv.index("--bind-to") + 1] == "none"


def test_the_only_rank_of_a_host_of_two_sockets_is_not_bound():
    """No socket has 32 cores: `socket:PE=32` is refused by every Open MPI."""
    made = plan("resources: {ranks: 1}\n")
    assert made.threads == 32
    assert made.argv[made.argv.index("--bind-to") + 1] == "none"
    assert "PE=" not in " ".join(made.argv)


@pytest.mark.parametrize("name", ["n1; touch x", "-n1", "n1\n", "$(id)", "n 1", "", "{hostfile}"])
def test_a_host_that_is_no_host_name_is_refused(name):
    with pytest.raises(ClustersegError, match="not a host name"):
        plan(hosts=[Host(name=name, cores=1, here=True)])


@pytest.mark.parametrize(
    "hosts",
    ["{n1: 2, n1.site.org: 2}", "{n1: 2, N1: 2}", "{n1.site.org: 2, n2: 1, N1.site.org: 2}"],
)
def test_a_host_by_two_names_is_refused(hosts):
    with pytest.raises(ClustersegError, match="the same host"):
        plan(f"resources: {{hosts: {hosts}}}\n")


def test_open_mpi_4_can_bind_to_the_socket_of_a_numa_node():
    argv = plan("placement: {map_by: numa, bind_to: socket}\n", "openmpi4").argv
    assert argv[argv.index("--bind-to") + 1 :][:3] == ("socket", "--map-by", "numa")


@pytest.mark.parametrize(
    ("ranks", "cpus", "fits"),
    [(6, 5, 4), (10, 3, 2), (5, 5, 4), (6, 3, None), (4, 5, None), (4, 8, None), (2, 12, None)],
)
def test_intel_mpi_can_not_take_the_rests_of_two_numa_nodes(ranks, cpus, fits):
    """As 2021.18 was seen to pin on 2 sockets of 2 nodes of 8 cores."""
    host = Host(name="login1", cores=32, sockets=2, numa_nodes=4, here=True)
    keys = f"resources: {{ranks: {ranks}, cpus_per_rank: {cpus}}}\n"
    if fits is None:
        assert plan(keys, "intelmpi", hosts=[host]).environment["I_MPI_PIN_DOMAIN"] == str(cpus)
        return
    with pytest.raises(ClustersegError, match=f"cpus_per_rank: {fits} it does not") as caught:
        plan(keys, "intelmpi", hosts=[host], launchers=lambda: {"mpich": shipped("mpich")})
    assert "launchers that can: mpich" in str(caught.value.help)
    fitting = f"resources: {{ranks: {ranks}, cpus_per_rank: {fits}}}\n"
    assert plan(fitting, "intelmpi", hosts=[host]).ranks == ranks


def test_threads_are_the_cores_of_a_rank_and_a_users_value_wins():
    made = plan("resources: {ranks: 8}\n")
    assert made.threads == 4
    assert made.environment["OMP_NUM_THREADS"] == "4"
    own = plan("resources: {ranks: 8}\nenvironment: {variables: {OMP_NUM_THREADS: 2}}\n")
    assert own.environment["OMP_NUM_THREADS"] == "2"


def test_ranks_yield_only_where_they_share_cores():
    yielding = "OMPI_MCA_mpi_yield_when_idle"
    assert yielding not in plan("resources: {ranks: 32}\n").environment
    shared = plan("resources: {ranks: 33}\nplacement: {oversubscribe: true}\n")
    assert shared.environment[yielding] == "1"
    assert yielding in shared.argv, "ranks on other hosts get it too"


@pytest.mark.parametrize("name", ["openmpi4", "openmpi5"])
def test_a_rank_that_loses_another_waits_before_it_aborts(name):
    delay = "OMPI_MCA_opal_abort_delay"
    made = plan("resources: {ranks: 2}\n", name)
    assert made.environment[delay] == "2"
    assert delay in made.argv, "ranks on other hosts get it too"


def test_asking_for_oversubscription_where_there_is_room_changes_nothing():
    keys = "resources: {ranks: 8}\n"
    assert plan(keys + "placement: {oversubscribe: true}\n").argv == plan(keys).argv


def test_every_variable_is_passed_on_by_name():
    made = plan("resources: {ranks: 2}\nenvironment: {variables: {A: 1, B: two}}\n")
    passed = [name for flag, name in zip(made.argv, made.argv[1:], strict=False) if flag == "-x"]
    assert set(made.environment) < set(passed)
    assert {"CLUSTERSEG_RUN_DIR", "CLUSTERSEG_ATTEMPT", "CLUSTERSEG_STOP_FILE"} < set(passed)
    assert len(passed) == len(set(passed))


@pytest.mark.parametrize("name", ["PMI_RANK", "OMPI_COMM_WORLD_SIZE", "SLURM_PROCID"])
def test_what_a_launcher_tells_each_rank_can_not_be_said(name):
    with pytest.raises(ClustersegError, match="is what a launcher tells each rank") as caught:
        plan(f"environment: {{variables: {{{name}: 0}}}}\n")
    assert caught.value.code == "environment"


def test_a_value_is_refused_exactly_where_no_process_can_be_given_it():
    """The kernel counts the name, the sign, the value and the byte that ends it, in UTF-8."""
    room = 131_072 - len("LONG=") - 1
    for longest in ("x" * room, "é" * (room // 2)):
        spec = job(f"environment: {{variables: {{LONG: {longest}}}}}\n")
        value = plan(spec).environment["LONG"]
        assert subprocess.run(["true"], env={"LONG": value}, check=False).returncode == 0
        with pytest.raises(ClustersegError, match="131073 bytes") as caught:
            plan(job(f"environment: {{variables: {{LONG: {longest}x}}}}\n"))
        assert caught.value.code == "environment"
        with pytest.raises(OSError, match="too long"):
            subprocess.run(["true"], env={"LONG": value + "x"}, check=False)


@pytest.mark.parametrize("name", ["TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"])
def test_credentials_are_kept_out_of_plans(name):
    with pytest.raises(ClustersegError, match="looks like a credential"):
        plan(f"environment: {{variables: {{{name}: abc}}}}\n")


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "KEYBOARD", "SSH_KEYGEN"])
def test_other_names_are_no_credentials(name):
    assert name in plan(f"environment: {{variables: {{{name}: abc}}}}\n").environment


def test_relocated_mpi_keeps_its_prefix():
    pair = msgspec.structs.replace(PAIRS["openmpi5"], prefix="/home/ada/env")
    assert plan(pair=pair).environment["OPAL_PREFIX"] == "/home/ada/env"
    assert "OPAL_PREFIX" not in plan().environment


def test_planning_ten_thousand_ranks():
    named = "".join(f"    h{number}: {7 + number % 3}\n" for number in range(1250))
    spec = job(f"resources:\n  cpus_per_rank: 1\n  hosts:\n{named}")
    hosts = [HERE, *(Host(name=f"h{number}", cores=16) for number in range(1250))]
    made = plan(spec, hosts=hosts)
    assert made.ranks == sum(7 + number % 3 for number in range(1250))
    assert made.hostfile is not None
    assert made.hostfile.splitlines()[-1] == "h1249 slots=8"
    assert len(made.script) < 10_000, "hosts are in the host file, not in the script"


ALLOWED = {
    *("__future__", "collections", "contextlib", "dataclasses", "heapq", "msgspec", "re"),
    *("fnmatch", "functools", "ipaddress", "shlex", "typing"),
}
# Of spec, the parts that read files stay out: text is passed in.
ALLOWED_OWN = ("clusterseg.errors", "clusterseg.hostlist", "clusterseg.plan", "clusterseg.spec")


def test_plan_is_pure():
    """No module of plan imports anything that reads a file, a clock, the environment or a pipe."""
    for file in Path(clusterseg.plan.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                modules = [node.module or ""]
                if node.module == "clusterseg":
                    assert [alias.name for alias in node.names] == ["__version__"]
                    continue
            else:
                called = (
                    node.func.id
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                    else ""
                )
                assert called not in ("open", "exec", "eval", "__import__", "print", "input"), file
                continue
            for module in modules:
                own = module.startswith(ALLOWED_OWN) and module != "clusterseg.spec.reader"
                assert own or module.split(".")[0] in ALLOWED & sys.stdlib_module_names | {
                    "msgspec"
                }, f"{file.name} imports {module}"


def test_shipped_definitions_are_those_that_plans_are_made_with():
    for name in PAIRS:
        assert shipped(name).name == name
