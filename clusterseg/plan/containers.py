"""Ranks in a container: what the launcher or the rank's command line says for it. Pure.

Apptainer and Singularity run a program in an image; pyxis is srun's own option. Neither is on the
machine of the tests: docs/sites.md says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.model import RUN_DIR
from clusterseg.plan.site import ContainerTool, Site
from clusterseg.spec.model import JobSpec

IMAGE_FILES = (".sif", ".sqsh", ".simg", ".img")  # other images are names in a registry


@dataclass(frozen=True)
class Container:
    """`words` stand before what runs in the image; empty where the launcher does it.

    `values` are for the launcher's own meaning `container`, None where it is not used.
    """

    words: tuple[str, ...] = ()
    values: dict[str, object] | None = None


def container_of(
    spec: JobSpec,
    tool: ContainerTool | None,
    dialect: Dialect,
    *,
    directory: str,
    working: str,
    site: Site | None,
) -> Container | None:
    """The container that `spec` asks for, if it does.

    A relative image starts at `directory`; the ranks run in `working`, which the container sees
    under the same path, and so it does the run directory, the site's scratch, the data set and the
    file of initial weights (for a checkpoint of TensorFlow, its folder).
    Raises ClustersegError where it can't be run.
    """
    asked = spec.environment.container
    if asked is None or site is None:
        return None
    if tool is None:
        raise ClustersegError(
            "environment.container: there is no apptainer, singularity or enroot here",
            code="no-container-tool",
            help="load its module, or name it in the profile of the site (container: ...)",
            exit_code=ExitCode.CLUSTER,
        )
    image = asked
    if not asked.startswith("/") and asked.endswith(IMAGE_FILES) and "://" not in asked:
        image = f"{directory}/{asked}"
    seen = [RUN_DIR, working, *([directory] if directory != working else [])]
    seen += [site.scratch] if site.scratch is not None else []
    if spec.train is not None:
        for path in (spec.train.data.root, *_with_weights(spec.train.initial_weights)):
            data = _absolute(path, directory)
            if not any(f"{data}/".startswith(f"{folder.rstrip('/')}/") for folder in seen):
                seen.append(data)
    check_mounts(spec, [path for path in seen if path != RUN_DIR])
    if tool == "pyxis":
        if not dialect.can("container"):
            raise ClustersegError(
                f"environment.container: the launcher {dialect.name} can't start ranks in a "
                "container of pyxis",
                code="container",
                help="use launcher: srun",
            )
        mounts = ",".join(f"{path}:{path}" for path in seen)
        return Container(values={"image": image, "mounts": mounts, "directory": working})
    binds = [word for path in seen for word in ("--bind", path)]
    gpus = ["--nv"] if spec.resources.accelerator == "cuda" else []
    return Container(words=(tool, "exec", *gpus, *binds, "--pwd", working, image))


def _with_weights(weights: str | None) -> tuple[str, ...]:
    """The file of initial weights; of a checkpoint of TensorFlow, which is several, its folder."""
    if weights is None:
        return ()
    whole = weights.endswith((".safetensors", ".h5", ".hdf5"))
    return (weights if whole else f"{weights}/..",)


def _absolute(path: str, directory: str) -> str:
    """`path`, which starts at `directory` unless it is absolute, without `.` and `..`."""
    parts: list[str] = []
    for part in (path if path.startswith("/") else f"{directory}/{path}").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def check_mounts(spec: JobSpec, paths: Sequence[str]) -> None:
    """Refuses paths that a list of mounts can't hold."""
    if spec.environment.container is None:
        return
    for path in paths:
        if "," in path or ":" in path:
            raise ClustersegError(
                f"environment.container: {path} can't be mounted, for its comma or colon",
                code="container",
                help="use folders without them",
            )
