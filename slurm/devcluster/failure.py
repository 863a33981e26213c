"""What devcluster says when it can't do what it was asked for."""

from __future__ import annotations


class DevclusterError(Exception):
    """Shown without a traceback: what went wrong and where, then what to do about it."""

    def __init__(self, message: str, *, help: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.help = help
        self.exit_code = exit_code


class WaitedInVain(DevclusterError):
    """Something did not happen in its time."""
