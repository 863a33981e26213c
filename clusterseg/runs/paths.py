"""The layout of a run directory. The only place that names its files.

Folders are made with mode 0700 and files with 0600 (`clusterseg.runs.files`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LAUNCHER = "launcher"  # a folder of an attempt


@dataclass(frozen=True)
class SubmissionPaths:
    """One folder a submission (submit, resume)."""

    folder: Path

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def job_yaml(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def batch_script(self) -> Path:
        return self.folder / "batch.sh"

    @property
    def intent(self) -> Path:
        return self.folder / "intent.json"

    @property
    def job_id(self) -> Path:
        return self.folder / "job_id"

    @property
    def array_script(self) -> Path:
        """What sbatch is given for a job array whose tasks are runs; only in one of the runs."""
        return self.folder / "array.sh"

    @property
    def array_record(self) -> Path:
        """Options of that array, and which run each task is."""
        return self.folder / "array.json"

    @property
    def array_job_id(self) -> Path:
        """The process that starts these runs one after the other, where there is no Slurm."""
        return self.folder / "array_job_id"

    def array_output(self, pattern: str) -> Path:
        """What Slurm itself prints about the tasks of that array; `pattern` as sbatch has it."""
        return self.folder / f"array-{pattern}.log"

    @property
    def git(self) -> Path:
        """The commit, the branch and what was changed, where git knew it."""
        return self.folder / "git.json"

    @property
    def diff(self) -> Path:
        """What differed from that commit; absent if nothing did."""
        return self.folder / "git.diff"

    @property
    def output(self) -> Path:
        """stdout and stderr of the batch script, before an attempt is claimed."""
        return self.folder / "output.log"


@dataclass(frozen=True)
class AttemptPaths:
    """One folder an attempt; every file in it has one writer."""

    folder: Path

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def claim(self) -> Path:
        return self.folder / "claim.json"

    @property
    def end(self) -> Path:
        return self.folder / "end.json"

    @property
    def heartbeat(self) -> Path:
        return self.folder / "heartbeat"

    @property
    def supervisor_log(self) -> Path:
        return self.folder / "supervisor.log"

    @property
    def ballast(self) -> Path:
        """Room on the disk that is given away for the attempt's last word."""
        return self.folder / "ballast"

    @property
    def hostfile(self) -> Path:
        return self.folder / "hostfile"

    @property
    def rank_table(self) -> Path:
        """Ascend's, for HCCL."""
        return self.folder / "rank_table.json"

    @property
    def launcher(self) -> Path:
        """The ranks' output as the launcher writes it, where it is asked to."""
        return self.folder / LAUNCHER

    @property
    def placement(self) -> Path:
        return self.folder / "placement.json"

    @property
    def ranks(self) -> Path:
        return self.folder / "ranks"

    def events(self, rank: int) -> Path:
        return self.ranks / f"{rank:05d}.jsonl"

    def log(self, rank: int) -> Path:
        return self.ranks / f"{rank:05d}.log"

    @property
    def packed(self) -> Path:
        """The same attempt as one archive, beside its folder."""
        return self.folder.with_name(self.folder.name + ".tar.zst")


@dataclass(frozen=True)
class RunPaths:
    """All names below one run directory."""

    root: Path

    @property
    def run_id(self) -> str:
        return self.root.name

    @property
    def identity(self) -> Path:
        return self.root / "run.json"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"

    def submission(self, number: int) -> SubmissionPaths:
        return SubmissionPaths(self.submissions / f"{number:03d}")

    @property
    def control(self) -> Path:
        return self.root / "control"

    def stop_file(self, attempt: int) -> Path:
        return self.control / f"stop-{attempt:03d}"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def rejected(self) -> Path:
        return self.checkpoints / "rejected"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    def attempt(self, number: int) -> AttemptPaths:
        return AttemptPaths(self.attempts / f"{number:03d}")

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def summary_json(self) -> Path:
        return self.root / "summary.json"

    @property
    def summary_csv(self) -> Path:
        return self.root / "summary.csv"

    @property
    def plot(self) -> Path:
        return self.root / "summary.png"

    @property
    def curves(self) -> Path:
        """A row an epoch, as the training goes on."""
        return self.root / "curves.csv"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files, one an attempt."""
        return self.root / "tensorboard"

    def board_file(self, attempt: int) -> Path:
        # TensorBoard takes what has "tfevents" in its name, in the order of the names.
        return self.tensorboard / f"events.out.tfevents.attempt-{attempt:06d}"

    @property
    def evaluation(self) -> Path:
        """Scores of checkpoints, as `evaluate` found them."""
        return self.root / "evaluation.json"

    @property
    def lr_find(self) -> Path:
        """What a learning rate range test found."""
        return self.root / "lr-find.json"

    @property
    def lr_find_plot(self) -> Path:
        return self.root / "lr-find.png"

    @property
    def fanout(self) -> Path:
        """One folder a fan-out; only while it is at work, or if something failed in it."""
        return self.root / "fanout"
