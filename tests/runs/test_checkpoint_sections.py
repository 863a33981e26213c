"""Damage in every section of a checkpoint: it is noticed and named, and the previous one taken."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.runs import checkpoint_file
from clusterseg.runs.checkpoint_file import CheckpointError, Tensor, read_layout, read_verified
from clusterseg.runs.checkpoints import CheckpointInfo, checkpoint_name, commit_checkpoint, verify
from clusterseg.runs.choice import newest_acceptable
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader
from tests.runs.test_checkpoints import claim

SEEDS = range(8)
SECTIONS = (
    "length",
    "sha256",
    "clusterseg header",
    "descriptions",
    "padding",
    "first tensor",
    "middle tensor",
    "last tensor",
)


def tensors(step: int) -> list[Tensor]:
    values = random.Random(step)
    return [
        Tensor("a/counts", "I64", (64,), memoryview(array("q", range(64)))),
        *(
            Tensor(
                f"model/{number}/kernel",
                "F32",
                (3, 3, 16),
                memoryview(array("f", (values.random() for _ in range(144)))),
            )
            for number in range(5)
        ),
        Tensor("z/mask", "U8", (33,), memoryview(bytes(33))),
    ]


def save(paths: RunPaths, step: int) -> CheckpointInfo:
    paths.checkpoints.mkdir(parents=True, exist_ok=True)
    # Of such a length that the header ends in blanks.
    for fill in range(8):
        header = CheckpointHeader(
            epoch=0, step=step, step_in_epoch=step, attempt=0, t=1.0, identity={"x": "y" * fill}
        )
        raw = checkpoint_file._raw_header(header, tensors(step))
        if raw.endswith(b"    "):
            break
    name = checkpoint_name(0, 0.0, step)
    return commit_checkpoint(paths.checkpoints, name, header, tensors(step), accepted={})


def bounds(path: Path) -> dict[str, tuple[int, int]]:
    """section -> (first byte, byte behind the last)."""
    layout = read_layout(path)
    raw = layout.raw_header
    digits = 8 + raw.index(layout.sha256.encode())
    own = 8 + raw.index(b'"clusterseg"')
    end_of_own = 8 + raw.index(b'"},', own - 8)
    blanks = len(raw) - len(raw.rstrip(b" "))
    assert blanks >= 4
    slots = sorted((slot.begin, slot.end) for slot in layout.tensors.values())
    placed = [(layout.data_offset + begin, layout.data_offset + end) for begin, end in slots]
    return {
        "length": (0, 8),
        "sha256": (digits, digits + 64),
        "clusterseg header": (own, end_of_own),
        "descriptions": (end_of_own, layout.data_offset - blanks),
        "padding": (layout.data_offset - blanks, layout.data_offset),
        "first tensor": placed[0],
        "middle tensor": placed[len(placed) // 2],
        "last tensor": placed[-1],
    }


def flipped(path: Path, section: str, seed: int) -> None:
    """One random bit of the section."""
    draw = random.Random(f"{section}-{seed}")
    begin, end = bounds(path)[section]
    content = bytearray(path.read_bytes())
    content[draw.randrange(begin, end)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncated(path: Path, section: str, seed: int) -> None:
    """It ends somewhere in the section."""
    draw = random.Random(f"{section}-{seed}")
    begin, end = bounds(path)[section]
    path.write_bytes(path.read_bytes()[: draw.randrange(begin, end)])


def zeroed(path: Path, section: str, seed: int) -> None:
    """A block that was never written: zeros from somewhere in the section to its end."""
    draw = random.Random(f"{section}-{seed}")
    begin, end = bounds(path)[section]
    content = bytearray(path.read_bytes())
    start = draw.randrange(begin, end)
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def test_the_sections_are_the_file(paths: RunPaths) -> None:
    info = save(paths, 7)
    places = bounds(info.path)
    assert tuple(places) == SECTIONS
    assert all(begin < end for begin, end in places.values())
    assert places["padding"][1] == places["first tensor"][0]
    assert places["last tensor"][1] == info.path.stat().st_size


@pytest.mark.parametrize("damage", [flipped, truncated, zeroed])
@pytest.mark.parametrize("section", SECTIONS)
def test_damage_in_any_section_is_named_and_the_previous_one_taken(
    section: str, damage: Callable[[Path, str, int], None], tmp_path: Path
) -> None:
    for seed in SEEDS:
        paths = RunPaths(tmp_path / f"run-{seed}")
        before, newest = save(paths, 3), save(paths, 7)
        good = newest.path.read_bytes()
        damage(newest.path, section, seed)
        if newest.path.read_bytes() == good:  # zeros over zeros are no damage
            continue
        for read in (verify, read_verified):
            with pytest.raises(CheckpointError, match=newest.name.replace(".", r"\.")):
                read(newest.path)
        choice = newest_acceptable(paths, claim(0))
        assert choice.newest is not None
        assert (choice.newest.name, choice.newest.sha256) == (before.name, before.sha256)
        assert [one.name for one in paths.checkpoints.glob("weights-*")] == [before.name]
        (message,) = choice.messages
        assert message.startswith(f"{newest.name} moved to rejected/")
        assert (paths.rejected / newest.name).exists()


@pytest.mark.parametrize("section", ["clusterseg header", "first tensor", "middle tensor"])
def test_without_the_hash_some_flips_are_not_noticed(
    section: str, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative twin: it is the hash that notices them, not luck."""
    monkeypatch.setattr(checkpoint_file, "_compare", lambda *_: None)
    unnoticed = 0
    for seed in range(40):
        info = save(RunPaths(paths.root / str(seed)), 7)
        flipped(info.path, section, seed)
        try:
            verify(info.path)
        except CheckpointError:
            continue
        unnoticed += 1
    assert unnoticed > 0


def test_all_are_damaged(paths: RunPaths) -> None:
    for step in (3, 7):
        flipped(save(paths, step).path, "last tensor", step)
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        newest_acceptable(paths, claim(0))
    assert caught.value.code == "no-good-checkpoint"
    assert all(checkpoint_name(0, 0.0, step) in caught.value.message for step in (3, 7))


def test_a_length_from_outside_allocates_nothing(paths: RunPaths) -> None:
    info = save(paths, 7)
    content = info.path.read_bytes()
    info.path.write_bytes(struct.pack("<Q", 2**63 - 1) + content[8:])
    with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
        verify(info.path)
