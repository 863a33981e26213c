"""The plans that tests/plan/golden holds as text; run as a program it writes them anew.

python -m tests.plan.golden_plans
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from clusterseg import __version__
from clusterseg.plan.model import Host, Plan
from clusterseg.plan.words import describe
from tests.plan.plans import HERE, plan

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


def as_text(made: Plan) -> str:
    """A plan as it is shown: what is said about it, its script and its host file."""
    script = made.script.replace(f"clusterseg {__version__}", "clusterseg VERSION")
    hostfile = f"\n--- hostfile\n{made.hostfile}" if made.hostfile else ""
    return f"{describe(made)}\n--- script\n{script}{hostfile}"


@cache
def texts() -> dict[str, str]:
    made = {}
    for launcher in ("openmpi4", "openmpi5"):
        for name, (keys, hosts, as_root) in CASES.items():
            planned = plan(keys, launcher, hosts=hosts, as_root=as_root)
            made[f"{launcher}-{name}.txt"] = as_text(planned)
    made["local-one-rank.txt"] = as_text(plan(_TRAIN, "local"))
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
