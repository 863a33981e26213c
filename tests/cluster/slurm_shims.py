"""Programs in front of Slurm's own that count their calls, and fail as told.

What can't be made to happen with a real Slurm at will: an answer that is empty, cut off, late,
garbage, or about somebody else's jobs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# $real: the program behind this one; $mark: what parts squeue's or sacct's fields.
_SCRIPT = """#!/bin/bash
here=$(dirname "$0")/state; name=$(basename "$0"); real={real}
for word; do case $word in
  --delimiter=*) mark=${{word#--delimiter=}};;
  *%A*) mark=${{word%%\\%*}};;
esac; done
echo "$$ $*" >> "$here/$name.calls"
fault=$(cat "$here/$name.fault" 2>/dev/null)
case $fault in
  empty) exit 0;;
  fail) echo "slurm_load_jobs error: Unexpected message received" >&2; exit 1;;
  refuse) echo "$name: error: Invalid user" >&2; exit 1;;
  disabled) echo "Slurm accounting storage is disabled" >&2; exit 1;;
  garbage) head -c 4096 /dev/urandom; exit 0;;
  torn) "$real" "$@" | head -c 200; exit 0;;
  foreign) "$real" "$@" | sed -E 's/clusterseg:[0-9a-f]{{32}}/clusterseg:'$(printf '%032d' 0)'/g';;
  late*) sleep "${{fault#late}}"; exec "$real" "$@";;
  hang) exec sleep 1000;;
  recorded) sed "s/<mark>/$mark/g" "$here/$name.recorded";;
  *) exec "$real" "$@";;
esac
"""


class Shims:
    """A folder for the front of the PATH, with a squeue and a sacct."""

    def __init__(self, folder: Path, path: str = os.environ.get("PATH", os.defpath)) -> None:
        self.folder = folder
        self._state = folder / "state"
        self._state.mkdir(parents=True)
        for name in ("squeue", "sacct"):
            real = shutil.which(name, path=path) or "/bin/false"
            (folder / name).write_text(_SCRIPT.format(real=real))
            (folder / name).chmod(0o755)
        self.path = f"{folder}:{path}"

    def fault(self, name: str, what: str | None) -> None:
        """From now on; None: none. `late3`: three seconds late."""
        (self._state / f"{name}.fault").write_text(what or "")

    def record(self, name: str, answer: str) -> None:
        """Answers with this text, in which `<mark>` stands for what parts the fields."""
        (self._state / f"{name}.recorded").write_text(answer)
        self.fault(name, "recorded")

    def calls(self, name: str) -> int:
        """How often a program was called so far."""
        file = self._state / f"{name}.calls"
        return len(file.read_text().splitlines()) if file.exists() else 0


def queue_line(
    job_id: str, *, key: str | None, state: str = "PENDING", reason: str = "None", start: str = ""
) -> str:
    """A job as squeue prints it, for `Shims.record`."""
    number = job_id.partition("_")[0]
    comment = f"clusterseg:{key}" if key else "(null)"
    fields = [number, job_id, str(os.getuid()), state, "1700000000", start or "N/A", "N/A", "1"]
    fields += ["low", "1", reason, "", f"x.{(key or '')[:12]}", comment]
    return "<mark>" + "".join(f"{field}<mark>" for field in fields)


HEADER = "<mark>" + "".join(
    f"{title}<mark>"
    for title in (
        *("JOBID", "JOBID", "UID", "STATE", "SUBMIT_TIME", "START_TIME", "END_TIME", "PRIORITY"),
        *("PARTITION", "NODES", "REASON", "NODELIST", "NAME", "COMMENT"),
    )
)


def queue_text(*lines: str) -> str:
    """All that squeue prints."""
    return "".join(f"{line}\n" for line in (HEADER, *lines))
