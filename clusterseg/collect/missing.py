"""What could not be read, in plain sentences for the summary's `missing`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from clusterseg.collect.reading import Reading
from clusterseg.runs.attempts import Attempt

# Ranges of ranks that a sentence names before it says "and more".
_MOST_RANGES = 8
# More different complaints of ranks than this are counted, not listed.
_MOST_COMPLAINTS = 20


def what_is_missing(
    attempt: Attempt, reading: Reading, ranks: int | None, *, running: bool
) -> list[str]:
    """One sentence a finding about one attempt; none if all of it was read.

    `running`: the attempt goes on, so that having no end, or a line without end, is no loss.
    """
    found = list(attempt.problems)
    if attempt.claim is None and not found:
        found.append("it has no claim")
    if attempt.end is None and not running and not any("end is damaged" in f for f in found):
        found.append("it has no end record")
    if reading.problem is not None:
        found.append(reading.problem)
    present = {log.rank for log in reading.ranks}
    absent = [] if ranks is None else _absent(present, ranks)
    if absent and present:
        found.append(f"no event log of {name_ranges('rank', absent)}")
    elif absent and not running:  # a `command:` program writes none
        found.append("no event log of any rank")
    found += _complaints(reading, running)
    return [f"attempt {attempt.number}: {finding}" for finding in found]


def missing_attempts(numbers: Sequence[int]) -> list[str]:
    """Says which attempts lie between others (or before them) but are not there."""
    gaps = []
    expected = 0
    for number in sorted(numbers):
        if number > expected:
            gaps.append((expected, number - 1))
        expected = number + 1
    return [f"{name_ranges('attempt', gaps)}: nothing is there"] if gaps else []


def name_ranges(noun: str, ranges: Sequence[tuple[int, int]]) -> str:
    """`rank 3`, `ranks 0-3, 7`; both ends of a range belong to it."""
    shown = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges[:_MOST_RANGES])
    more = " and more" if len(ranges) > _MOST_RANGES else ""
    single = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return f"{noun if single else noun + 's'} {shown}{more}"


def _absent(present: set[int], ranks: int) -> list[tuple[int, int]]:
    """The ranks below `ranks` that are not present, as ranges. Never counts up to `ranks`."""
    gaps = []
    expected = 0
    for rank in sorted(rank for rank in present if rank < ranks):
        if rank > expected:
            gaps.append((expected, rank - 1))
        expected = rank + 1
    if expected < ranks:
        gaps.append((expected, ranks - 1))
    return gaps


def _complaints(reading: Reading, running: bool) -> list[str]:
    """What is wrong with the ranks' logs; ranks with the same trouble share a sentence."""
    ranks_by_trouble: dict[str, list[int]] = defaultdict(list)
    for log in reading.ranks:
        if log.problem is not None:
            ranks_by_trouble[f"could not be read: {log.problem}"].append(log.rank)
        if log.unreadable:
            lines = "1 line" if log.unreadable == 1 else f"{log.unreadable} lines"
            ranks_by_trouble[f"{lines} could not be read"].append(log.rank)
        if log.torn and not running:
            ranks_by_trouble["the last line is torn"].append(log.rank)
        if not (log.events or log.problem or log.unreadable or log.torn or running):
            ranks_by_trouble["the event log is empty"].append(log.rank)
    troubles = sorted(ranks_by_trouble.items(), key=lambda item: item[1])
    sentences = [
        f"{name_ranges('rank', _ranges(ranks))}: {trouble}"
        for trouble, ranks in troubles[:_MOST_COMPLAINTS]
    ]
    if len(troubles) > _MOST_COMPLAINTS:
        sentences.append(f"{len(troubles) - _MOST_COMPLAINTS} more troubles of this kind")
    return sentences


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
