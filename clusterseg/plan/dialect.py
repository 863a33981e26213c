"""A launcher definition: one YAML text of `launchers/`, read into a `Dialect`.

A meaning ("how many ranks", "bind each to its cores") becomes flags and variables by the
templates of the definition, so a new MPI is a new file. A meaning that a definition does not
have is one that the launcher can't express.
"""

import re
from collections.abc import Mapping as Map
from typing import Literal, get_args

from clusterseg.plan.model import Definition, HostfileFormat

# In the order of the launch line; docs/launchers.md explains each.
Meaning = Literal[
    "root",
    "output",
    "rank_output",
    "together",
    "slurm",
    "mpi",
    "report_binding",
    "bind_core",
    "bind_socket",
    "bind_numa",
    "bind_none",
    "only_cores",
    "oversubscribe",
    "share_cores",
    "map",
    "hosts",
    "nodes",
    "ranks",
    "per_node",
    "turns",
    "cpus",
    "accelerators",
    "container",
    "many",
    "variables_list",
    "variable",
]
MEANINGS: tuple[Meaning, ...] = get_args(Meaning)

# What the templates of a meaning may name, besides text of their own.
PLACEHOLDERS: dict[Meaning, frozenset[str]] = {
    **{meaning: frozenset() for meaning in MEANINGS},
    **{
        meaning: frozenset({"map", "cpus", "processors", "report", "inner"})
        for meaning in ("bind_core", "bind_socket", "bind_numa", "bind_none", "oversubscribe")
    },
    "only_cores": frozenset({"cores"}),
    "rank_output": frozenset({"folder"}),
    "mpi": frozenset({"mpi"}),
    "map": frozenset({"map"}),
    "hosts": frozenset({"hostfile"}),
    "nodes": frozenset({"nodes"}),
    "ranks": frozenset({"ranks"}),
    "per_node": frozenset({"per_node"}),
    "cpus": frozenset({"cpus"}),
    "accelerators": frozenset({"accelerators"}),
    "container": frozenset({"image", "mounts", "directory"}),
    "many": frozenset({"nodes"}),
    "variables_list": frozenset({"names"}),
    "variable": frozenset({"name"}),
}
MAP_PLACEHOLDERS = frozenset({"cpus"})
HOSTFILE_PLACEHOLDERS = frozenset({"host", "count"})
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Dialect(Definition, frozen=True, kw_only=True):
    """A definition that was read; `name` is what `launcher:` calls it."""

    name: str

    def can(self, meaning: Meaning) -> bool:
        """Whether the launcher can express it."""
        return meaning in self.flags or meaning in self.variables

    def say(self, meaning: Meaning, **values: object) -> tuple[str, ...]:
        """The flags of a meaning, its templates filled; none if only variables express it."""
        return tuple(substitute(text, values) for text in self.flags.get(meaning, ()))

    def set(self, meaning: Meaning, **values: object) -> dict[str, str]:
        """The variables of a meaning, their templates filled."""
        templates = self.variables.get(meaning, {})
        return {name: substitute(text, values) for name, text in templates.items()}

    def uses(self, placeholder: str) -> bool:
        """Whether a template of some meaning names `{placeholder}`."""
        texts = [text for said in self.flags.values() for text in said]
        texts += [text for said in self.variables.values() for text in said.values()]
        return any(placeholder in placeholders(text) for text in texts)


def substitute(template: str, values: Map[str, object]) -> str:
    """`template` with each `{name}` of `values` filled in, once: values are never templates."""
    return _PLACEHOLDER.sub(
        lambda found: str(values[found[1]]) if found[1] in values else found[0], template
    )


def placeholders(template: str) -> set[str]:
    """The names in braces in a template."""
    return set(_PLACEHOLDER.findall(template))


def hostfile_text(form: HostfileFormat, hosts: Map[str, int], *, turns: bool = False) -> str:
    """The content of a host file for ranks a host.

    With `turns` the ranks are dealt out over the hosts, one to each as long as it has room, where
    the order of the lines says that (`form.turns`).
    """
    if turns and form.turns:
        order = []
        left = list(hosts)
        for done in range(1, max(hosts.values(), default=0) + 1):
            order += [(host, 1) for host in left]
            left = [host for host in left if hosts[host] > done]
    elif form.per == "rank":
        order = [(host, 1) for host, count in hosts.items() for _ in range(count)]
    else:
        order = list(hosts.items())
    return "".join(
        substitute(form.line, {"host": host, "count": count}) + "\n" for host, count in order
    )
