"""`resources.hosts` as one text: `n[1-3,07]:4,gpu-a[1-2]-x:2`."""

from __future__ import annotations

import re

from clusterseg.hostlist import with_counts
from clusterseg.spec.errors import clip
from clusterseg.spec.fields import HOST_PATTERN

HOST_NAME = re.compile(HOST_PATTERN)
HOSTS_FORM = "hosts as Slurm writes them: `n[1-3]:4,m1:2`"


def parse_hosts(text: str) -> dict[str, int | None]:
    """The hosts that `text` names, each with its ranks; None where it says no number.

    Raises ValueError, saying what was expected.
    """
    try:
        hosts = with_counts(text)
    except ValueError as error:
        raise ValueError(f"{error}; expected {HOSTS_FORM}") from None
    wrong = next((host for host in hosts if not HOST_NAME.fullmatch(host)), None)
    if wrong is not None:
        raise ValueError(f"`{clip(wrong)}` is not a host name; expected {HOSTS_FORM}")
    return hosts
