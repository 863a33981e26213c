"""Scalars follow the type of their key, not YAML 1.1's guesses."""

from __future__ import annotations

from typing import Any

import pytest

from clusterseg.spec.model import Every, JobSpec

from .reading import COMMAND, TRAIN, error, job, problem

HOUR = 3600


def value(spec: JobSpec, key: str) -> Any:
    found: Any = spec
    for name in key.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("08:00:00", 8 * HOUR), ("12:00:00", 12 * HOUR), ("90", 90 * 60), ("1-12", 36 * HOUR)],
)
def test_times_in_any_writing_mean_what_slurm_means(text: str, seconds: int, quote: str) -> None:
    spec = job(f"{COMMAND}resources:\n  time: {quote}{text}{quote}\n")
    assert spec.resources.time == seconds


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("notes", "no", "no"),
        ("notes", "yes", "yes"),
        ("notes", "on", "on"),
        ("notes", "12:00", "12:00"),
        ("notes", "0123", "0123"),
        ("notes", "1e-3", "1e-3"),
        ("notes", "2026-01-01", "2026-01-01"),
        ("notes", "'null'", "null"),
        ("notes", "''", ""),
        ("notes", "|\n  two\n  lines", "two\nlines\n"),
        ("slurm.account", "null", None),
        ("slurm.account", "~", None),
        ("slurm.account", "", None),
        ("slurm.account", "none", "none"),
        ("slurm.account", "007", "007"),
        ("resources.nodes", "'2'", 2),
        ("resources.nodes", "+2", 2),
        ("resources.nodes", "010", 10),
        ("resources.memory", "64G", 64 * 2**30),
        ("resources.memory", "500", 500 * 2**20),
        ("resources.cpus_per_rank", "auto", "auto"),
        ("resources.cpus_per_rank", "3", 3),
        ("placement.verify", "off", "off"),
        ("placement.bind_to", "none", "none"),
        ("placement.oversubscribe", "yes", True),
        ("placement.oversubscribe", "Off", False),
        ("placement.oversubscribe", "'true'", True),
        ("restart.preemption", "unlimited", "unlimited"),
        ("restart.preemption", "0", 0),
        ("checkpoint.every", "10m", Every(seconds=600.0)),
        ("checkpoint.every", "500 steps", Every(steps=500)),
        ("checkpoint.every", "auto", Every(auto=True)),
    ],
)
def test_values_by_type(key: str, text: str, expected: object) -> None:
    section, _, name = key.rpartition(".")
    body = f"{section}:\n  {name}: {text}\n" if section else f"{name}: {text}\n"
    assert value(job(COMMAND + body), key) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("1E+1", 10.0), ("3", 3.0), ("'0.1'", 0.1)],
)
def test_numbers(text: str, number: float) -> None:
    spec = job(f"{TRAIN}  optimizer: {{learning_rate: {text}}}\n")
    assert spec.train is not None
    assert spec.train.optimizer.learning_rate == number
    assert isinstance(spec.train.optimizer.learning_rate, float)


@pytest.mark.parametrize(
    "text", ["0x10", "1_000", "1:30", ".inf", "nan", "1e999", "0", "-1", "many", ""]
)
def test_what_is_no_number_above_zero_is_refused(text: str) -> None:
    found = problem(f"{TRAIN}  optimizer: {{learning_rate: {text}}}\n")
    assert found.code == "value"
    assert found.note == "expected a number above 0"


@pytest.mark.parametrize(
    "text", ["1.0", "1e3", "0x10", "0o17", "1_0", "two", "true", "9" * 5000, "'9' "]
)
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    if text == "'9' ":
        assert job(f"{COMMAND}resources: {{nodes: {text}}}").resources.nodes == 9
        return
    assert problem(f"{COMMAND}resources: {{nodes: {text}}}").code == "value"


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_nothing_is_no_text(text: str) -> None:
    found = problem(f"{COMMAND}environment:\n  variables:\n    X: {text}\n")
    assert found.code == "value"
    assert "environment.variables.X" in found.message


@pytest.mark.parametrize("text", ["", "null", "~", "{}"])
def test_a_section_without_keys_is_as_good_as_none(text: str) -> None:
    assert job(f"{COMMAND}slurm: {text}\nresources:\n  # nodes: 2\n") == job(COMMAND)


@pytest.mark.parametrize("text", ["", "null", "[]"])
def test_a_list_without_items_is_empty(text: str) -> None:
    assert job(f"{COMMAND}tags: {text}\n").tags == ()


def test_variables_and_words_of_a_command_are_text() -> None:
    spec = job(
        "name: 2026\ncommand: [prog, -n, 4, yes, 1e-3, 08:00]\n"
        "environment: {variables: {OMP_NUM_THREADS: 4, FLAG: no, T: 12:00:00}}\n"
    )
    assert spec.name == "2026"
    assert spec.command == ("prog", "-n", "4", "yes", "1e-3", "08:00")
    assert spec.environment.variables == {"OMP_NUM_THREADS": "4", "FLAG": "no", "T": "12:00:00"}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ('slurm: {partition: "gpu\\n#SBATCH --uid=0"}', "slurm.partition"),
        ('slurm: {extra: ["--x\\r"]}', "slurm.extra.0"),
        ('tags: ["a\\x85b"]', "tags.0"),
        ('launcher_args: ["\\e[2J"]', "launcher_args.0"),
        ('environment: {variables: {X: "a\\0b"}}', "environment.variables.X"),
        ("slurm: {account: ''}", "slurm.account"),
    ],
)
def test_control_characters_stay_out_of_lines_and_arguments(body: str, word: str) -> None:
    found = problem(f"{COMMAND}{body}\n")
    assert f"`{word}`" in found.message
    assert "\n#SBATCH" not in found.render()
    assert "\x1b" not in found.render()


@pytest.mark.parametrize(
    "name",
    ["-x", ".x", "a b", "a/b", "'; rm -rf ~'", "x" * 65, '"a\\n"', "''", "$(x)", "ä"],
)
def test_a_job_name_is_one_safe_word(name: str) -> None:
    assert problem(f"name: {name}\ncommand: [a]\n").code == "value"


@pytest.mark.parametrize("host", ["'n;1'", "'-n'", "'$(x)'", "'n 1'", "'a:b'", "''"])
def test_host_names_hold_no_shell_characters(host: str) -> None:
    assert problem(f"{COMMAND}resources: {{hosts: {{{host}: 1}}}}\n").code == "key"


@pytest.mark.parametrize("name", ["'A B'", "1A", "'A;B'", "''", "A-B"])
def test_names_of_variables(name: str) -> None:
    assert problem(f"{COMMAND}environment: {{variables: {{{name}: x}}}}\n").code == "key"


def test_a_number_is_within_its_bounds() -> None:
    found = error(
        f"{TRAIN}  epochs: 0\n  ema: 1\n  seed: -1\n  loss: {{ignore: 70000}}\n"
        "  optimizer: {momentum: 1.0}\n"
    )
    assert [p.note for p in found.problems] == [
        "expected a whole number from 1",
        "expected a number above 0 below 1",
        "expected a whole number from 0",
        "expected a whole number from 0 to 65535",
        "expected a number from 0 below 1",
    ]
