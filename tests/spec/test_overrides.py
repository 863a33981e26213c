"""`--set a.b=c` overrides any key, is typed by it, and its errors point at the argument."""

from __future__ import annotations

import pytest

from .reading import COMMAND, TRAIN, error, job, problem, where


@pytest.mark.parametrize(
    ("argument", "key", "expected"),
    [
        ("name=y", "name", "y"),
        ("resources.nodes=2", "resources.nodes", 2),
        ("resources.time=08:00:00", "resources.time", 8 * 3600),
        ("resources.time=1-12", "resources.time", 36 * 3600),
        ("notes=no", "notes", "no"),
        ("notes=a: b # c", "notes", "a: b # c"),
        ("notes=a=b", "notes", "a=b"),
        ("notes='it''s'", "notes", "it's"),
        ('notes=""', "notes", ""),
        ("notes=- a", "notes", "- a"),
        ("notes=&a *b !c %d @e `f`", "notes", "&a *b !c %d @e `f`"),
        ("slurm.account=", "slurm.account", None),
        ("slurm.account=null", "slurm.account", None),
        ("tags=[a, b]", "tags", ("a", "b")),
        ("tags.0=z", "tags", ("z", "two")),
        ("tags.2=three", "tags", ("one", "two", "three")),
        ("command=[a, '-b c', 4]", "command", ("a", "-b c", "4")),
        ("resources.hosts={n1: 4, n2: 2}", "resources.hosts", {"n1": 4, "n2": 2}),
        ("resources.hosts.n3=1", "resources.hosts", {"n1": 1, "n3": 1}),
        ('resources.hosts."n1.site.org"=1', "resources.hosts", {"n1": 1, "n1.site.org": 1}),
        ("environment.variables.A=${B:-x y}", "environment.variables", {"A": "x y"}),
        ("environment.variables.A=no", "environment.variables", {"A": "no"}),
        ("slurm={qos: high}", "slurm.partition", None),
    ],
)
def test_any_key_can_be_set(argument: str, key: str, expected: object) -> None:
    text = f"{COMMAND}tags: [one, two]\nresources: {{hosts: {{n1: 1}}}}\nslurm: {{partition: a}}\n"
    found: object = job(text, argument)
    for name in key.split("."):
        found = getattr(found, name)
    assert found == expected


def test_items_of_lists_of_mappings() -> None:
    text = f"{TRAIN}  augment: [{{flip_horizontal: 0.5}}, {{scale: [0.5, 2]}}]\n"
    spec = job(text, "train.augment.0.flip_horizontal=0.1", "train.augment.1.scale.0=0.7")
    assert spec.train is not None
    assert spec.train.augment == ({"flip_horizontal": 0.1}, {"scale": [0.7, 2.0]})


def test_later_ones_win_and_see_earlier_ones() -> None:
    assert job(COMMAND, "notes=a", "notes=b").notes == "b"
    spec = job(COMMAND, "resources={nodes: 1, ranks: 2}", "resources.nodes=2")
    assert (spec.resources.nodes, spec.resources.ranks) == (2, 2)


def test_what_is_overridden_may_have_been_wrong() -> None:
    text = f"{COMMAND}notes: ${{NONE}}\nresources: {{nodes: many}}\nslurm: 7\n"
    assert job(text, "notes=x", "resources.nodes=1", "slurm={}").resources.nodes == 1


def test_a_section_that_is_empty_or_missing_is_made() -> None:
    assert job(f"{COMMAND}resources:\n", "resources.nodes=2").resources.nodes == 2
    assert job(COMMAND, "resources.nodes=2").resources.nodes == 2


def test_an_error_points_at_the_argument() -> None:
    found = error(COMMAND, "notes=fine", "resources.nodes=two")
    assert found.render() == (
        "error[value]: `two` for `resources.nodes`\n"
        "  --> --set:2:17\n"
        " 2 | resources.nodes=two\n"
        "   |                 ^^^ expected a whole number from 1\n"
        "help: clusterseg schema resources.nodes"
    )
    (record,) = found.records()
    assert record["file"] == "--set"
    assert (record["line"], record["column"]) == (2, 17)
    assert record["argument"] == "resources.nodes=two"


@pytest.mark.parametrize(
    ("argument", "code", "column"),
    [
        ("resources.nodse=2", "unknown-key", 11),
        ("resorces.nodes=2", "unknown-key", 1),
        ("nodes", "set", 6),
        ("", "set", 1),
        ("=2", "set", 1),
        ("a..b=2", "set", 3),
        ("a.=2", "set", 3),
        ("a b=2", "set", 2),
        ("name.x=2", "set", 6),
        ("tags.5=x", "set", 6),
        ("tags.x=x", "set", 6),
        ("tags.-1=x", "set", 6),
        ("tags=[a", "yaml", 8),
        ("tags=[a] b", "yaml", 10),
        ("notes='a", "yaml", 9),
        ("slurm={qos: a, qos: b}", "duplicate-key", 16),
        ("tags=[&a b]", "anchor", 7),
        ("tags=[!!python/object:os.system b]", "tag", 7),
        ("notes=${NONE}", "unset-variable", 7),
        ("tags=[a, '${NONE}']", "unset-variable", 11),
        ("slurm.partition=a\nb", "value", 17),
        ("slurm.partition=\x07", "value", 17),
        ('notes="\x07"', "character", 8),
        ("train.model.name=unet", "missing-key", 1),
    ],
)
def test_bad_arguments(argument: str, code: str, column: int) -> None:
    found = error(COMMAND + "tags: []\n", argument)
    assert where(found.problems)[0] == (code, 1, column)
    assert all("\x07" not in p.render() for p in found.problems)


def test_several_bad_arguments_come_at_once() -> None:
    found = error(COMMAND + "x: 1\n", "nodes", "resources.nodes=0", "y=1")
    assert where(found.problems) == [
        ("unknown-key", 3, 1),
        ("set", 1, 6),
        ("value", 2, 17),
        ("unknown-key", 3, 1),
    ]


def test_arguments_and_a_broken_file_are_told_apart() -> None:
    assert problem("a: [", "name=x").code == "yaml"


def test_a_wrong_key_that_the_file_has_too_is_shown_where_it_was_set_last() -> None:
    found = error(f"{COMMAND}resources: {{nodse: 1}}\n", "resources.nodse=2")
    assert [p.place.source.name for p in found.problems if p.place] == ["--set"]
