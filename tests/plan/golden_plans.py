"""The plans that tests/plan/golden holds as text; run as a program it writes them anew.

python -m tests.plan.golden_plans
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from clusterseg import __version__
from clusterseg.errors import ClustersegError
from clusterseg.plan.bare_script import bare_script
from clusterseg.plan.model import Host, Plan
from clusterseg.plan.words import describe
from clusterseg.shipped import shipped_folder
from clusterseg.spec.frozen import frozen_overrides
from clusterseg.spec.reader import parse_job
from tests.plan.plans import HERE, SITE, inner, plan, site, slurm_plan

FOLDER = Path(__file__).parent / "golden"

_TRAIN = """
train:
  model: {name: fastscnn, classes: 11}
  data: {format: camvid, root: data/camvid}
"""
_TWO = (
    Host(name="n1", cores=32, sockets=2, numa_nodes=2, here=True),
    Host(name="n2", cores=32, sockets=2, numa_nodes=2),
)

MPIRUNS = ("openmpi4", "openmpi5", "mpich", "intelmpi", "spectrum")
# The cases of one host that differ in nothing but where ranks go, for srun and plain processes too.
LAYOUTS = ("bound", "bound-to-socket", "bound-to-numa", "numa-by-numa", "by-core", "unbound")

# name -> (the job's further keys, hosts, as root)
CASES: dict[str, tuple[str, tuple[Host, ...], bool]] = {
    "equal": (_TRAIN + "resources: {nodes: 2, ranks_per_node: 4}\n", _TWO, False),
    "unequal": (_TRAIN + "resources: {hosts: {n1: 4, n2: 2}, cpus_per_rank: 4}\n", _TWO, False),
    # The launch of the Habana recipe: 8 workers on 32 cores in 2 sockets.
    "bound": (_TRAIN + "resources: {ranks: 8, cpus_per_rank: auto}\n", (HERE,), False),
    "bound-to-numa": (
        _TRAIN + "resources: {ranks: 4}\nplacement: {map_by: socket, bind_to: numa}\n",
        (HERE,),
        False,
    ),
    "bound-to-socket": (
        _TRAIN + "resources: {ranks: 4}\nplacement: {bind_to: socket}\n",
        (HERE,),
        False,
    ),
    "numa-by-numa": (
        _TRAIN + "resources: {ranks: 4}\nplacement: {map_by: numa, bind_to: numa}\n",
        (HERE,),
        False,
    ),
    "by-core": (
        _TRAIN + "resources: {ranks: 8}\nplacement: {map_by: core}\n",
        (HERE,),
        False,
    ),
    "by-node": (
        _TRAIN + "resources: {nodes: 2, ranks_per_node: 4}\nplacement: {map_by: node}\n",
        _TWO,
        False,
    ),
    "by-node-unequal": (
        _TRAIN
        + "resources: {hosts: {n1: 4, n2: 2}, cpus_per_rank: 4}\nplacement: {map_by: node}\n",
        _TWO,
        False,
    ),
    # Hosts that are only named: the launcher reaches all of them by ssh.
    "far": (_TRAIN + "resources: {hosts: {n3: 2, n4: 1}, cpus_per_rank: 8}\n", (HERE,), False),
    "files": (_TRAIN + "resources: {ranks: 2}\nlauncher_output: files\n", (HERE,), False),
    "threads": (
        _TRAIN + "resources: {ranks: 4}\n",
        (Host(name="login1", cores=16, sockets=2, threads_per_core=2, here=True),),
        False,
    ),
    "unbound": (
        _TRAIN + "resources: {ranks: 8}\nplacement: {map_by: core, bind_to: none, verify: off}\n",
        (HERE,),
        False,
    ),
    "oversubscribed": (
        _TRAIN + "resources: {ranks: 64}\nplacement: {oversubscribe: true}\n",
        (HERE,),
        False,
    ),
    "oversubscribed-hosts": (
        _TRAIN + "resources: {hosts: {n1: 40, n2: 4}}\nplacement: {oversubscribe: true}\n",
        _TWO,
        False,
    ),
    "root": (_TRAIN + "resources: {nodes: 1, ranks_per_node: 2}\n", (HERE,), True),
    "everything": (
        """
command: [python, "my program.py", --title, "it's $(date)", "{run_dir}"]
resources: {ranks: 2, time: 12:00:00}
launcher_args: [--mca, btl, "self,vader"]
environment:
  modules: [cuda/12, "odd name"]
  variables: {GREETING: "a 'b' \\"c\\" $HOME `id`", LINES: "1\\n2", OMP_NUM_THREADS: "3"}
  setup:
    - source ~/env.sh
    - ulimit -s unlimited
""",
        (HERE,),
        False,
    ),
}


_TOPAZ = (shipped_folder("slurm") / "sites" / "topaz.yaml").read_text()
_BARE = """name: demo
command: [python, fit.py, "${DATA}"]
notes: |
  JOB_YAML
  it's $(date)
resources: {nodes: 2, ranks_per_node: 1}
"""


def _slurm() -> dict[str, Plan]:
    """The same for Slurm, most with srun."""
    two = _TRAIN + "resources: {nodes: 2, ranks_per_node: 4, time: 12:00:00}\n"
    named = _TRAIN + "resources: {hosts: {n1: 4, n2: 2}, cpus_per_rank: 2}\n"
    image = 'environment: {container: images/tf.sif, variables: {A: "1"}}\n'
    command = "command: [python, fit.py]\n"
    everything = """
command: [python, "my program.py", "it's $(date)", "{run_dir}"]
resources: {nodes: 4, ranks_per_node: 2, accelerator: cuda, memory: 64G, time: 1-12:30}
launcher_args: [--verbose]
slurm: {partition: "gpu,cpu", account: "x=y", constraint: "[a*2&b|c]", qos: low, after: demo-1,
        array: "0-7%2", extra: [--exclusive, --mail-type=END]}
environment:
  modules: [cuda/12, "odd name"]
  variables: {GREETING: "a 'b' $HOME"}
  setup: [source ~/env.sh]
restart: {preemption: 0, time_limit: 0, node: 0}
"""
    per_task = site(SITE + "gpus: gpus-per-task\ngres: {cuda: gpu:v100}\noptions: [--exclusive]\n")
    own = site(SITE + "modules: [slurm]\nsetup: ['ulimit -c 0']\nscratch: /scratch\n")
    gpus = command + "resources: {nodes: 1, ranks_per_node: 4, accelerator: cuda}\n"
    return {
        "srun-equal": slurm_plan(two),
        "srun-threads": slurm_plan(two + "slurm: {partition: ht}\n"),
        "srun-unequal": slurm_plan(_TRAIN + "resources: {nodes: 2, ranks: 7}\n"),
        "srun-named": slurm_plan(named),
        "srun-oversubscribed": slurm_plan(
            _TRAIN + "resources: {ranks: 64}\nplacement: {oversubscribe: true, verify: off}\n"
        ),
        "srun-everything": slurm_plan(everything, at=own),
        "srun-gpus-per-task": slurm_plan(gpus + "slurm: {partition: gpu}\n", at=per_task),
        "srun-pyxis": slurm_plan(command + image, container_tool="pyxis"),
        "srun-apptainer": slurm_plan(command + image, at=own, container_tool="apptainer"),
        "srun-apptainer-gpus": slurm_plan(gpus + image, container_tool="apptainer"),
        "srun-apptainer-train": slurm_plan(_TRAIN + image, container_tool="apptainer"),
        "srun-nothing-known": slurm_plan(
            "resources: {ranks: 4}\n", at=site("title: any Slurm\n", "generic")
        ),
        "srun-topaz": slurm_plan(
            gpus.replace("ranks_per_node: 4", "ranks_per_node: 2"),
            at=site(_TOPAZ, "topaz"),
        ),
        "srun-by-node": slurm_plan(two + "placement: {map_by: node}\n"),
        "srun-named-by-node": slurm_plan(named + "placement: {map_by: node}\n"),
        "srun-files": slurm_plan(two + "launcher_output: files\n"),
        **{f"{name}-equal": slurm_plan(two, name) for name in MPIRUNS},
        **{f"{name}-named": slurm_plan(named, name, as_root=True) for name in MPIRUNS},
        "mpich-by-node": slurm_plan(two + "placement: {map_by: node}\n", "mpich"),
        "intelmpi-threads": slurm_plan(two + "slurm: {partition: ht}\n", "intelmpi"),
        "openmpi5-spot": slurm_plan(two + "slurm: {partition: spot}\n", "openmpi5"),
        "local": slurm_plan("resources: {cpus_per_rank: 4}\n", "local"),
    }


def _bare() -> str:
    spec = parse_job(_BARE, "job.yaml", environ={"DATA": "/data/a b"}).spec
    overrides = frozen_overrides(_BARE, ["name=demo"], {"DATA": "/data/a b"})
    return bare_script(slurm_plan(spec), _BARE, overrides, "/home/ada/runs").replace(
        f"clusterseg {__version__}", "clusterseg VERSION"
    )


def as_text(made: Plan) -> str:
    """A plan as it is shown: what is said about it, its script and its host file."""
    script = made.script.replace(f"clusterseg {__version__}", "clusterseg VERSION")
    hostfile = f"\n--- hostfile\n{made.hostfile}" if made.hostfile else ""
    return f"{describe(made)}\n--- script\n{script}{hostfile}"


def _text(make: Callable[[], Plan]) -> str:
    """The text of a plan; of one that can't be, what the launcher can't say, and can instead."""
    try:
        return as_text(make())
    except ClustersegError as error:
        return error.render() + "\n"


@cache
def texts() -> dict[str, str]:
    made = {}
    for launcher in (*MPIRUNS, "horovodrun"):
        called = inner("openmpi5") if launcher == "horovodrun" else None
        for name, (keys, hosts, as_root) in CASES.items():
            made[f"{launcher}-{name}.txt"] = _text(
                partial(plan, keys, launcher, hosts=hosts, as_root=as_root, inner=called)
            )
    for name in LAYOUTS:
        keys = CASES[name][0]
        made[f"slurm-srun-{name}.txt"] = _text(partial(slurm_plan, keys))
        made[f"local-{name}.txt"] = _text(partial(plan, keys.removeprefix(_TRAIN), "local"))
    made["local-one-rank.txt"] = as_text(plan(_TRAIN, "local"))
    made["local-everything.txt"] = as_text(plan(CASES["everything"][0], "local"))
    made |= {f"slurm-{name}.txt": as_text(planned) for name, planned in _slurm().items()}
    made["slurm-bare.txt"] = _bare()
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
