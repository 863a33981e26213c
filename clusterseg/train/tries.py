"""The tries of a save that all ranks wait for: at a stop, and at the end of a run."""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterseg.train.failures import SaveFailure, warn
from clusterseg.train.saving_policy import Act, SavingPatience, Trouble, after_failures

_LOOK = 0.5  # seconds between two looks whether it has become urgent


class Tries:
    """Of one save, on rank 0. `hurry` says whether it has become urgent, `deadline` by when all is
    to be over then (unix seconds; None: nobody knows). A try takes about `write` seconds."""

    def __init__(
        self,
        patience: SavingPatience,
        hurry: Callable[[], bool],
        deadline: Callable[[], float | None] = lambda: None,
        write: float = 0.0,
    ) -> None:
        self._patience = patience
        self._hurry = hurry
        self._deadline = deadline
        self._write = write
        self._history: list[Trouble] = []
        self._hurried = False
        self._at = 0.0

    def wait(self) -> None:
        """Until the next try; less long as soon as it is urgent."""
        while (left := self._at - time.monotonic()) > 0:
            if not self._hurried and self._hurry():
                return
            time.sleep(min(left, _LOOK))

    def are_over_after(self, failure: SaveFailure) -> bool:
        """Notes a try that failed; whether it was the last one."""
        if not self._hurried and self._hurry():
            self._hurried = True
            self._history.clear()
        self._history.append(Trouble(failure.kind, time.monotonic()))
        following = after_failures(
            self._history, self._patience, hurry=self._hurried, until=self._last_chance()
        )
        self._at = following.at
        if following.act is Act.RETRY:
            warn(f"{failure.message}; all ranks wait for the next try")
        return following.act is Act.GIVE_UP

    def _last_chance(self) -> float | None:
        """When the last try may begin, by the steady clock."""
        deadline = self._deadline() if self._hurried else None
        if deadline is None:
            return None
        left = deadline - time.time() - self._patience.spare - self._write
        return time.monotonic() + left
