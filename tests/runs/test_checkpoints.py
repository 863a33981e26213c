"""Checkpoint files: what is written is read back, what is damaged is named and set aside."""

from __future__ import annotations

import json
import os
import struct
import sys
from array import array
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.runs.attempts import pack_attempt
from clusterseg.runs.checkpoint_file import Tensor, file_size, read_layout, read_verified
from clusterseg.runs.checkpoints import (
    CheckpointError,
    CheckpointInfo,
    checkpoint_name,
    commit_checkpoint,
    list_checkpoints,
    verify,
)
from clusterseg.runs.choice import newest_acceptable, refuse_if_lost, saved_last, trouble
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.fit import Difference, differences
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Checkpoint, CheckpointHeader, Claim, End

WEIGHTS = array("f", [1.5, -2.0, 0.25, 8.0])
COUNT = array("q", [42])


def tensors() -> list[Tensor]:
    return [
        Tensor("count", "I64", (), memoryview(COUNT)),
        Tensor("conv/kernel", "F32", (2, 2), memoryview(WEIGHTS)),
        Tensor("empty", "F32", (0, 3), memoryview(array("f"))),
    ]


def header(
    step: int, attempt: int = 0, *, epoch: int = 0, validated: bool = True, model: str = "unet"
) -> CheckpointHeader:
    return CheckpointHeader(
        epoch=epoch, step=step, step_in_epoch=step, attempt=attempt, t=1.0, validated=validated,
        identity={"model.name": model, "optimizer.name": "sgd"},
    )  # fmt: skip


def claim(attempt: int, accepted: dict[str, str] | None = None) -> Claim:
    return Claim(
        t=0, attempt=attempt, submission=0, key="k", uid=0, job_id="j", host="h", boot_id="b",
        pid=1, pid_start=1, nonce="n", hosts={"h": 1}, ranks=1, argv=[], accepted=accepted or {},
    )  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "run")
    paths.checkpoints.mkdir(parents=True)
    return paths


def save(
    paths: RunPaths,
    step: int,
    attempt: int = 0,
    accepted: dict[str, str] | None = None,
    model: str = "unet",
) -> CheckpointInfo:
    return commit_checkpoint(
        paths.checkpoints,
        checkpoint_name(0, 0.0, step),
        header(step, attempt, model=model),
        tensors(),
        accepted=accepted or {},
    )


def test_names_are_those_of_the_contract() -> None:
    assert checkpoint_name(3, 0.81234) == "weights-0003-0.8123.safetensors"
    assert checkpoint_name(0, 0.0, 420) == "weights-0000-0.0000-step-000000420.safetensors"
    assert checkpoint_name(12345, 1.0) == "weights-12345-1.0000.safetensors"
    assert checkpoint_name(1, float("nan")) == "weights-0001-0.0000.safetensors"


def test_a_committed_file_is_read_back_whole_and_private(paths: RunPaths) -> None:
    info = save(paths, 7)
    layout, data = read_verified(info.path, info.sha256)
    slot = layout.tensors["conv/kernel"]
    assert array("f", data[slot.begin : slot.end].tobytes()) == WEIGHTS
    assert layout.tensors["count"].shape == () and layout.tensors["empty"].shape == (0, 3)
    assert layout.header == header(7)
    assert info.path.stat().st_mode & 0o777 == 0o600
    assert info.path.stat().st_nlink == 1
    assert [one.name for one in paths.checkpoints.iterdir()] == [info.name]  # no temporary left


def test_the_safetensors_library_reads_the_file(paths: RunPaths) -> None:
    from safetensors import safe_open

    info = save(paths, 7)
    with safe_open(info.path, framework="numpy") as file:
        assert file.get_tensor("conv/kernel").tolist() == [[1.5, -2.0], [0.25, 8.0]]
        assert file.get_tensor("count").item() == 42
        assert json.loads(file.metadata()["clusterseg"])["step"] == 7


@pytest.mark.parametrize("first", [1, 9, 40, 992, 9_992])
def test_the_size_is_known_before_whatever_the_order_of_the_tensors(
    paths: RunPaths, first: int
) -> None:
    """Where the others begin, and in how many digits, depends on which stands first."""
    header = CheckpointHeader(epoch=0, step=1, step_in_epoch=1, attempt=0, t=0)
    tensors = [
        Tensor("a", "U8", (first,), memoryview(bytes(first))),
        *(Tensor(f"b{number}", "I64", (), memoryview(bytes(8))) for number in range(12)),
    ]
    name = checkpoint_name(0, 0.0, 1)
    info = commit_checkpoint(paths.checkpoints, name, header, tensors, accepted={})
    assert file_size(header, tensors) == info.bytes == info.path.stat().st_size


def test_the_hash_is_that_of_the_contract(paths: RunPaths) -> None:
    import hashlib

    info = save(paths, 7)
    content = info.path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    said = json.loads(content[8 : 8 + length])["__metadata__"]["sha256"]
    zeroed = content.replace(said.encode(), b"0" * 64)
    assert hashlib.sha256(zeroed).hexdigest() == said == info.sha256


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    paths = RunPaths(tmp_path_factory.mktemp("flip"))
    paths.checkpoints.mkdir()
    info = save(paths, 7)
    content = bytearray(info.path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    info.path.write_bytes(content)
    with pytest.raises(CheckpointError, match=info.name.replace(".", r"\.")):
        verify(info.path)
    with pytest.raises(CheckpointError):
        read_verified(info.path)


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -64, -1])
def test_a_truncated_file_is_refused_by_its_header(paths: RunPaths, keep: int) -> None:
    info = save(paths, 7)
    content = info.path.read_bytes()
    info.path.write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="truncated"):
        read_layout(info.path)


def test_bytes_after_the_end_are_refused(paths: RunPaths) -> None:
    info = save(paths, 7)
    info.path.write_bytes(info.path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="bytes of tensors"):
        read_layout(info.path)


def raw_file(path: Path, text: str, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + data)
    return path


META = '"__metadata__":{"sha256":"' + "a" * 64 + '","clusterseg":"%s"}'
GOOD = META % '{\\"epoch\\":0,\\"step\\":0,\\"step_in_epoch\\":0,\\"attempt\\":0,\\"t\\":0}'
HOSTILE = {
    "duplicate key": "{" + GOOD + ',"a":1,"a":2}',
    "huge shape": "{" + GOOD + ',"a":{"dtype":"F32","shape":[9999999999,9999999999],'
    '"data_offsets":[0,4]}}',
    "negative": "{" + GOOD + ',"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
    "overlap": "{" + GOOD + ',"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},'
    '"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "bool shape": "{" + GOOD + ',"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
    "unknown dtype": "{" + GOOD + ',"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}',
    "no metadata": '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    "not ours": '{"__metadata__":{"format":"pt"}}',
    "list": "[1]",
    "deep": "[" * 100_000,
    "no json": "\x00\x01",
    "bad header": "{" + META % "{}" + "}",
    "surrogate": "{" + META % "\\ud800" + "}",
    "newer format": "{" + META % '{\\"format\\":99}' + "}",
    "negative step": "{" + GOOD.replace('\\"step\\":0', '\\"step\\":-1') + "}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_headers_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError):
        read_layout(raw_file(tmp_path / "weights-0000-0.0000.safetensors", text, b"\0" * 4))


def test_a_header_length_beyond_the_file_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights-0000-0.0000.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(CheckpointError, match="header claims"):
        read_layout(path)


def test_order_is_by_attempt_and_step_not_by_name(paths: RunPaths) -> None:
    late = commit_checkpoint(
        paths.checkpoints, checkpoint_name(1, 0.1), header(10, 1), [], accepted={}
    )
    early = commit_checkpoint(
        paths.checkpoints, checkpoint_name(2, 0.9), header(99, 0), [], accepted={}
    )
    assert [one.name for one in list_checkpoints(paths.checkpoints)] == [early.name, late.name]


def test_unreadable_files_are_told_and_strangers_left_out(paths: RunPaths) -> None:
    good = save(paths, 5)
    bad = paths.checkpoints / checkpoint_name(0, 0.0, 6)
    bad.write_bytes(b"junk")
    (paths.checkpoints / "notes.txt").write_text("mine")
    (paths.checkpoints / checkpoint_name(0, 0.0, 9)).symlink_to(good.path)
    told: list[str] = []
    found = list_checkpoints(paths.checkpoints, lambda path, error: told.append(path.name))
    assert [one.name for one in found] == [good.name]
    assert told == [bad.name]


def test_the_newest_of_the_last_attempt_is_taken_with_all_that_count(paths: RunPaths) -> None:
    first = save(paths, 10)
    accepted = {first.name: first.sha256}
    second = save(paths, 20, attempt=1, accepted=accepted)
    choice = newest_acceptable(paths, claim(1, accepted))
    assert choice.newest is not None and choice.newest.name == second.name
    assert choice.accepted == {first.name: first.sha256, second.name: second.sha256}
    assert choice.messages == []


def test_without_an_earlier_attempt_nothing_counts_and_nothing_is_moved(paths: RunPaths) -> None:
    info = save(paths, 10)
    assert newest_acceptable(paths, None) == (None, {}, [])
    assert info.path.exists()


def test_a_damaged_newest_is_set_aside_and_the_one_before_taken(paths: RunPaths) -> None:
    good, bad = save(paths, 10), save(paths, 20)
    content = bytearray(bad.path.read_bytes())
    content[-1] ^= 1
    bad.path.write_bytes(content)
    choice = newest_acceptable(paths, claim(0))
    assert choice.newest is not None and choice.newest.name == good.name
    assert choice.accepted == {good.name: good.sha256}
    assert any(bad.name in message and "damaged" in message for message in choice.messages)
    assert not bad.path.exists() and (paths.rejected / bad.name).exists()


def test_no_good_checkpoint_left_is_a_clear_error(paths: RunPaths) -> None:
    bad = save(paths, 20)
    bad.path.write_bytes(bad.path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"no checkpoint .* can be used: .*truncated"):
        newest_acceptable(paths, claim(0))


def fits_unet(header: CheckpointHeader) -> list[Difference]:
    return differences(header, {"model.name": "unet", "optimizer.name": "sgd"})


def test_a_newest_of_another_model_is_set_aside_and_the_one_before_taken(paths: RunPaths) -> None:
    good, strange = save(paths, 10), save(paths, 20, model="fastscnn")
    choice = newest_acceptable(paths, claim(0), fits_unet)
    assert choice.newest is not None and choice.newest.name == good.name
    assert choice.accepted == {good.name: good.sha256}
    why = "it is of another job: model.name is fastscnn there, unet now"
    assert any(strange.name in message and why in message for message in choice.messages)
    assert not strange.path.exists() and (paths.rejected / strange.name).exists()
    assert (paths.rejected / f"{strange.name}.txt").read_text() == f"{why}\n"


def test_twin_without_a_word_on_what_fits_the_other_model_is_taken(paths: RunPaths) -> None:
    save(paths, 10)
    strange = save(paths, 20, model="fastscnn")
    choice = newest_acceptable(paths, claim(0))
    assert choice.newest is not None and choice.newest.name == strange.name


def test_an_older_one_of_another_model_stays_where_it_is(paths: RunPaths) -> None:
    strange, good = save(paths, 10, model="fastscnn"), save(paths, 20)
    choice = newest_acceptable(paths, claim(0), fits_unet)
    assert choice.newest is not None and choice.newest.name == good.name
    assert choice.messages == [] and strange.path.exists()


def test_where_none_fits_the_job_has_changed_and_nothing_is_moved(paths: RunPaths) -> None:
    saved = [save(paths, 10, model="segnet"), save(paths, 20, model="fastscnn")]
    with pytest.raises(CheckpointError) as caught:
        newest_acceptable(paths, claim(0), fits_unet)
    assert caught.value.code == "checkpoint-mismatch"
    assert f"{saved[1].name} does not fit this job" in caught.value.message
    assert "model.name is fastscnn there, unet now" in caught.value.message
    assert all(one.path.exists() for one in saved) and not paths.rejected.exists()


def test_a_damaged_one_is_damaged_before_it_is_anothers(paths: RunPaths) -> None:
    """Of a damaged file nothing is believed, its model neither."""
    strange = save(paths, 20, model="fastscnn")
    content = bytearray(strange.path.read_bytes())
    content[-1] ^= 1
    strange.path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        newest_acceptable(paths, claim(0), fits_unet)
    assert caught.value.code == "no-good-checkpoint"


def test_an_accepted_file_that_is_missing_is_named(paths: RunPaths) -> None:
    with pytest.raises(CheckpointError, match="weights-gone is missing"):
        newest_acceptable(paths, claim(1, {"weights-gone": "0" * 64}))


def tell(paths: RunPaths, *saved: CheckpointInfo, attempt: int = 0) -> None:
    """What rank 0 says of its saves."""
    events = paths.attempt(attempt).events(0)
    events.parent.mkdir(parents=True)
    with EventWriter(events) as writer:
        for one in saved:
            writer.write(Checkpoint(t=1, rank=0, epoch=0, step=one.header.step, file=one.name))


def test_checkpoints_that_were_all_taken_away_are_named_and_the_run_does_not_begin_anew(
    paths: RunPaths,
) -> None:
    first, last = save(paths, 10), save(paths, 20)
    tell(paths, first, last)
    for one in (first, last):
        one.path.unlink()
    for lost in (newest_acceptable, refuse_if_lost):
        with pytest.raises(CheckpointError, match=f"{last.name} is missing") as caught:
            lost(paths, claim(0))
        assert caught.value.code == "no-good-checkpoint"


def test_a_run_whose_checkpoints_were_all_set_aside_does_not_begin_anew_at_the_next_try(
    paths: RunPaths,
) -> None:
    bad = save(paths, 20)
    tell(paths, bad)
    bad.path.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=f"{bad.name} is truncated"):
        refuse_if_lost(paths, claim(0))
    assert bad.path.exists()
    with pytest.raises(CheckpointError, match=f"{bad.name} moved to rejected/: is truncated"):
        newest_acceptable(paths, claim(0))
    for lost in (newest_acceptable, refuse_if_lost):
        with pytest.raises(CheckpointError, match=f"{bad.name} is missing, it was moved to rej"):
            lost(paths, claim(0))


def test_a_newest_that_was_taken_away_is_named_and_the_one_before_taken(paths: RunPaths) -> None:
    first, last = save(paths, 10), save(paths, 20)
    tell(paths, first, last)
    last.path.unlink()
    choice = newest_acceptable(paths, claim(0))
    assert choice.newest is not None and choice.newest.name == first.name
    assert choice.messages == [f"{last.name} is missing: going on from {first.name}"]
    refuse_if_lost(paths, claim(0))


def test_what_the_rules_let_go_is_not_missed(paths: RunPaths) -> None:
    first, last = save(paths, 10), save(paths, 20)
    tell(paths, first, last)
    first.path.unlink()
    assert newest_acceptable(paths, claim(0)).messages == []
    assert newest_acceptable(RunPaths(paths.root.with_name("new")), claim(0)) == (None, {}, [])


def test_files_that_a_command_tells_of_are_not_missed(paths: RunPaths) -> None:
    events = paths.attempt(0).events(0)
    events.parent.mkdir(parents=True)
    with EventWriter(events) as writer:
        writer.write(Checkpoint(t=1, rank=0, epoch=0, step=1, file="model.pt"))
    assert newest_acceptable(paths, claim(0)) == (None, {}, [])
    assert trouble(paths, "model.pt") is None


def test_saves_of_a_packed_attempt_are_known_too(paths: RunPaths) -> None:
    last = save(paths, 20)
    tell(paths, last)
    attempt = paths.attempt(0)
    end = End(t=2, attempt=0, cause=Cause.DONE, exit_code=0, will_restart=False)
    attempt.claim.write_bytes(msgspec.json.encode(claim(0)))
    attempt.end.write_bytes(msgspec.json.encode(end))
    pack_attempt(attempt)
    assert attempt.packed.exists() and saved_last(paths, claim(0)) == last.name


def test_a_late_write_of_a_paused_attempt_does_not_count(paths: RunPaths) -> None:
    first = save(paths, 10)
    accepted = {first.name: first.sha256}
    zombie = save(paths, 30, attempt=0)  # by attempt 0, after claim 1 was made
    choice = newest_acceptable(paths, claim(1, accepted))
    assert choice.newest is not None and choice.newest.name == first.name
    assert not zombie.path.exists() and (paths.rejected / zombie.name).exists()


def test_a_replaced_accepted_file_does_not_count(paths: RunPaths) -> None:
    kept, swapped = save(paths, 10), save(paths, 20)
    accepted = {kept.name: kept.sha256, swapped.name: "f" * 64}
    choice = newest_acceptable(paths, claim(1, accepted))
    assert choice.newest is not None and choice.newest.name == kept.name


def test_files_of_a_later_attempt_are_left_alone(paths: RunPaths) -> None:
    save(paths, 10)
    winner = save(paths, 20, attempt=1)  # another process has claim 1 already
    choice = newest_acceptable(paths, claim(0))
    assert choice.newest is not None and choice.newest.header.step == 10
    assert winner.path.exists() and winner.name not in choice.accepted


def test_unfinished_files_of_ended_attempts_are_removed(paths: RunPaths) -> None:
    name = checkpoint_name(0, 0.0, 5)
    old = paths.checkpoints / f".{name}.attempt-0.00ff00ff.tmp"
    new = paths.checkpoints / f".{name}.attempt-1.00ff00ff.tmp"
    old.touch()
    new.touch()
    newest_acceptable(paths, claim(0))
    assert not old.exists() and new.exists()


def test_nothing_is_ever_overwritten(paths: RunPaths) -> None:
    first = save(paths, 10)
    before = first.path.read_bytes()
    again = save(paths, 10)  # identical: done
    assert again.sha256 == first.sha256 and first.path.read_bytes() == before
    with pytest.raises(CheckpointError, match="exists already"):  # same attempt, other content
        commit_checkpoint(paths.checkpoints, first.name, header(11), [], accepted={})
    with pytest.raises(CheckpointError, match="exists already"):  # accepted by this claim
        save(paths, 10, attempt=1, accepted={first.name: first.sha256})
    assert first.path.read_bytes() == before
    mine = save(paths, 10, attempt=1)  # left by attempt 0, accepted by nobody: moved
    assert (paths.rejected / first.name).read_bytes() == before
    with pytest.raises(CheckpointError, match="attempt 1") as caught:  # a zombie comes too late
        save(paths, 10, attempt=0)
    assert caught.value.code == "superseded"
    assert read_layout(mine.path).header.attempt == 1
    assert [one.name for one in paths.checkpoints.iterdir() if one.is_file()] == [first.name]


def test_rejected_files_do_not_overwrite_each_other(paths: RunPaths) -> None:
    for attempt in range(3):
        save(paths, 10, attempt=attempt)
    kept = {one.name for one in paths.rejected.iterdir() if one.suffix != ".txt"}
    name = checkpoint_name(0, 0.0, 10)
    assert kept == {name, f"{name}.1"}
    assert "no claim accepts it" in (paths.rejected / f"{name}.txt").read_text()


def test_a_full_disk_leaves_the_old_file_and_no_rest(paths: RunPaths, monkeypatch) -> None:
    first = save(paths, 10)

    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        save(paths, 20)
    monkeypatch.undo()
    assert [one.name for one in list_checkpoints(paths.checkpoints)] == [first.name]
    assert [one.name for one in paths.checkpoints.iterdir()] == [first.name]


def test_no_heavy_import() -> None:
    import subprocess

    code = (
        "import sys, clusterseg.runs.checkpoints;"
        "print([m for m in ('numpy', 'tensorflow', 'safetensors') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
