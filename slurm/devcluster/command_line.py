"""The commands of devcluster: parse, do, say."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
from dataclasses import fields
from typing import Any

import daemons
import faults
import layout
import lifecycle
import requirements
import slurm_config
from failure import DevclusterError
from layout import Cluster, Options
from processes import alive, run

_PROGRAM = "devcluster"


def main(argv: list[str]) -> int:
    """Exit codes: 0 done, 1 not done (the reason on stderr), 2 wrong usage, 3 not possible on
    this machine, 130 interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.do(arguments) or 0)
    except DevclusterError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.help:
            print(f"help: {error.help}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="A real Slurm of several nodes on this machine, to try jobs on.",
        epilog='Then: eval "$(devcluster env)" and sinfo, sbatch, srun as on a cluster.',
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: object, text: str, *, many: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(do=do)
        if not many:
            added.add_argument("--name", default="dev", help="the cluster's name (default: dev)")
        return added

    up = command("up", _up, "Start a cluster; nothing happens if it is up.")
    up.add_argument("--nodes", type=int, help="nodes, n1 to nN (default: 4)")
    up.add_argument("--cores", type=int, help="cores of each node (default: 2)")
    up.add_argument(
        "--accounting", action="store_const", const=True, help="sacct works: slurmdbd and MariaDB"
    )
    up.add_argument(
        "--preempt-signal",
        action="store_const",
        const=True,
        help="a preempted job gets the signal of its --signal option when its grace time starts",
    )
    up.add_argument(
        "--conf",
        action="append",
        metavar="KEY=VALUE",
        help="one more setting of slurm.conf, or of a partition: low.GraceTime=30 (repeatable)",
    )

    down = command(
        "down", _down, "Take a cluster down: all its processes, files, networks.", many=True
    )
    which = down.add_mutually_exclusive_group()
    which.add_argument("--name", default="dev", help="the cluster's name (default: dev)")
    which.add_argument("--all", action="store_true", help="every cluster of this machine")

    status = command("status", _status, "Say which clusters there are and how they do.", many=True)
    status.add_argument("--name", help="only this one")
    status.add_argument("--json", action="store_true", help="for programs")

    command("env", _env, 'Print what a shell needs to use the cluster: eval "$(devcluster env)".')

    on_node = command("exec", _exec, "Run a command on a node, in its network and mounts.")
    on_node.add_argument("node", metavar="NODE")
    on_node.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND …")

    fault = command("fault", _fault, "Break something on purpose, or mend it.")
    fault.add_argument(
        "where", metavar="WHERE", help="a node, controller, accounting, munge, or all"
    )
    fault.add_argument(
        "what",
        metavar="WHAT",
        help=f"at a node: {', '.join(faults.OF_NODES)}; at controller, accounting, munge: "
        f"{', '.join(faults.OF_CENTRAL)}; at all: {', '.join(faults.OF_EVERYTHING)}",
    )
    return parser


def _up(arguments: argparse.Namespace) -> None:
    said = {
        field.name: getattr(arguments, field.name)
        for field in fields(Options)
        if getattr(arguments, field.name) is not None
    }
    if "conf" in said:
        said["conf"] = tuple(said["conf"])
    options = Options(**said)
    slurm_config.check_settings(options.conf)
    layout.folder_of(arguments.name)
    requirements.check(options)
    os.umask(0o022)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    with layout.locked(arguments.name):
        state = lifecycle.state(arguments.name)
        if state == "up":
            _same_options(_existing(arguments.name), said)
            print(f"cluster {arguments.name!r} is up already")
            return
        if state == "broken":
            print(f"cluster {arguments.name!r} is not whole: starting it anew", file=sys.stderr)
            lifecycle.take_down(arguments.name)
        try:
            cluster = lifecycle.build(arguments.name, options)
        except BaseException:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            lifecycle.take_down(arguments.name)
            layout.forget(arguments.name)
            raise
        notes = requirements.notes(cluster) + lifecycle.notes(cluster)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    name = "" if cluster.name == "dev" else f" --name {cluster.name}"
    print(f"cluster {cluster.name!r} is up: {options.nodes} nodes of {options.cores} cores")
    print(f'use it: eval "$({shlex.quote(sys.argv[0])} env{name})"')


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _same_options(cluster: Cluster, said: dict[str, object]) -> None:
    """Refuses an `up` that asks for another cluster than there is."""
    differing = [
        f"--{key.replace('_', '-')} is {_shown(held)}, not {_shown(value)}"
        for key, value in said.items()
        if (held := getattr(cluster.options, key)) != value
    ]
    if differing:
        raise DevclusterError(
            f"cluster {cluster.name!r} is up with other options: {'; '.join(differing)}",
            help=f"devcluster down --name {cluster.name} first, or give another --name",
        )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(value) or "none" if isinstance(value, tuple) else str(value)


def _down(arguments: argparse.Namespace) -> None:
    layout.folder_of(arguments.name)
    names = layout.names() if arguments.all else [arguments.name]
    if not names:
        print("there is no cluster")
        return
    for name in names:
        if lifecycle.state(name) != "none" or layout.busy(name):
            requirements.must_be_root()
        gone = False
        if os.geteuid() == 0:
            with layout.locked(name):
                gone = lifecycle.take_down(name)
                layout.forget(name)
        print(f"cluster {name!r} is down" if gone else f"there is no cluster {name!r}")


def _status(arguments: argparse.Namespace) -> None:
    names = [arguments.name] if arguments.name else layout.names()
    clusters = [_describe(name) for name in names]
    if arguments.json:
        print(json.dumps({"clusters": clusters}, indent=1))
        return
    if not clusters:
        print("there is no cluster; devcluster up starts one")
    for cluster in clusters:
        print(f"{cluster['name']}: {cluster['state']}")
        for key in ("slurm_conf", "logs"):
            if key in cluster:
                print(f"  {key:<12}{cluster[key]}")
        for name, runs in cluster.get("daemons", {}).items():
            if not runs:
                print(f"  {name:<12}does not run")
        for name, node_state in cluster.get("nodes", {}).items():
            print(f"  {name:<12}{node_state}")


def _describe(name: str) -> dict[str, Any]:
    state = lifecycle.state(name)
    if state == "broken" and layout.busy(name):
        state = "busy"  # starting or stopping
    cluster = layout.load(name)
    index = lifecycle.index_of(name)
    network = None if index is None else f"10.77.{index}.0/24"
    if cluster is None or cluster.index is None:
        return {"name": name, "state": state, "network": network}
    running = {
        daemon: alive(daemons.process(cluster, daemon)) for daemon in daemons.expected(cluster)
    }
    options = {field.name: getattr(cluster.options, field.name) for field in fields(Options)}
    return {
        "name": name,
        "state": state,
        "options": options,
        "network": network,
        "slurm_conf": str(cluster.slurm_conf),
        "logs": str(cluster.log),
        "daemons": running,
        "nodes": _node_states(cluster) if running["slurmctld"] else {},
    }


def _node_states(cluster: Cluster) -> dict[str, str]:
    environ = daemons.environment(cluster)
    try:
        said = run("sinfo", "-h", "-N", "-p", "low", "-o", "%N %T", environ=environ, timeout=5)
    except DevclusterError as error:
        return dict.fromkeys(cluster.node_names, f"unknown ({error})")
    return dict(line.split(maxsplit=1) for line in said.splitlines() if line)


def _env(arguments: argparse.Namespace) -> None:
    cluster = _existing(arguments.name)
    leaked = [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SALLOC_"))]
    for name in sorted(leaked):
        if name.isidentifier() and name != "SLURM_CONF":
            print(f"unset {name}")
    print(f"export SLURM_CONF={shlex.quote(str(cluster.slurm_conf))}")
    srun = requirements.find("srun")
    if srun and not shutil.which("srun"):
        print(f'export PATH="$PATH":{shlex.quote(os.path.dirname(srun))}')  # noqa: PTH120


def _exec(arguments: argparse.Namespace) -> None:
    cluster = _existing(arguments.name)
    _check_node(cluster, arguments.node)
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise DevclusterError("no command", help="devcluster exec NODE -- COMMAND …", exit_code=2)
    requirements.must_be_root()
    entering = daemons.on_node(cluster, arguments.node, argv, cwd=os.getcwd())  # noqa: PTH109
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    environ["SLURM_CONF"] = str(cluster.slurm_conf)
    os.execvpe(entering[0], entering, environ)  # noqa: S606


def _fault(arguments: argparse.Namespace) -> None:
    cluster = _existing(arguments.name)
    if arguments.where not in (*faults.CENTRAL, faults.EVERYWHERE):
        _check_node(cluster, arguments.where)
    requirements.must_be_root()
    os.umask(0o022)
    with layout.locked(cluster.name):
        print(faults.inject(_existing(arguments.name), arguments.where, arguments.what))


def _existing(name: str) -> Cluster:
    cluster = layout.load(name)
    if cluster is None or not cluster.complete:
        known = ", ".join(layout.names()) or "none"
        raise DevclusterError(
            f"there is no cluster {name!r} (there are: {known})",
            help="devcluster up --name NAME starts one",
        )
    return cluster


def _check_node(cluster: Cluster, node: str) -> None:
    if node not in cluster.node_names:
        raise DevclusterError(
            f"cluster {cluster.name!r} has no node {node!r}: {', '.join(cluster.node_names)}",
            exit_code=2,
        )
