"""What a job.yaml says, as types: the one description of every key.

The reader (`clusterseg.spec.reader`), the JSON Schema (`clusterseg schema`) and the planner all
work from these structs, so a key is added here and nowhere else. Field order is the order of
the documentation. Numbers carry their unit in the description.

`Meta(extra={"scalar": ...})` names how a scalar is written in YAML where that differs from its
Python type: `time` (as Slurm writes times, held in seconds), `size` (`64G`, held in bytes),
`interval` (`10m`, held in seconds).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]

TimeLimit = Annotated[
    int,
    Meta(
        ge=1,
        description="seconds; written as Slurm does: m, m:s, h:m:s, d-h, d-h:m, d-h:m:s",
        extra={"scalar": "time"},
    ),
]
Size = Annotated[
    int,
    Meta(
        ge=1,
        description="bytes; written as Slurm does: 500M, 64G, 1T; a bare number is megabytes",
        extra={"scalar": "size"},
    ),
]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
JobName = Annotated[
    str, Meta(pattern=f"^{NAME_PATTERN}$", description="part of the run id and the Slurm job name")
]

AcceleratorKind = Literal["none", "cuda", "hpu", "npu"]
SchedulerName = Literal["auto", "slurm", "local"]
BindTo = Literal["core", "socket", "numa", "none"]
MapBy = Literal["core", "socket", "numa", "node"]


class _Spec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of every section: unknown keys are errors, values never change after reading."""


class ModelSpec(_Spec):
    """The network. `options` holds the further keys of that model (spec.tables lists them)."""

    name: str
    classes: (
        Annotated[int, Meta(ge=2, le=65535, description="null: as many as the data set defines")]
        | None
    ) = None
    options: dict[str, Any] = {}


class DataSpec(_Spec):
    """The data set on disk; `size` is (height, width) in pixels, null: as the files are."""

    format: str
    root: str
    size: tuple[Positive, Positive] | None = None
    coarse: bool = False
    validation_split: (
        Annotated[
            float,
            Meta(gt=0, lt=1, description="fraction split off for sets without a validation part"),
        ]
        | None
    ) = None


class LossSpec(_Spec):
    """The loss. `class_weights`: null, `balanced`, or one number a class."""

    name: str = "cross_entropy"
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    ignore: Annotated[int, Meta(ge=0, description="label that counts nowhere")] | None = 255


class OptimizerSpec(_Spec):
    """The optimizer. `learning_rate` is multiplied by the world size if `scale_with_ranks`."""

    name: str = "sgd"
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    learning_rate: Annotated[float, Meta(gt=0)] = 0.01
    scale_with_ranks: bool = True
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    clip_norm: Annotated[float, Meta(gt=0)] | None = None
    bias_multiplier: Annotated[float, Meta(gt=0)] = 1.0


class ScheduleSpec(_Spec):
    """The learning rate over time; `options` holds the further keys of that schedule."""

    name: str = "constant"
    power: Annotated[float, Meta(gt=0)] = 0.9
    warmup_epochs: Annotated[float, Meta(ge=0)] = 0
    options: dict[str, Any] = {}


class TrainSpec(_Spec):
    """What every rank runs: model, data, loss, optimizer and for how long."""

    model: ModelSpec
    data: DataSpec
    augment: tuple[dict[str, Any], ...] = ()
    loss: LossSpec = LossSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    epochs: Positive = 1
    steps_per_epoch: (
        Annotated[int, Meta(ge=1, description="optimizer steps an epoch; null: the whole set")]
        | None
    ) = None
    batch_size: Annotated[int, Meta(ge=1, description="images a rank and step")] = 4
    accumulate: Annotated[int, Meta(ge=1, description="batches an optimizer step")] = 1
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    sync_batch_norm: bool = False
    freeze_batch_norm: bool = False
    ema: Annotated[float, Meta(gt=0, lt=1, description="decay of the average")] | None = None
    initial_weights: str | None = None
    seed: NotNegative = 0
    deterministic: bool = False
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    communicator: Literal["auto", "horovod", "mpi", "solo"] = "auto"


class Every(Struct, frozen=True, kw_only=True):
    """When to save: by time, by optimizer steps, or `auto` (from measured cost and failures).

    Exactly one of the three is set.
    """

    seconds: float | None = None
    steps: int | None = None
    auto: bool = False


class CheckpointSpec(_Spec):
    """When checkpoints are written and which are kept (the union of the three rules)."""

    every: Annotated[
        Every,
        Meta(
            description="10m, 90s, 1h: by time; `500 steps`: by steps; auto",
            extra={"scalar": "interval"},
        ),
    ] = Every(seconds=600.0)
    keep_best: NotNegative = 3
    keep_last: Positive = 2
    keep_every_epochs: Annotated[int, Meta(ge=1)] | None = None


class ResourcesSpec(_Spec):
    """Any sufficient subset; `clusterseg.plan.geometry` solves for the rest."""

    nodes: Positive | None = None
    ranks_per_node: Positive | None = None
    ranks: Positive | None = None
    hosts: dict[str, Positive] | None = None
    cpus_per_rank: Positive | Literal["auto"] = "auto"
    accelerator: AcceleratorKind = "none"
    accelerators_per_rank: NotNegative | None = None
    memory: Annotated[Size, Meta(description="memory a node")] | None = None
    time: TimeLimit | None = None


class PlacementSpec(_Spec):
    """Where ranks go and what they are bound to."""

    map_by: MapBy = "socket"
    bind_to: BindTo = "core"
    verify: Literal["off", "warn", "fail"] = "warn"
    oversubscribe: bool = False
    allow_root: bool = True


class SlurmSpec(_Spec):
    """Options of sbatch; `extra` holds further ones, each an argument of its own."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    site: str | None = None
    after: str | None = None
    array: str | None = None
    extra: tuple[str, ...] = ()


class EnvironmentSpec(_Spec):
    """What is set up before the ranks start. `setup` lines are run by bash as they are."""

    modules: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    setup: tuple[str, ...] = ()
    container: str | None = None


class RestartSpec(_Spec):
    """How often each cause may start the run again; `unlimited` is a value, 0 means never."""

    preemption: NotNegative | Literal["unlimited"] = "unlimited"
    time_limit: NotNegative | Literal["unlimited"] = 20
    crash: NotNegative | Literal["unlimited"] = 3
    node: NotNegative | Literal["unlimited"] = 10


class JobSpec(_Spec):
    """One job.yaml, read and checked. Exactly one of `train` and `command` is set."""

    name: JobName
    tags: tuple[str, ...] = ()
    notes: str = ""
    train: TrainSpec | None = None
    command: tuple[str, ...] | None = None
    checkpoint: CheckpointSpec = CheckpointSpec()
    resources: ResourcesSpec = ResourcesSpec()
    placement: PlacementSpec = PlacementSpec()
    scheduler: SchedulerName = "auto"
    launcher: str = "auto"
    launcher_args: tuple[str, ...] = ()
    slurm: SlurmSpec = SlurmSpec()
    environment: EnvironmentSpec = EnvironmentSpec()
    restart: RestartSpec = RestartSpec()
    code: Literal["in-place", "snapshot"] = "in-place"
    notify: Annotated[
        tuple[str, ...], Meta(description="argv of a command called at end, requeue, give-up")
    ] = ()
