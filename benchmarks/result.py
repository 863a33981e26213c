"""What a benchmark found: one line of JSON each, and the table of many."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Result:
    """One figure. `ratio` is it over (or under) the figure of `beside`, of the same run.

    `unit` is a short name ("s", "images/s", "MB"); `aim` says in words what it should be
    ("ratio <= 1.5"), `met` whether it is (None where nothing is aimed at).
    """

    bench: str
    what: str
    value: float
    unit: str
    beside: str = ""
    ratio: float | None = None
    aim: str = ""
    met: bool | None = None

    def values(self) -> dict[str, object]:
        return asdict(self)

    def emit(self) -> None:
        """Prints the result for `benchmarks/run` to read."""
        print(json.dumps(self.values()), flush=True)

    @classmethod
    def from_line(cls, line: str) -> Result:
        return cls(**json.loads(line))


def table(results: list[Result]) -> str:
    head = ("benchmark", "what", "value", "unit", "ratio", "beside", "aim", "met")
    rows = [head, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
             for row in rows]  # fmt: skip
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.bench,
        result.what,
        f"{result.value:.4g}",
        result.unit,
        "" if result.ratio is None else f"{result.ratio:.2f}",
        result.beside,
        result.aim,
        {None: "", True: "yes", False: "NO"}[result.met],
    )
