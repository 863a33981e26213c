"""Where a run stands: what the header of a checkpoint says beside the tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from clusterseg.runs.checkpoints import checkpoint_name
from clusterseg.runs.records import CheckpointHeader, Epoch
from clusterseg.train.batching import Batching

_REMEMBERED = 1000  # skipped steps: a header must stay short


@dataclass
class Progress:
    """The position in the data and what was measured on the way; equal on all ranks.

    `epoch` completed epochs, `step` optimizer steps of the whole run, `step_in_epoch` those of
    the epoch in progress, which have read `samples_in_epoch` places of its order. `validated`: the
    last completed epoch has been. The sums are over the steps of the epoch in progress: of pixel
    losses, of their weights, of seconds, of the images that all ranks read, of the steps that
    changed no weight. `learning_rate` is that of the last step whose window was closed. `skipped`
    are the newest of the steps (from 1) that were counted and changed nothing.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    samples_in_epoch: int = 0
    validated: bool = True
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    seconds: float = 0.0
    images: int = 0
    skipped_steps: int = 0
    learning_rate: float | None = None
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    best: dict[str, float | int | str | None] | None = None
    skipped: list[int] = field(default_factory=list)

    @property
    def val_accuracy(self) -> float:
        """Of the last validated epoch; 0 before the first."""
        value = self.history[-1]["val_accuracy"] if self.history else None
        return float(value) if value is not None else 0.0

    @property
    def checkpoint_name(self) -> str:
        """The name without a step belongs to validated ends of epochs alone."""
        inside = self.step_in_epoch > 0 or not self.validated
        return checkpoint_name(self.epoch, self.val_accuracy, self.step if inside else None)

    @property
    def at_validated_end(self) -> bool:
        """Whether an epoch has just been completed and validated."""
        return self.epoch > 0 and self.step_in_epoch == 0 and self.validated

    def position(self, steps_per_epoch: int, global_batch: int) -> int:
        """Steps behind it, if all had been of `global_batch`: what the schedule goes by."""
        return self.epoch * steps_per_epoch + -(-self.samples_in_epoch // global_batch)

    def advance(
        self, loss_sum: float, weight_sum: float, *, global_batch: int, epoch_samples: int
    ) -> None:
        """One optimizer step was done; the last one of an epoch completes it."""
        self.step += 1
        self.step_in_epoch += 1
        self.samples_in_epoch += global_batch
        self.loss_sum += loss_sum
        self.weight_sum += weight_sum
        if self.samples_in_epoch >= epoch_samples:
            self.epoch += 1
            self.step_in_epoch = self.samples_in_epoch = 0
            self.validated = False

    def skip(self, *, global_batch: int, epoch_samples: int) -> None:
        """A step changed nothing: its batch was read, and it counts as one."""
        self.skipped = [*self.skipped, self.step + 1][-_REMEMBERED:]
        self.advance(0.0, 0.0, global_batch=global_batch, epoch_samples=epoch_samples)

    def complete_epoch(
        self,
        val_loss: float | None,
        val_accuracy: float | None,
        val_mean_iou: float | None,
        *,
        iou: Mapping[str, float] | None = None,
        loss_scale: float | None = None,
        straggler_score: float | None = None,
    ) -> dict[str, float | int | None]:
        """The epoch's validation is done: adds its entry to the history and returns it.

        `iou`: names `iou/<class>` and values, which are flat in the entry, so that every
        clusterseg can read it. `straggler_score`: the lowest of a rank.
        """
        entry: dict[str, float | int | None] = {
            "epoch": self.epoch,
            "step": self.step,
            "loss": finite(self.loss_sum / self.weight_sum) if self.weight_sum else None,
            "val_loss": finite(val_loss),
            "val_accuracy": finite(val_accuracy),
            "val_mean_iou": finite(val_mean_iou),
            "seconds": self.seconds,
            "learning_rate": self.learning_rate,
            "images_per_second": (
                self.images / self.seconds if self.images and self.seconds else None
            ),
            "skipped_steps": self.skipped_steps,
            "loss_scale": loss_scale,
            "straggler_score": straggler_score,
            **{name: finite(value) for name, value in (iou or {}).items()},
        }
        self.history.append(entry)
        self.validated = True
        self.loss_sum = self.weight_sum = self.seconds = 0.0
        self.images = self.skipped_steps = 0
        accuracy, best = entry["val_accuracy"], self.best
        if accuracy is not None and (best is None or accuracy > float(best["val_accuracy"] or 0)):
            self.best = {
                "epoch": self.epoch,
                "step": self.step,
                "val_accuracy": accuracy,
                "file": self.checkpoint_name,
            }
        return entry

    @classmethod
    def from_header(cls, header: CheckpointHeader) -> Progress:
        sums, samples = header.epoch_sums, header.samples_in_epoch
        return cls(
            epoch=header.epoch,
            step=header.step,
            step_in_epoch=header.step_in_epoch,
            samples_in_epoch=(
                samples if samples >= 0 else header.step_in_epoch * header.global_batch
            ),
            validated=header.validated,
            loss_sum=sums.get("loss_sum", 0.0),
            weight_sum=sums.get("weight_sum", 0.0),
            seconds=sums.get("seconds", 0.0),
            images=int(sums.get("images", 0)),
            skipped_steps=int(sums.get("skipped_steps", 0)),
            learning_rate=sums.get("learning_rate"),
            history=[dict(entry) for entry in header.history],
            best=dict(header.best) if header.best else None,
            skipped=list(header.skipped),
        )

    def to_header(
        self,
        *,
        attempt: int,
        t: float,
        seed: int,
        batching: Batching,
        identity: dict[str, str],
        schedule: dict[str, float | int | str],
        times: dict[str, float],
    ) -> CheckpointHeader:
        return CheckpointHeader(
            epoch=self.epoch,
            step=self.step,
            step_in_epoch=self.step_in_epoch,
            samples_in_epoch=self.samples_in_epoch,
            attempt=attempt,
            t=t,
            val_accuracy=self.val_accuracy,
            validated=self.validated,
            seed=seed,
            global_batch=batching.global_batch,
            micro_batch=batching.batch,
            asked_batch=batching.asked,
            base_batch=batching.base,
            world_size=batching.world_size,
            identity=identity,
            schedule=schedule,
            history=list(self.history),  # the header is written while the training goes on
            best=self.best,
            epoch_sums={
                "loss_sum": self.loss_sum,
                "weight_sum": self.weight_sum,
                "seconds": self.seconds,
                "images": self.images,
                "skipped_steps": self.skipped_steps,
                **({} if self.learning_rate is None else {"learning_rate": self.learning_rate}),
            },
            skipped=self.skipped,
            times=times,
        )


def epoch_event(entry: Mapping[str, float | int | None], t: float) -> Epoch:
    """The event that says the same as an entry of the history, but for what curves.csv adds."""
    names = ("epoch", "step", "loss", "val_loss", "val_accuracy", "val_mean_iou", "seconds")
    return Epoch(t=t, rank=0, **{name: entry[name] for name in names})  # type: ignore[arg-type]


def finite(value: float | None) -> float | None:
    """None for NaN and infinity, which JSON does not know."""
    return value if value is not None and math.isfinite(value) else None
