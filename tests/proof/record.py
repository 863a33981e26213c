"""The table of docs/proof.md, from the results of a whole matrix in docs/proof.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.proof.verdict import Outcome

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS, PAGE = DOCS / "proof.json", DOCS / "proof.md"
BEGIN, END = "<!-- generated from proof.json -->", "<!-- end -->"
HEAD = (
    "| fault | launcher | attempts | steps done twice | claim to first step "
    "| final weights bit-equal |\n"
    "|---|---|---|---|---|---|\n"
)


def read_results() -> list[Outcome]:
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Outcome])


def write_results(outcomes: Sequence[Outcome]) -> None:
    text = msgspec.json.format(msgspec.json.encode(list(outcomes)), indent=1)
    RESULTS.write_bytes(text + b"\n")
    PAGE.write_text(with_table(PAGE.read_text(), outcomes))


def with_table(page: str, outcomes: Sequence[Outcome]) -> str:
    """The page with its table made anew."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table(outcomes)}{END}{after}"


def table(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for one in outcomes:
        causes = ", ".join(one.causes)
        first_step = _seconds(one.first_step)
        equal = {None: "-", True: "yes", False: "**no**"}[one.bit_equal]
        cells = [one.fault, one.launcher, causes, str(one.replayed), first_step, equal]
        rows.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(rows)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
