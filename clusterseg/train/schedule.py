"""The learning rate as a pure function of the position in the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from clusterseg.spec.model import OptimizerSpec, ScheduleSpec


def base_learning_rate(spec: OptimizerSpec, factor: float) -> float:
    """The rate before the schedule; times `factor` if `scale_with_ranks`."""
    return spec.learning_rate * rate_scale(spec, factor)


def rate_scale(spec: OptimizerSpec, factor: float) -> float:
    """What the learning rates of job.yaml are multiplied by: `Batching.rate_factor`, or 1."""
    return factor if spec.scale_with_ranks else 1


def learning_rate(
    spec: ScheduleSpec,
    base: float,
    *,
    step: int,
    steps_per_epoch: int,
    epochs: int,
    scale: float = 1.0,
) -> float:
    """The rate of optimizer step `step` (from 0, over the whole run: `Progress.position`).

    Warm-up is linear over `warmup_epochs`, to where the schedule begins: its first step has that
    rate / warm-up steps, its last one that rate (Goyal et al. 2017, section 2.2). `scale` is what
    `min_learning_rate` is multiplied by, as `base` was.
    """
    if spec.name not in SCHEDULES:
        raise ValueError(f"unknown schedule {spec.name!r}")
    schedule = SCHEDULES[spec.name]
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    at = _Position(max(step, warmup), warmup, steps_per_epoch, epochs)
    rate = schedule(spec, base, scale, at)
    return float(rate if step >= warmup else rate * (step + 1) / warmup)


@dataclass(frozen=True)
class _Position:
    """Steps done in the whole run, and the steps of its warm-up."""

    step: int
    warmup: int
    steps_per_epoch: int
    epochs: int

    @property
    def left(self) -> float:
        """The fraction of the steps after warm-up that is yet to be done; above 0 in the run."""
        all_steps = max(1, self.epochs * self.steps_per_epoch - self.warmup)
        # A run that was made shorter for a resume may have more steps behind it than it wants.
        return max(0.0, 1 - (self.step - self.warmup) / all_steps)


Schedule = Callable[[ScheduleSpec, float, float, _Position], float]


def _constant(spec: ScheduleSpec, base: float, scale: float, at: _Position) -> float:
    """base"""
    return base


def _polynomial(spec: ScheduleSpec, base: float, scale: float, at: _Position) -> float:
    """low + (base - low) (1 - done / all) ** power: Chen et al. 2017, arXiv:1606.00915, section
    4.1, there with low = 0."""
    low = _option(spec, "min_learning_rate", 0.0) * scale
    return float(low + (base - low) * at.left**spec.power)


def _cosine(spec: ScheduleSpec, base: float, scale: float, at: _Position) -> float:
    """low + (base - low) (1 + cos(pi done / all)) / 2: Loshchilov and Hutter 2017,
    arXiv:1608.03983, equation 5, without restarts."""
    low = _option(spec, "min_learning_rate", 0.0) * scale
    return low + (base - low) * 0.5 * (1 + math.cos(math.pi * (1 - at.left)))


def _cyclic(spec: ScheduleSpec, base: float, scale: float, at: _Position) -> float:
    """Triangles from low to base and back: Smith 2017, arXiv:1506.01186, section 3.1.

    Its advice (sections 3.2, 3.3): half a triangle of 2 to 10 epochs; low a third or a quarter.
    """
    given = spec.options.get("min_learning_rate")
    low = base / 4 if given is None else float(given) * scale
    cycle = _option(spec, "cycle_epochs", 4.0) * at.steps_per_epoch
    within = (at.step - at.warmup) % cycle / cycle
    return low + (base - low) * (1 - abs(2 * within - 1))


def _step(spec: ScheduleSpec, base: float, scale: float, at: _Position) -> float:
    """base factor ** floor(epoch / every_epochs): He et al. 2016, arXiv:1512.03385, section 3.4
    divides by 10 in this way; every 30 epochs is what its implementations on ImageNet do."""
    every = int(_option(spec, "every_epochs", 30)) * at.steps_per_epoch
    return float(base * _option(spec, "factor", 0.1) ** (at.step // every))


def _three_step_decay(spec: ScheduleSpec, base: float, scale: float, at: _Position) -> float:
    """base / 10 from 1/3 of the run on, / 100 from 2/3, / 1000 in its last epoch (Blueoil's
    `3-step-decay`); what would come before the first step is left out."""
    all_steps = at.epochs * at.steps_per_epoch
    marks = (all_steps / 3, all_steps * 2 / 3, (at.epochs - 1) * at.steps_per_epoch)
    return float(base / 10 ** sum(0 < mark <= at.step for mark in marks))


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "constant": _constant,
        "polynomial": _polynomial,
        "cosine": _cosine,
        "cyclic": _cyclic,
        "step": _step,
        "three_step_decay": _three_step_decay,
    }
)


def _option(spec: ScheduleSpec, name: str, default: float) -> float:
    return float(spec.options.get(name, default))
