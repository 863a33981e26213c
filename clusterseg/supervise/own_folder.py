"""A folder on this host that a launcher has to itself for one attempt.

Open MPI 5 (5.0.11, PRRTE 3.0.14) names the folder of its files after its process id, and does not
come up where that of an earlier one with this number was left behind, as by every one that was
killed: "The PMIx server's listener thread failed to start". On other hosts its daemons choose for
themselves, and remove what they made.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from clusterseg.plan.model import Plan
from clusterseg.runs.paths import RunPaths

# PRRTE refuses to start if it is told of one folder for all and of another for this host.
_SAID = re.compile(r"tmpdir_base\b")
_NAME = re.compile(r"clusterseg-[0-9a-f]{16}")
# Below the folder of the MPI, and that of its user.
_SITES = ("etc/prte-mca-params.conf", "etc/openmpi-mca-params.conf")
_USERS = (".prte/mca-params.conf", ".openmpi/mca-params.conf")


def own_folder(environ: Mapping[str, str], run: RunPaths, attempt: int) -> Path:
    """The same for whoever asks on this host: a later attempt removes what an earlier one left."""
    name = hashlib.sha256(f"{run.root}\0{attempt}".encode(errors="surrogateescape")).hexdigest()
    return _base(environ) / f"clusterseg-{name[:16]}"


def is_chosen(environ: Mapping[str, str], argv: Sequence[str], settings: Iterable[str]) -> bool:
    """Whether somebody has said already where the files go: in a variable, in the launch line, or
    in one of the texts of `settings` (lines `name = value`)."""
    lines = (line.split("#", 1)[0] for text in settings for line in text.splitlines())
    return any(_SAID.search(word) for words in (environ, argv, lines) for word in words)


def make_own_folder(
    environ: Mapping[str, str], plan: Plan, run: RunPaths, attempt: int, argv: Sequence[str]
) -> dict[str, str]:
    """Makes it, empty; the variable by which the launcher learns of it.

    None where the launcher needs none, another place was chosen, or there can be none: it then
    starts as it does by itself.
    """
    variable = plan.session_variable
    if variable is None:
        return {}
    inherited = _NAME.fullmatch(Path(environ.get(variable, "")).name)  # of a run that started this
    given = {name: "" for name in environ if name != variable or not inherited}
    if is_chosen(given, argv, _settings(environ, plan)):
        return {}
    for earlier in range(attempt + 1):  # whose supervisor was killed
        remove_own_folder(environ, run, earlier)
    folder = own_folder(environ, run, attempt)
    try:
        folder.mkdir(mode=0o700)  # no other user's, who may have foreseen the name
    except OSError:
        return {}
    return {variable: str(folder)}


def remove_own_folder(environ: Mapping[str, str], run: RunPaths, attempt: int) -> None:
    """Removes it with what a killed launcher has left in it."""
    folder = own_folder(environ, run, attempt)
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def _base(environ: Mapping[str, str]) -> Path:
    """Where the launcher would make it by itself."""
    given = Path(environ.get("TMPDIR") or "/tmp")  # noqa: S108
    return given if given.is_absolute() and given.is_dir() else Path("/tmp")  # noqa: S108


def _settings(environ: Mapping[str, str], plan: Plan) -> Iterable[str]:
    prefix = Path(environ.get("OPAL_PREFIX") or Path(plan.mpirun).parent.parent)
    home = Path(environ.get("HOME") or "/")
    for file in (*(prefix / site for site in _SITES), *(home / user for user in _USERS)):
        with suppress(OSError):
            yield file.read_text(errors="replace")
