"""`code: snapshot`: where the ranks run in the copy, and what still means the original. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from clusterseg.plan.containers import IMAGE_FILES
from clusterseg.plan.model import RUN_DIR, CodeSource, Plan
from clusterseg.spec.model import JobSpec

COPY = "code"  # the folder in the run directory (clusterseg.runs.paths)


def directory_in_copy(code: CodeSource) -> str:
    """The folder of the copy that stands for the one submitted from; `{run_dir}` is symbolic."""
    below = code.directory.removeprefix(code.top).strip("/")
    return f"{RUN_DIR}/{COPY}/{below}".rstrip("/")


def filled_directory(plan: Plan, run_dir: str | None) -> str:
    """`plan.directory` with the run directory in place of its symbol."""
    if run_dir is None or plan.code is None or not plan.directory.startswith(RUN_DIR):
        return plan.directory  # an absolute path, whatever it holds, is no symbol
    return run_dir + plan.directory.removeprefix(RUN_DIR)


def with_data_in_place(spec: JobSpec, code: CodeSource) -> JobSpec:
    """`spec` with its relative paths of files starting where the job was submitted.

    Data is no code: it is seldom tracked, and not copied. Nor is an image.
    """
    image = spec.environment.container
    if image is not None and image.endswith(IMAGE_FILES):
        environment = replace(spec.environment, container=_absolute(image, code))
        spec = replace(spec, environment=environment)
    if spec.train is None:
        return spec
    train = spec.train
    data = replace(train.data, root=_absolute(train.data.root, code))
    weights = train.initial_weights
    weights = None if weights is None else _absolute(weights, code)
    return replace(spec, train=replace(train, data=data, initial_weights=weights))


def _absolute(path: str, code: CodeSource) -> str:
    if path.startswith(("/", "~")) or "://" in path:  # whoever opens it fills in a home
        return path
    return f"{code.directory.rstrip('/')}/{path}"
