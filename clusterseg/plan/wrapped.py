"""A launcher that only calls another one's mpirun, as horovodrun: two definitions as one. Pure.

The outer one says how many ranks there are and where; how they are bound, and what else it knows
nothing of, it hands on in one word, which it gives to a shell: `{inner}` is that word's content.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from msgspec.structs import replace

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.dialect import PLACEHOLDERS, Dialect, Meaning, substitute
from clusterseg.plan.model import LAUNCHER_FOLDER, LauncherPair
from clusterseg.plan.placement import BINDINGS
from clusterseg.plan.site import Site
from clusterseg.spec.model import JobSpec


@dataclass(frozen=True)
class Inner:
    """The launcher whose mpirun is called."""

    dialect: Dialect
    pair: LauncherPair

    @property
    def folder(self) -> str:
        """Where its mpirun is: the outer one looks for it on PATH."""
        return self.pair.program.rpartition("/")[0]


def wrap(outer: Dialect, inner: Inner | None, spec: JobSpec, site: Site | None) -> Dialect:
    """`outer` as the definition of both; one that wraps nothing stays as it is.

    Raises ClustersegError (`launcher`) for an inner launcher that it can't call, and in a job of
    Slurm, of whose nodes it knows nothing.
    """
    if not outer.wraps:
        return outer
    if site is not None:
        raise ClustersegError(
            f"launcher: {outer.name} reaches hosts by ssh, and knows nothing of a job of Slurm",
            code="launcher",
            help="use launcher: auto; ranks that use Horovod need no horovodrun",
        )
    if inner is None or inner.dialect.name not in outer.wraps:
        found = "no MPI was found for it" if inner is None else f"not that of {inner.dialect.name}"
        raise ClustersegError(
            f"launcher: {outer.name} calls the mpirun of {', '.join(outer.wraps)}; {found}",
            code="launcher",
            help="use launcher: auto; ranks that use Horovod need no horovodrun",
            exit_code=ExitCode.CLUSTER,
        )
    return _joined(outer, inner.dialect, spec)


def _joined(outer: Dialect, inner: Dialect, spec: JobSpec) -> Dialect:
    flags = {name: said for name, said in outer.flags.items() if name not in BINDINGS}
    for meaning in BINDINGS:
        if meaning in outer.flags and inner.can(meaning):
            words = " ".join(map(_quoted, _handed_on(inner, meaning, spec)))
            flags[meaning] = tuple(
                substitute(text, {"inner": words}) for text in outer.flags[meaning]
            )
    if inner.can("rank_output"):
        flags["rank_output"] = ()  # it is among what is handed on
    return replace(
        outer,
        flags=flags,
        variables={**inner.variables, **outer.variables},
        map=inner.map,
        cannot=inner.cannot,
        only_one=inner.only_one,
        equal_only=inner.equal_only,
        numa_first=inner.numa_first,
        not_passed=tuple(dict.fromkeys((*outer.not_passed, *inner.not_passed))),
        ends_together=inner.ends_together,
        prefix_variable=inner.prefix_variable,
        session_variable=inner.session_variable,
        unset=tuple(dict.fromkeys((*outer.unset, *inner.unset))),
    )


def _quoted(template: str) -> str:
    """A template as one word of a shell; what is filled in for a binding needs no quotes."""
    bare = template
    for name in PLACEHOLDERS["bind_core"]:
        bare = bare.replace(f"{{{name}}}", "0")
    return template if shlex.quote(bare) == bare else shlex.quote(template)


def _handed_on(inner: Dialect, binding: Meaning, spec: JobSpec) -> list[str]:
    """What the outer launcher has no words for: templates of the binding, all else filled in."""
    files = spec.launcher_output == "files"
    words = list(inner.say("rank_output", folder=LAUNCHER_FOLDER) if files else inner.say("output"))
    if spec.placement.verify != "off":
        words += inner.say("report_binding")
    return [*words, *inner.flags.get(binding, ()), *inner.order.get(spec.placement.map_by, ())]
