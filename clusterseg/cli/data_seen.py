"""What the data set of a job tells before its ranks open it: lists and names, no picture but one's
header where the job gives no size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.plan.model import Plan


def identity_of_data(plan: Plan, *, say: Callable[[str], None]) -> Mapping[str, str]:
    """What must be the same for a run to go on, with what the data set adds (`train.identity`).

    Empty if it can't be opened from here and the ranks run elsewhere, which is said: they compare
    then. Raises ClustersegError if they run here.
    """
    from clusterseg.data.dataset import names_digest
    from clusterseg.data.open import open_dataset
    from clusterseg.submit.seen import path_of_ranks, run_here
    from clusterseg.train.identity import identity

    train = plan.spec.train
    if train is None:
        return {}
    spec = replace(train.data, root=str(path_of_ranks(plan, train.data.root)))
    try:
        dataset = open_dataset(spec, train.loss.ignore)
    except (ClustersegError, OSError) as found:
        error = found if isinstance(found, ClustersegError) else _of_the_system(found)
        if run_here(plan):
            raise error from found
        say(
            f"the data set can't be opened from here ({error.message}): whether it is that of the "
            "checkpoint, the ranks will tell when they start"
        )
        return {}
    return identity(
        train,
        classes=train.model.classes or dataset.classes,
        size=dataset.size,
        samples=len(dataset.train),
        listed=names_digest(dataset.train, Path(spec.root)),
    )


def _of_the_system(error: OSError) -> ClustersegError:
    return ClustersegError(f"{error.filename}: {error.strerror}", code="no-data")
