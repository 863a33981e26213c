"""The environment variables of the ranks: what clusterseg sets, and what the job adds to it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clusterseg.errors import ClustersegError
from clusterseg.spec.model import JobSpec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# bash (manual, section 5.2) refuses to set these, or gives them other values than it is told.
_OF_BASH = frozenset(
    {"BASHOPTS", "BASHPID", "COMP_WORDBREAKS", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "EUID"}
    | {"FUNCNAME", "GROUPS", "HISTCMD", "IFS", "LINENO", "OLDPWD", "PIPESTATUS", "POSIXLY_CORRECT"}
    | {"PPID", "PWD", "RANDOM", "SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM", "UID", "_"}
)
# Parts of names whose values are credentials: the script and the plan show every value.
_SECRET = frozenset(
    {"TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIALS"}
)
_SECRET_END = ("API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY")


def rank_variables(
    spec: JobSpec, *, threads: int, libmpi: str | None, launcher: Mapping[str, str]
) -> dict[str, str]:
    """Every variable that is set for the ranks, by name; the job's own values win.

    `threads` is the cores of a rank, `launcher` what the launcher wants to be set. Raises
    ClustersegError (`environment`) for a name or value that would not arrive as it is written.
    """
    own = spec.environment.variables
    for name, value in own.items():
        _check(name, value)
    # The rank's process reads these while it starts, before clusterseg's own code runs.
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",  # the last lines before a kill reach the log
        "TF_CPP_MIN_LOG_LEVEL": "1",  # no INFO lines of TensorFlow's C++ part
    }
    if libmpi is not None:
        variables["MPI4PY_LIBMPI"] = libmpi
    return variables | dict(launcher) | own


def _check(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise _refusal(name, "is not a name that bash can set", "letters, digits and '_'")
    if name in _OF_BASH or name.startswith("BASH_"):
        raise _refusal(name, "is set by bash itself", "use another name")
    if name.startswith("CLUSTERSEG_"):
        raise _refusal(name, "is set by clusterseg itself", "use another name")
    parts = name.upper().split("_")
    if _SECRET.intersection(parts) or name.upper().endswith(_SECRET_END):
        raise _refusal(
            name,
            "looks like a credential, and the script would show it",
            "export it before you submit (ranks inherit it), or read it from a file in "
            "environment.setup",
        )
    if "\0" in value:
        raise _refusal(name, "holds a zero byte, which no variable can", "remove it")


def _refusal(name: str, what: str, help: str) -> ClustersegError:
    return ClustersegError(
        f"environment.variables.{name}: it {what}", code="environment", help=help
    )
