"""What the files of a run directory hold: identity, submission, claim, end and events.

Times `t` are unix seconds. Readers ignore unknown fields and unknown kinds, so that an older
clusterseg can read a newer run; writers write every field.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field


class State(StrEnum):
    """What a run is doing, as `status` and the summary say it."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Cause(StrEnum):
    """Why an attempt ended. UNKNOWN is an attempt without an end record: it was killed."""

    DONE = "done"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time_limit"
    CANCELLED = "cancelled"
    CRASH = "crash"
    HANG = "hang"
    NODE_FAIL = "node_fail"
    OUT_OF_MEMORY = "out_of_memory"
    NAN = "nan"
    DISK_FULL = "disk_full"
    UNKNOWN = "unknown"


class _Record(Struct, frozen=True, kw_only=True):
    """Base of everything written as JSON."""


class Identity(_Record, frozen=True, kw_only=True):
    """run.json, written once. `task` is what all its attempts do: `train` (the job), `lr-find`."""

    key: str
    uid: int
    name: str
    created: float
    versions: dict[str, str] = {}
    task: str = "train"


class Intent(_Record, frozen=True, kw_only=True):
    """submissions/NNN/intent.json: fsynced before the scheduler or a process is asked.

    Of a job array, every task is a run and all of them are submitted under one key: `task` is
    this run's, `leader` the id of the run (in the same folder) that holds what they share. A
    task that is submitted by itself has no leader. `cluster` is the name of the Slurm that was
    asked: a shared file system may be seen from several.
    """

    t: float
    key: str
    submission: int
    scheduler: str
    host: str
    uid: int
    overrides: list[str] = []
    task: int | None = None
    leader: str | None = None
    cluster: str | None = None


class Claim(_Record, frozen=True, kw_only=True):
    """attempts/NNN/claim.json: who holds the attempt and what it builds on."""

    t: float
    attempt: int
    submission: int
    key: str
    uid: int
    job_id: str
    restart_count: int = 0
    host: str
    boot_id: str
    pid: int
    pid_start: int
    nonce: str
    hosts: dict[str, int]
    ranks: int
    argv: list[str]
    resume_from: str | None = None
    resume_step: int = 0
    accepted: dict[str, str] = {}


class End(_Record, frozen=True, kw_only=True):
    """attempts/NNN/end.json: how the attempt ended. Absent: the supervisor was killed."""

    t: float
    attempt: int
    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    failed_rank: int | None = None
    failed_host: str | None = None
    error: str | None = None
    first_step: int | None = None
    last_step: int | None = None
    will_restart: bool = False


class StopRequest(_Record, frozen=True, kw_only=True):
    """control/stop-NNN: a request to stop an attempt. The empty file asks for nothing."""

    reason: str = ""
    deadline: float | None = None


class _Event(_Record, frozen=True, kw_only=True, tag_field="kind", gc=False):
    """Base of a line in ranks/NNNNN.jsonl."""

    t: float
    rank: int


class RankStart(_Event, frozen=True, kw_only=True, tag="rank_start"):
    """Where a rank stands: `cpus` is its affinity, `cores` the physical ones among them as
    `socket.first-thread`, `sockets` and `numa` the numbers of those they lie on. `device` is what
    its visible accelerators are called, empty where none were asked for.
    """

    attempt: int
    world_size: int
    host: str
    local_rank: int = 0
    pid: int = 0
    cpus: list[int] = []
    cores: list[str] = []
    sockets: list[int] = []
    numa: list[int] = []
    accelerator: str | None = None
    device: str = ""
    resumed_from: str | None = None
    epoch: int = 0
    step: int = 0


class Steps(_Event, frozen=True, kw_only=True, tag="steps"):
    """A window of optimizer steps. `epoch` counts completed epochs, `step` its last step.

    `seconds` covers the window's steps with data wait and blocked saving, without validation;
    `wait_data` and `comm` are parts of it. `images` are those of this rank, `all_images` those of
    all ranks together. `skipped_steps`: how many of the steps changed no weight. `loss_scale`
    (float16) is that after the last step, `gradient_norm` the mean of the steps' global norms
    before clipping; null where there is none.
    """

    epoch: int
    step: int
    count: int
    images: int
    seconds: float
    wait_data: float = 0.0
    comm: float = 0.0
    loss: float | None = None
    learning_rate: float | None = None
    all_images: int | None = None
    skipped_steps: int = 0
    loss_scale: float | None = None
    gradient_norm: float | None = None


class Phase(_Event, frozen=True, kw_only=True, tag="phase"):
    """`name` is one of startup, restore, validate, save. `parts`: seconds by part, of the first
    two; a part that is not known has no entry."""

    name: str
    seconds: float
    parts: dict[str, float] = {}


class Epoch(_Event, frozen=True, kw_only=True, tag="epoch"):
    """Written by rank 0 when an epoch is completed and validated."""

    epoch: int
    step: int
    loss: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    val_mean_iou: float | None = None
    seconds: float = 0.0


class Checkpoint(_Event, frozen=True, kw_only=True, tag="checkpoint"):
    """Written by rank 0 when a checkpoint is durable."""

    epoch: int
    step: int
    file: str
    bytes: int = 0
    blocked_seconds: float = 0.0
    write_seconds: float = 0.0


class NotFinite(_Event, frozen=True, kw_only=True, tag="nan"):
    """Written by rank 0: loss or gradients of a step were not finite, and it has changed nothing;
    or the weights that it left are not.

    `what` is one of loss, gradients, weights; `action` one of skip, rollback, stop.
    """

    step: int
    what: str
    action: str


class Stragglers(_Event, frozen=True, kw_only=True, tag="stragglers"):
    """Written by rank 0 after an epoch in which ranks computed slowly: `scores` are theirs, by
    rank; `seconds_per_step` is the quickest rank's median."""

    epoch: int
    step: int
    seconds_per_step: float = 0.0
    scores: dict[str, float] = {}


class Stop(_Event, frozen=True, kw_only=True, tag="stop"):
    reason: str
    step: int


class RankEnd(_Event, frozen=True, kw_only=True, tag="rank_end"):
    """`status` is one of done, stopped, failed. `peak_bytes`: the most memory that the process had
    in use at once (resident)."""

    status: str
    step: int = 0
    error: str | None = None
    peak_bytes: int | None = None


Event = RankStart | Steps | Phase | Epoch | Checkpoint | Stragglers | NotFinite | Stop | RankEnd


class CheckpointHeader(_Record, frozen=True, kw_only=True):
    """The `clusterseg` entry in the metadata of a checkpoint file.

    `epoch` completed epochs and `step` the last optimizer step done (over the whole run) are
    the data position: sample order follows from (seed, epoch) and the place in it,
    `samples_in_epoch`, after `step_in_epoch` steps. `validated` is false if the epoch `epoch` was
    completed, but its validation was not yet done. `history` holds one entry an epoch, `best` the
    best so far.
    `identity` says what the tensors fit: model, classes, optimizer, data, ... as text.
    `samples_in_epoch` is -1 in files from before an epoch's steps could differ in size: they have
    read `step_in_epoch` x `global_batch`. `base_batch` images of a rank and step are those that
    the learning rate of job.yaml is for, `asked_batch` those that it asked for last (both 0 in such
    files: `global_batch` / `world_size`); `micro_batch` those that the network saw together.
    `epoch_sums` are those of the epoch in progress: loss_sum, weight_sum, seconds; with them the
    learning_rate of the last step. `skipped` are the newest of the steps that changed nothing.
    """

    format: int = 1
    epoch: int
    step: int
    step_in_epoch: int
    samples_in_epoch: int = -1
    attempt: int
    t: float
    val_accuracy: float = 0.0
    validated: bool = True
    seed: int = 0
    global_batch: int = 0
    micro_batch: int = 0
    asked_batch: int = 0
    base_batch: int = 0
    world_size: int = 1
    identity: dict[str, str] = {}
    schedule: dict[str, float | int | str] = {}
    history: list[dict[str, float | int | None]] = []
    best: dict[str, float | int | str | None] | None = None
    epoch_sums: dict[str, float] = {}
    skipped: list[int] = []
    times: dict[str, float] = field(default_factory=dict)
