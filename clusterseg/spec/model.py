"""What a job.yaml says, as types: the one description of every key.

The reader (`clusterseg.spec.reader`), the JSON Schema (`clusterseg schema`) and the planner all
work from these structs, so a key is added here and nowhere else. Field order is the order of
the documentation. Numbers carry their unit in the description. `Meta(extra=...)` is
explained in `clusterseg.spec.fields`, which has the types of single values.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from clusterseg.spec.fields import (
    AcceleratorKind,
    ArrayTasks,
    BindTo,
    Budget,
    HostName,
    JobName,
    LauncherName,
    Line,
    MapBy,
    NotNegative,
    Positive,
    SchedulerName,
    SiteName,
    Size,
    SlurmMpi,
    SlurmOption,
    SlurmWord,
    Text,
    TimeLimit,
    VariableName,
    about,
)


class Spec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of every section: unknown keys are errors, values never change after reading."""


class ModelSpec(Spec, frozen=True, kw_only=True):
    """The network, with the further options of the one that `name` names."""

    name: Annotated[str, Meta(description="the network", extra={"table": "models"})]
    classes: Annotated[
        Annotated[int, Meta(ge=2, le=65535)] | None,
        about("number of classes; null: as many as the data set defines"),
    ] = None
    options: Annotated[dict[str, Any], Meta(extra={"options": "models"})] = {}


class DataSpec(Spec, frozen=True, kw_only=True):
    """The data set on disk."""

    format: Annotated[
        str, Meta(description="layout of the data set", extra={"table": "data_formats"})
    ]
    root: Annotated[
        Line, about("folder of the data set; of cityscapes, left out: $CITYSCAPES_DATASET")
    ]
    size: Annotated[
        tuple[Positive, Positive] | None,
        about("[height, width] in pixels that pictures are brought to; null: as the files are"),
    ] = None
    coarse: Annotated[
        bool | Literal["only"],
        about("train on the coarse annotations too, or on them only (cityscapes)"),
    ] = False
    validation_split: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        about("fraction split off for sets without a validation part of their own"),
    ] = None
    on_unreadable: Annotated[
        Literal["fail", "skip"],
        about("what to do with a picture or mask that can't be used; skip: leave the sample out"),
    ] = "fail"
    options: Annotated[dict[str, Any], Meta(extra={"options": "data_formats"})] = {}


class LossSpec(Spec, frozen=True, kw_only=True):
    """The loss, with the further options of the one that `name` names."""

    name: Annotated[str, Meta(description="the loss", extra={"table": "losses"})] = "cross_entropy"
    class_weights: Annotated[
        Literal["balanced", "batch"] | tuple[Annotated[float, Meta(ge=0)], ...] | None,
        about(
            "one number a class; balanced: from the frequencies in the training part;"
            " batch: 1 - frequency in each batch; null: all equal"
        ),
    ] = None
    ignore: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None, about("label that counts nowhere; null: none")
    ] = 255
    aux_weight: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        about("weight of each auxiliary output's loss (`model.aux`); null: the network's own"),
    ] = None
    options: Annotated[dict[str, Any], Meta(extra={"options": "losses"})] = {}


class OptimizerSpec(Spec, frozen=True, kw_only=True):
    """The optimizer, with the further options of the one that `name` names."""

    name: Annotated[str, Meta(description="the optimizer", extra={"table": "optimizers"})] = "sgd"
    momentum: Annotated[
        Annotated[float, Meta(ge=0, lt=1)], about("momentum, where the optimizer has one")
    ] = 0.9
    learning_rate: Annotated[
        Annotated[float, Meta(gt=0)], about("highest learning rate, of one rank")
    ] = 0.01
    scale_with_ranks: Annotated[
        bool, about("multiply the learning rate by the number of ranks")
    ] = True
    weight_decay: Annotated[
        Annotated[float, Meta(ge=0)], about("L2 penalty on the kernels' weights")
    ] = 0.0
    clip_norm: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        about("largest global norm of the gradients; null: not clipped"),
    ] = None
    bias_multiplier: Annotated[
        Annotated[float, Meta(gt=0)], about("multiplies the biases' learning rate")
    ] = 1.0
    options: Annotated[dict[str, Any], Meta(extra={"options": "optimizers"})] = {}


class ScheduleSpec(Spec, frozen=True, kw_only=True):
    """The learning rate over time, with the further options of the schedule `name` names."""

    name: Annotated[str, Meta(description="the schedule", extra={"table": "schedules"})] = (
        "constant"
    )
    power: Annotated[Annotated[float, Meta(gt=0)], about("exponent of the polynomial schedule")] = (
        0.9
    )
    warmup_epochs: Annotated[
        Annotated[float, Meta(ge=0)], about("epochs of linear warm-up from 0, before the schedule")
    ] = 0
    options: Annotated[dict[str, Any], Meta(extra={"options": "schedules"})] = {}


class TrainSpec(Spec, frozen=True, kw_only=True):
    """What every rank runs: model, data, loss, optimizer and for how long."""

    model: ModelSpec
    data: DataSpec
    augment: Annotated[
        tuple[Annotated[dict[str, Any], Meta(extra={"entry": "augmentations"})], ...],
        about("changes made at random to the training pictures, in this order"),
    ] = ()
    loss: LossSpec = LossSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    epochs: Annotated[Positive, about("how often the whole set is seen")] = 1
    steps_per_epoch: Annotated[
        Positive | None, about("optimizer steps an epoch; null: the whole set")
    ] = None
    batch_size: Annotated[Positive, about("images a rank and step")] = 4
    accumulate: Annotated[Positive, about("batches whose gradients make one optimizer step")] = 1
    on_resize: Annotated[
        Literal["keep", "scale"],
        about("what a resume with another number of ranks does to the global batch"),
    ] = "keep"
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"], about("type of the computations")
    ] = "float32"
    sync_batch_norm: Annotated[bool, about("batch statistics over all ranks")] = False
    freeze_batch_norm: Annotated[bool, about("keep the batch statistics as loaded")] = False
    ema: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        about("decay of a moving average of the weights; null: none"),
    ] = None
    initial_weights: Annotated[Line | None, about("file of weights to start from")] = None
    seed: Annotated[NotNegative, about("seed of all random numbers")] = 0
    deterministic: Annotated[bool, about("bit-equal reruns and resumes")] = False
    on_nan: Annotated[
        Literal["stop", "skip", "rollback"],
        about("what to do when loss or gradients are not finite"),
    ] = "stop"
    communicator: Annotated[
        Literal["auto", "horovod", "mpi", "solo"], about("how ranks talk to each other")
    ] = "auto"


class Every(Struct, frozen=True, kw_only=True):
    """When to save: by time, by optimizer steps, or `auto` (from measured cost and failures).

    Exactly one of the three is set.
    """

    seconds: float | None = None
    steps: int | None = None
    auto: bool = False


class CheckpointSpec(Spec, frozen=True, kw_only=True):
    """When checkpoints are written and which are kept (the union of the three rules)."""

    every: Annotated[
        Every,
        Meta(
            description="10m, 90s, 1h: by time; 500 steps: by optimizer steps; auto: by cost",
            extra={"scalar": "interval"},
        ),
    ] = Every(seconds=600.0)
    keep_best: Annotated[NotNegative, about("keep so many with the best val accuracy")] = 3
    keep_last: Annotated[Positive, about("keep so many of the newest")] = 2
    keep_every_epochs: Annotated[
        Positive | None, about("keep the last of every so many epochs; null: none")
    ] = None


class ResourcesSpec(Spec, frozen=True, kw_only=True):
    """How many ranks, where and with what. Any sufficient subset; the rest is solved for."""

    nodes: Annotated[Positive | None, about("number of hosts")] = None
    ranks_per_node: Annotated[Positive | None, about("ranks on each host")] = None
    ranks: Annotated[Positive | None, about("ranks on all hosts together")] = None
    hosts: Annotated[
        Annotated[dict[HostName, Positive | None], Meta(min_length=1, extra={"also": "hosts"})]
        | None,
        about(
            "host names and the ranks on each: {n1: 4, n2: 2}, or as Slurm writes them:"
            " n[1-3]:4,m1:2; without numbers the other keys decide"
        ),
    ] = None
    cpus_per_rank: Annotated[
        Positive | Literal["auto"],
        about("physical cores of a rank; auto: the host's cores shared out among its ranks"),
    ] = "auto"
    accelerator: Annotated[AcceleratorKind, about("kind of accelerator")] = "none"
    accelerators_per_rank: Annotated[NotNegative | None, about("accelerators of a rank")] = None
    device_addresses: Annotated[
        Annotated[dict[HostName, tuple[Line, ...]], Meta(min_length=1)] | None,
        about("npu: the addresses of each host's devices, for the rank table: {n1: [10.0.0.1]}"),
    ] = None
    memory: Annotated[
        Size | None, about("memory of a node: 500M, 64G, 1T; a bare number is megabytes")
    ] = None
    time: Annotated[
        TimeLimit | None,
        about(
            "time limit as Slurm writes it: minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s;"
            " null: the partition's, or none"
        ),
    ] = None


class PlacementSpec(Spec, frozen=True, kw_only=True):
    """Where ranks go and what they are bound to."""

    map_by: Annotated[MapBy, about("what ranks are dealt out over")] = "socket"
    bind_to: Annotated[BindTo, about("what a rank may not leave")] = "core"
    verify: Annotated[
        Literal["off", "warn", "fail"], about("if ranks did not get the cores planned for them")
    ] = "warn"
    oversubscribe: Annotated[bool, about("allow more ranks than cores")] = False
    allow_root: Annotated[bool, about("as root, tell the launcher that this is meant")] = True


class SlurmSpec(Spec, frozen=True, kw_only=True):
    """Options of sbatch."""

    partition: Annotated[
        SlurmWord | None, about("partition, or several: a,b; null: the site's")
    ] = None
    account: Annotated[SlurmWord | None, about("account that pays; null: the site's")] = None
    qos: Annotated[SlurmWord | None, about("quality of service")] = None
    constraint: Annotated[SlurmWord | None, about("features that nodes must have")] = None
    mpi: Annotated[
        SlurmMpi | None, about("what srun speaks with the ranks, its --mpi; null: what they want")
    ] = None
    site: Annotated[SiteName | None, about("site profile; null: found by the cluster's name")] = (
        None
    )
    after: Annotated[Line | None, about("start after this run has ended")] = None
    array: Annotated[ArrayTasks | None, about("job array, as sbatch writes it: 0-7%2")] = None
    extra: Annotated[
        tuple[SlurmOption, ...], about("further options of sbatch, each one word: --exclusive")
    ] = ()


class EnvironmentSpec(Spec, frozen=True, kw_only=True):
    """What is set up before the ranks start."""

    modules: Annotated[tuple[Line, ...], about("environment modules to load, in this order")] = ()
    variables: Annotated[dict[VariableName, Text], about("environment variables of the ranks")] = {}
    setup: Annotated[
        tuple[Text, ...],
        about("lines that bash runs as they are; ${NAME} is filled in at submission, $NAME is not"),
    ] = ()
    container: Annotated[Line | None, about("image that the ranks run in")] = None


class RestartSpec(Spec, frozen=True, kw_only=True):
    """How often each cause may start the run again; `unlimited` is a value, 0 means never."""

    preemption: Annotated[Budget, about("after a preemption")] = "unlimited"
    time_limit: Annotated[Budget, about("after the time limit")] = 20
    crash: Annotated[Budget, about("after a crash or a hang")] = 3
    node: Annotated[Budget, about("after a node failed")] = 10


class JobSpec(Spec, frozen=True, kw_only=True):
    """One job.yaml, read and checked. Exactly one of `train` and `command` is set."""

    name: Annotated[JobName, about("part of the run id and of the Slurm job's name")]
    tags: Annotated[tuple[Line, ...], about("words to find the run by")] = ()
    notes: Annotated[Text, about("free text, kept with the run")] = ""
    train: Annotated[TrainSpec | None, about("train a network")] = None
    command: Annotated[
        Annotated[tuple[Text, ...], Meta(min_length=1)] | None,
        about("instead of train: run any program, as a list of its arguments"),
    ] = None
    checkpoint: CheckpointSpec = CheckpointSpec()
    resources: ResourcesSpec = ResourcesSpec()
    placement: PlacementSpec = PlacementSpec()
    scheduler: Annotated[SchedulerName, about("who starts the job")] = "auto"
    launcher: Annotated[LauncherName, about("who starts the ranks")] = "auto"
    launcher_args: Annotated[
        tuple[Line, ...], about("further options of the launcher, each an argument of its own")
    ] = ()
    launcher_output: Annotated[
        Literal["lines", "files"],
        about("what the launcher does with the ranks' output: tagged lines, or a file a rank"),
    ] = "lines"
    slurm: SlurmSpec = SlurmSpec()
    environment: EnvironmentSpec = EnvironmentSpec()
    restart: RestartSpec = RestartSpec()
    code: Annotated[
        Literal["in-place", "snapshot"],
        about("snapshot: a requeue runs the code as it was submitted"),
    ] = "in-place"
    notify: Annotated[
        tuple[Text, ...],
        about("command, as a list of its arguments, called at end, requeue and give-up"),
    ] = ()
