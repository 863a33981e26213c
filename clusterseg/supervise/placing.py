"""The check of one attempt's placement at its start: once, when the ranks have told."""

from __future__ import annotations

import os
import time

from clusterseg.cluster.processes import host_name
from clusterseg.plan.model import Plan
from clusterseg.runs.affinity import cpu_places
from clusterseg.runs.placement import PlacementCheck, write_check
from clusterseg.supervise.cores import Ground
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.placement import Findings, check_placement, check_world
from clusterseg.supervise.watch import Watch


class Placing:
    """Looks until all ranks have started, or until those that have can't be right."""

    def __init__(self, plan: Plan, watch: Watch, journal: Journal) -> None:
        self._plan, self._watch, self._journal = plan, watch, journal
        self._verify = plan.spec.placement.verify
        self._seen = 0  # ranks whose world was looked at
        self._done = self._verify == "off"

    def look(self) -> str | None:
        """Says what is not as planned; returns the error that the attempt has to end with."""
        if self._done:
            return None
        starts = self._watch.starts()
        if len(starts) == self._seen:
            return None
        self._seen = len(starts)
        if len(starts) == self._watch.count:
            return self._report(check_placement(self._plan, starts, ground=_own_ground()))
        found = check_world(self._plan, starts)
        return self._report(found) if found.wrong else None

    def _report(self, found: Findings) -> str | None:
        self._done = True
        problems = [*found.wrong, *found.doubtful]
        for problem in problems:
            self._journal.say(f"placement: {problem}")
        if not problems:
            self._journal.note("placement: the ranks are where they were planned to be")
        check = PlacementCheck(t=time.time(), problems=problems, ranks=list(found.ranks))
        try:
            write_check(self._watch.paths, check)
        except OSError as error:  # the log has it
            self._journal.note(f"placement: what was found can't be recorded: {error}")
        grave = found.wrong or (found.doubtful if self._verify == "fail" else ())
        return f"placement: {'; '.join(grave)}" if grave else None


def _own_ground() -> Ground:
    """Where the supervisor may run: on its own host its job may not run elsewhere."""
    return {host_name(): cpu_places(os.sched_getaffinity(0))}
