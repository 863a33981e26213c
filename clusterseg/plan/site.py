"""A site profile: what is known about a Slurm cluster, one YAML text of `slurm/sites/`.

A profile is optional knowledge. What it knows is checked before anything is submitted, what it
does not know is left to Slurm.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from msgspec import Meta, Struct

from clusterseg.plan.definition_reader import Mistake, read_definition
from clusterseg.plan.sbatch_words import set_by_key
from clusterseg.spec.fields import (
    Line,
    NotNegative,
    Positive,
    Size,
    SlurmOption,
    SlurmWord,
    Text,
    TimeLimit,
)

_HELP = "docs/sites.md explains every key"
GpuStyle = Literal["gres", "gpus-per-node", "gpus-per-task"]
ContainerTool = Literal["apptainer", "singularity", "pyxis"]
GENERIC = "generic"


class Partition(Struct, frozen=True, kw_only=True):
    """What a partition allows, and what one of its nodes has; None: not known.

    `cores` are physical cores of a node, `memory` is in bytes, `max_time` in seconds; `numa_nodes`
    None: one a socket. `preemptible`: its jobs may be preempted; `notice`: the batch script is then
    warned, as the site's `preemption_notice`.
    """

    max_time: TimeLimit | None = None
    max_nodes: Positive | None = None
    cores: Positive | None = None
    sockets: Positive = 1
    numa_nodes: Positive | None = None
    threads_per_core: Positive = 1
    memory: Size | None = None
    gpus: NotNegative | None = None
    preemptible: bool | None = None
    notice: bool | None = None
    qos: SlurmWord | None = None
    account: SlurmWord | None = None


class Gres(Struct, frozen=True, kw_only=True):
    """By kind of accelerator, the generic resource that one is (`gpu`, `gpu:v100`)."""

    cuda: SlurmWord = "gpu"
    hpu: SlurmWord = "hpu"
    npu: SlurmWord = "npu"


class SiteKeys(Struct, frozen=True, kw_only=True):
    """The keys of a profile; docs/sites.md explains them.

    `clusters` are patterns of cluster names (`*` stands for any characters) that it is found by.
    `metadata_delay` is in
    seconds: for so long its file systems may show old metadata to another host.
    """

    title: Line
    clusters: tuple[Line, ...] = ()
    default_partition: SlurmWord | None = None
    partitions: dict[SlurmWord, Partition] = {}
    account: SlurmWord | None = None
    modules: tuple[Line, ...] = ()
    setup: tuple[Text, ...] = ()
    launcher: SlurmWord | None = None
    mpi: SlurmWord | None = None
    gpus: GpuStyle = "gres"
    gres: Gres = Gres()
    scratch: Line | None = None
    accounting: bool | None = None
    preemption_notice: bool | None = None
    container: ContainerTool | None = None
    metadata_delay: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    options: tuple[SlurmOption, ...] = ()


class Site(SiteKeys, frozen=True, kw_only=True):
    """A profile that was read; `name` is what `slurm.site` calls it."""

    name: str

    def fits(self, cluster: str) -> bool:
        """Whether this profile is that of the cluster called `cluster` (slurm.conf ClusterName)."""
        return any(fnmatchcase(cluster.lower(), pattern.lower()) for pattern in self.clusters)

    def gives_notice(self, partition: Partition) -> bool | None:
        """Whether a preempted batch script is warned there; None: not known."""
        return self.preemption_notice if partition.notice is None else partition.notice

    def partition(self, asked: str | None) -> tuple[str | None, Partition]:
        """The partition that a job gets, and what is known about it.

        Of a list ("a,b": whichever starts it first) nothing can be said.
        """
        name = asked or self.default_partition
        return name, self.partitions.get(name or "", Partition())


def read_site(name: str, text: str, file: str, environ: Mapping[str, str]) -> Site:
    """The site `name` as `text` describes it; `file` is named in errors, `environ` fills `${...}`.

    Raises SpecError with everything that is wrong, each with its line and column.
    """
    keys = read_definition(
        SiteKeys, text, file, code="site", help=_HELP, mistakes=_mistakes, environ=environ
    )
    return Site(name=name, **{key: getattr(keys, key) for key in SiteKeys.__struct_fields__})


def _mistakes(site: SiteKeys) -> Iterator[Mistake]:
    if site.default_partition and site.partitions and site.default_partition not in site.partitions:
        note = f"known: {', '.join(site.partitions)}"
        yield ("default_partition",), f"no partition `{site.default_partition}` below", note
    for number, word in enumerate(site.options):
        key = set_by_key(word)
        if key:
            yield ("options", str(number)), f"`{word}` in `options`", f"set by {key}"
