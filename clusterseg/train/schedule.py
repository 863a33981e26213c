"""The learning rate as a pure function of the position in the run."""

from __future__ import annotations

from clusterseg.spec.model import OptimizerSpec, ScheduleSpec


def base_learning_rate(spec: OptimizerSpec, world_size: int) -> float:
    """The rate before the schedule; times the world size if `scale_with_ranks`.

    Linear scaling with the global batch: Goyal et al. 2017, arXiv:1706.02677, section 2.1.
    """
    return spec.learning_rate * (world_size if spec.scale_with_ranks else 1)


def learning_rate(
    spec: ScheduleSpec, base: float, *, step: int, steps_per_epoch: int, epochs: int
) -> float:
    """The rate of optimizer step `step` (from 0, over the whole run).

    Warm-up is linear over `warmup_epochs`: its first step has base / warm-up steps, its last one
    base (Goyal et al. 2017, section 2.2). The polynomial then falls from base to 0:
    base x (1 - done / all) ** power over the steps after warm-up (Chen et al. 2017,
    arXiv:1606.00915, section 4.1). It is above 0 at every step of the run.
    """
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return base * (step + 1) / warmup
    if spec.name == "constant":
        return base
    if spec.name == "polynomial":
        # A run that was made shorter for a resume may have more steps behind it than it wants.
        left = max(0.0, 1 - (step - warmup) / max(1, epochs * steps_per_epoch - warmup))
        return float(base * left**spec.power)
    raise ValueError(f"unknown schedule {spec.name!r}")
