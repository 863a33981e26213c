"""The table in the documentation is that of the recorded matrix, and the matrix was whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.proof import record
from tests.proof.faults import BOTH, FAULTS


def test_the_page_shows_what_was_recorded() -> None:
    outcomes = record.read_results()
    page = record.PAGE.read_text()
    assert record.with_table(page, outcomes) == page


def test_every_fault_was_met_with_both_launchers_and_nothing_was_wrong() -> None:
    outcomes = record.read_results()
    found = [(one.launcher, one.fault) for one in outcomes if "undisturbed" not in one.fault]
    assert sorted(found) == sorted((launcher, fault.name) for fault in FAULTS for launcher in BOTH)
    assert [one.wrong for one in outcomes if one.wrong] == []
    assert all(one.bit_equal for one in outcomes if "undisturbed" not in one.fault)


@pytest.mark.parametrize("change", [{"replayed": 12345}, {"bit_equal": False}])
def test_another_result_is_another_page(change: dict[str, Any]) -> None:
    outcomes = record.read_results()
    others = [*outcomes[:-1], msgspec.structs.replace(outcomes[-1], **change)]
    assert record.with_table(record.PAGE.read_text(), others) != record.PAGE.read_text()
