"""Files that no one should write: one clear error each, at once, never a traceback."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.spec import nodes
from clusterseg.spec.errors import SpecError
from clusterseg.spec.findings import MOST_PROBLEMS
from clusterseg.spec.model import JobSpec
from clusterseg.spec.reader import LARGEST, parse_job, read_job

from .reading import COMMAND, error, job, problem, where
from .test_reader import WHOLE

CLUSTERSEG = Path(sys.executable).with_name("clusterseg")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("name: x\nresources:\n\tnodes: 2\n", "tab", 3, 1),
        ("name: x\nresources:\n  nodes: 2\n\tranks: 2\n", "tab", 4, 1),
        ("name: x\nname: y\ncommand: [a]\n", "duplicate-key", 2, 1),
        ("name: x\ncommand: [a]\nslurm: {qos: a, qos: b}\n", "duplicate-key", 3, 17),
        ("name: &a x\ncommand: [a]\n", "anchor", 1, 7),
        ("name: x\ncommand: &c [a]\n", "anchor", 2, 10),
        ("name: *a\ncommand: [a]\n", "alias", 1, 7),
        (BOMB, "anchor", 1, 4),
        ("name: x\n<<: {command: [a]}\n", "unknown-key", 2, 1),
        ("name: !!python/object/apply:os.system ['id']\n", "tag", 1, 7),
        ("name: !!str x\ncommand: [a]\n", "tag", 1, 7),
        ("!!map {name: x, command: [a]}\n", "tag", 1, 1),
        ("%TAG ! tag:x,2000:\n---\nname: !foo x\n", "tag", 3, 7),
        ("name: x\ncommand: [a]\n---\nname: y\n", "several-documents", 3, 1),
        ("name: x\x00\ncommand: [a]\n", "character", 1, 8),
        ("name: x\ncommand: [a\x1b[2J]\n", "character", 2, 12),
        ("name: x\n\ufeffcommand: [a]\n", "character", 2, 1),
        ("name: \ud800\n", "character", 1, 7),
        ("name: [x\n", "yaml", 2, 1),
        ("name: 'x\n", "yaml", 2, 1),
        ("name: x: y\n", "yaml", 1, 8),
        ("name: x\n command: [a]\n", "yaml", 2, 9),
        ("name: @x\n", "yaml", 1, 7),
        ("name: %x\n", "yaml", 1, 7),
        ('name: "\\q"\n', "yaml", 1, 8),
        ("? [a, b]\n: c\n", "key", 1, 3),
        ("{{a: b}: c}\n", "key", 1, 2),
        ("- name: x\n", "value", 1, 1),
        ("just text\n", "value", 1, 1),
        ("", "empty", 1, 1),
        ("\n\n# nothing\n", "empty", 1, 1),
        ("---\n...\n", "empty", 1, 1),
        ("null\n", "empty", 1, 1),
        ("[" * 100_000, "too-deep", 1, nodes.DEEPEST + 1),
        ("{a: " * 100_000, "too-deep", 1, None),
        ("a:\n" + "".join(" " * n + "a:\n" for n in range(1, 200)), "too-deep", None, None),
        ("- - - - - " * 50_000, "too-deep", 1, None),
        ("- a\n" * 200_000, "too-large", None, None),
        ("%YAML 9.9\n---\nname: x\n", "yaml", 1, 1),
    ],
)
def test_one_clear_error(text: str, code: str, line: int | None, column: int | None) -> None:
    found = problem(text)
    (at,) = where([found])
    assert at[0] == code
    assert line in (None, at[1])
    assert column in (None, at[2])
    rendered = found.render()
    assert "\x00" not in rendered
    assert "\x1b" not in rendered
    assert all(len(shown) < 500 for shown in rendered.splitlines())


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\x85", "\u2028"])
def test_line_endings_of_all_kinds_count(ending: str) -> None:
    text = ending.join(["name: x", "command: [a]", "nodse: 1", ""])
    assert where([problem(text)]) == [("unknown-key", 3, 1)]


def test_windows_files_are_read() -> None:
    assert job(COMMAND.replace("\n", "\r\n")) == job(COMMAND)


def test_wide_and_combining_characters_keep_the_caret_in_place() -> None:
    found = problem("name: x\ncommand: [a]\nenvironment: {container: '日本e\u0301', nodse: 1}\n")
    code, source, caret = found.render().splitlines()[1:4]
    assert code.endswith("job.yaml:3:34")
    # Two cells each for 日 and 本, none for the accent.
    assert caret.index("^") == source.index("nodse") + 2 - 1


def test_a_long_line_is_shown_around_the_caret() -> None:
    found = problem(f"name: x\ncommand: [a]\nslurm: {{qos: {'y' * 5000}, nodse: 1, account: b}}\n")
    _, source, caret = found.render().splitlines()[1:4]
    assert len(source) < 150
    assert source[caret.index("^") :].startswith("nodse")


def test_of_very_many_errors_the_first_are_shown() -> None:
    text = COMMAND + "".join(f"key{n}: 1\n" for n in range(20_000))
    found = error(text)
    assert len(found.problems) == MOST_PROBLEMS
    assert found.render().endswith("the rest was not looked at")


def test_long_keys_and_values_are_cut() -> None:
    found = error(COMMAND + f"{'k' * 1000}: 1\nresources: {{nodes: {'v' * 100_000}}}\n")
    assert len(found.problems) == 2
    assert len(found.render()) < 2000


# Files


def read_error(path: Path | str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_job(path, environ={})
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) == 1
    return caught.value


def test_a_missing_file(tmp_path: Path) -> None:
    found = read_error(tmp_path / "no.yaml")
    assert found.code == "unreadable"
    assert "No such file" in found.render()
    assert str(tmp_path / "no.yaml") in found.render()


def test_a_folder(tmp_path: Path) -> None:
    assert read_error(tmp_path).code == "unreadable"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(COMMAND)
    file.chmod(0)
    if os.geteuid() == 0:  # root reads everything: let another user look
        tmp_path.chmod(stat.S_IRWXU | stat.S_IXOTH)
        code = (
            "import os, sys\nfrom pathlib import Path\n"
            "from clusterseg.spec.errors import SpecError\n"
            "from clusterseg.spec import reader\n"
            "source = Path(sys.argv[1])\nos.setuid(65534)\n"
            "try: reader.read_job(source, environ={})\n"
            "except SpecError as error: print(error.code)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
        )
        assert done.stdout == "unreadable\n"
    else:
        assert read_error(file).code == "unreadable"


def test_a_nul_in_the_path() -> None:
    assert read_error("a\0b").code == "unreadable"


def test_ten_megabytes_of_junk(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(os.urandom(10 * 2**20))
    assert read_error(file).code == "too-large"


def test_a_device_without_an_end() -> None:
    assert read_error("/dev/zero").code == "too-large"


def test_the_largest_file_is_still_read(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(COMMAND + "#" * (LARGEST - len(COMMAND)))
    assert read_job(file, environ={}) == job(COMMAND)
    file.write_text(COMMAND + "#" * (LARGEST - len(COMMAND) + 1))
    assert read_error(file).code == "too-large"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes("name: x\nnotes: ä\ncommand: [a]\n".encode(encoding))
    assert read_error(file).code in ("encoding", "character")


def test_invalid_utf8_is_pointed_at(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes("name: x\nnotes: äöü".encode() + b"\xff\ncommand: [a]\n")
    found = read_error(file)
    assert where(found.problems) == [("encoding", 2, 11)]
    assert "0xff" in found.render()


def test_a_byte_order_mark_at_the_start_is_skipped(tmp_path: Path) -> None:
    """YAML 1.2, section 5.2 allows it, and editors on Windows write it."""
    file = tmp_path / "job.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + COMMAND.encode() + b"nodse: 1\n")
    assert where(read_error(file).problems) == [("unknown-key", 3, 1)]


# Anything at all


def outcome(text: str, overrides: tuple[str, ...] = ()) -> None:
    """Reads `text`: a JobSpec or a SpecError that can be shown, nothing else."""
    try:
        file = parse_job(text, "job.yaml", overrides=overrides, environ={"A": "a", "N": "2"})
    except SpecError as found:
        assert found.problems
        for one in found.render().splitlines():
            assert one.isprintable()
        for record in found.records():
            assert record["code"]
            assert record["message"]
            if "line" in record and record["file"] == "job.yaml":
                # Counted from 1, within the text.
                assert 1 <= record["line"] <= len(text) + 1
                assert record["column"] >= 1
    else:
        assert isinstance(file.spec, JobSpec)


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    outcome(text)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "junk.yaml"
    file.write_bytes(data)
    try:
        read_job(file, environ={})
    except SpecError as found:
        assert found.render().replace("\n", "").isprintable()


WORDS = """name train command model resources nodes hosts time x 2 1-12 08:00:00 auto null ~ ' " | >
[ ] { } : , - ? & * ! % @ ` # $ ${A} ${B} ${ $${ !!str &a *a << --- ..."""
YAML_PIECES = st.sampled_from(
    [*WORDS.split(), "\n", "\n  ", "\n\t", ": ", ", ", "- ", " ", "\r\n", "é", "日", "\u2028"]
)


@given(st.lists(YAML_PIECES, max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
def test_pieces_of_yaml_are_read_or_refused(text: str) -> None:
    outcome(text)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_good_file_with_a_piece_cut_out_or_put_in(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(WHOLE)))
    end = data.draw(st.integers(start, min(len(WHOLE), start + 30)))
    put = "".join(data.draw(st.lists(YAML_PIECES, max_size=4)))
    outcome(WHOLE[:start] + put + WHOLE[end:])


@given(st.lists(YAML_PIECES, max_size=12).map("".join), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_argument_is_read_or_refused(pieces: str, text: str) -> None:
    for argument in (pieces, text, f"notes={text}", f"resources={pieces}", f"tags.{pieces}={text}"):
        outcome(COMMAND, (argument,))


# The command


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"a: [", b"\t", BOMB.encode(), b"", b"[" * 10**6]
)
def test_the_command_ends_with_2_and_no_traceback(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    done = subprocess.run(
        [CLUSTERSEG, "check", file], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error[")
    assert "Traceback" not in done.stderr
