"""What is said after several runs were started at once (an array, a sweep)."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from clusterseg.cli.hints import reference, show_hints
from clusterseg.cli.output import note, out, out_json
from clusterseg.errors import ExitCode
from clusterseg.runs.paths import RunPaths
from clusterseg.submit.submission import Submitted


def after_several(job_id: str, started: Sequence[Submitted], *, wait: bool, as_json: bool) -> None:
    """Prints the runs; with `wait` stays until all have ended.

    The exit code then is 0 if all are done, 1 if one failed, 3 if one was never started, else 75.
    """
    if as_json:
        runs = [
            {"run": one.run, "run_dir": str(one.run_dir), "job_id": one.job_id} for one in started
        ]
        out_json({**runs[0], "job_id": job_id, "runs": runs})
    else:
        for one in started:
            out(one.run)
    note(f"submitted {len(started)} runs as {job_id}")
    if wait:
        from clusterseg.cli.ending import attend

        note("Ctrl-C leaves them running")
        codes = {attend(RunPaths(one.run_dir), follow=False, quiet=as_json)[1] for one in started}
        worst = (
            *(ExitCode.INTERRUPTED, ExitCode.FAILED, ExitCode.CLUSTER),
            *(ExitCode.STOPPED, ExitCode.OK),
        )
        raise typer.Exit(next((int(code) for code in worst if code in codes), 1))
    if not as_json:
        name = reference(RunPaths(started[0].run_dir))
        show_hints(
            [
                ("clusterseg list", "how they stand"),
                (f"clusterseg logs -f {name}", "what the ranks of one print"),
                (f"clusterseg cancel {name}", "stop one, resumably"),
            ]
        )
