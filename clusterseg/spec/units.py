"""Times, sizes and intervals: from the way people write them to seconds and bytes, and back.

Every `parse_*` raises ValueError with a message that says what was expected.
"""

from __future__ import annotations

import re

from clusterseg.spec.model import Every

TIME_FORMS = "minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s"
SIZE_FORMS = "a whole number with K, M, G or T, such as 64G"
INTERVAL_FORMS = "a time such as 90s, 10m, 1h or 1h30m, `500 steps`, or auto"

_LARGEST = 2**31 - 1  # Slurm holds a limit in 32 bits
_NUMBER = r"([0-9]{1,10})"
_TIMES = (  # pattern, seconds of each group (time_str2secs in Slurm's parse_time.c)
    (re.compile(rf"{_NUMBER}-{_NUMBER}(?::{_NUMBER})?(?::{_NUMBER})?"), (86400, 3600, 60, 1)),
    (re.compile(rf"{_NUMBER}:{_NUMBER}:{_NUMBER}"), (3600, 60, 1)),
    (re.compile(rf"{_NUMBER}(?::{_NUMBER})?"), (60, 1)),
)
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)", re.IGNORECASE)
_FACTORS = {"K": 2**10, "M": 2**20, "": 2**20, "G": 2**30, "T": 2**40}
_SPAN = re.compile(r"(?:([0-9]{1,10})d)?(?:([0-9]{1,10})h)?(?:([0-9]{1,10})m)?(?:([0-9]{1,10})s)?")
_STEPS = re.compile(r"([0-9]{1,12}) *steps?")


def parse_time(text: str) -> int:
    """Seconds of a time limit as sbatch reads it: a bare number is minutes.

    Like Slurm, no part has an upper bound (`90:00` is an hour and a half). Slurm's words for
    no limit (UNLIMITED, INFINITE, 0) are refused: leaving the key out says that.
    """
    text = text.strip()
    if text.upper() in ("UNLIMITED", "INFINITE", "-1"):
        raise ValueError("to ask for no limit of your own, leave the key out")
    for pattern, factors in _TIMES:
        found = pattern.fullmatch(text)
        if found:
            parts = [int(part or 0) for part in found.groups()]
            seconds = sum(part * factor for part, factor in zip(parts, factors, strict=True))
            if seconds > _LARGEST:
                raise ValueError("expected a time that Slurm can hold (below 68 years)")
            if seconds == 0:
                raise ValueError("to ask for no limit of your own, leave the key out")
            return seconds
    raise ValueError(f"expected {TIME_FORMS}")


def format_time(seconds: int) -> str:
    """`h:mm:ss` or `d-hh:mm:ss`, which `parse_time` and Slurm read as the same seconds."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour:02}:{minute:02}:{second:02}"
    return f"{days}-{clock}" if days else clock


def parse_size(text: str) -> int:
    """Bytes of a size as Slurm reads it: powers of 1024, a bare number is megabytes."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"expected {SIZE_FORMS}")
    size = int(found[1]) * _FACTORS[found[2].upper()]
    if size == 0:
        raise ValueError(f"expected {SIZE_FORMS}, and more than 0")
    if size >= 2**63:
        raise ValueError("expected a size below 8 exabytes")
    return size


def format_size(size: int) -> str:
    """A size for Slurm in the largest unit that holds it exactly; rounded up to kilobytes."""
    for unit in ("T", "G", "M"):
        if size % _FACTORS[unit] == 0 and size:
            return f"{size // _FACTORS[unit]}{unit}"
    return f"{-(-size // 1024)}K"


def parse_interval(text: str) -> Every:
    """When to do something again: `10m`, `1h30m`, `500 steps` or `auto`."""
    text = text.strip()
    if text == "auto":
        return Every(auto=True)
    found = _STEPS.fullmatch(text)
    if found and int(found[1]) > 0:
        return Every(steps=int(found[1]))
    found = _SPAN.fullmatch(text)
    if found:
        parts = [int(part or 0) for part in found.groups()]
        days, hours, minutes, seconds = parts
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if 0 < total <= _LARGEST:
            return Every(seconds=float(total))
    raise ValueError(f"expected {INTERVAL_FORMS}")


def format_interval(every: Every) -> str:
    """The text that `parse_interval` reads as `every` (whole seconds)."""
    if every.auto:
        return "auto"
    if every.steps is not None:
        return f"{every.steps} steps"
    seconds = round(every.seconds or 0)
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % factor == 0 and seconds:
            return f"{seconds // factor}{unit}"
    return f"{seconds}s"
