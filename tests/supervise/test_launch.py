"""What a launcher is started with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clusterseg.runs.paths import RunPaths
from clusterseg.supervise.launch import rank_environment


def test_no_variable_that_ranks_need_is_the_last_one(tmp_path: Path) -> None:
    """Hydra never finds that one: tests/launchers has it with ranks on other hosts."""
    plan: Any = SimpleNamespace(environment={"A": "1"}, argv=())
    outer = rank_environment({"B": "2", "A": "3"}, plan, RunPaths(tmp_path), 4)
    inner = rank_environment(outer, plan, RunPaths(tmp_path), 5)
    for environ, attempt in ((outer, "4"), (inner, "5")):
        *needed, last = environ
        assert last == "CLUSTERSEG_LAST"
        assert {"A", "B", "CLUSTERSEG_STOP_FILE"} < set(needed)
        assert (environ["A"], environ["CLUSTERSEG_ATTEMPT"]) == ("3", attempt)
