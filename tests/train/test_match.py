"""Which tensor of a file goes where: by names, never by shape alone."""

from __future__ import annotations

from dataclasses import replace

from clusterseg.train.initial_weights.match import Item, Member, match

HERE = [
    Item("model/stem/kernel", (3, 3), "stem/kernel", Member("stem", 0, 2), Member("conv#0", 0, 2)),
    Item("model/stem/bias", (3,), "stem/bias", Member("stem", 1, 2), Member("conv#0", 1, 2)),
    Item("model/bn/gamma", (3,), "bn/gamma", Member("bn", 0, 2), Member("norm#0", 0, 2)),
    Item("model/bn/beta", (3,), "bn/beta", Member("bn", 1, 2), Member("norm#0", 1, 2)),
    Item("model/head/kernel", (3, 5), "head/kernel", Member("head", 0, 1), Member("conv#1", 0, 1)),
]
THERE = [replace(one, name=f"there {one.name}") for one in HERE]
ALL = {one.name: f"there {one.name}" for one in HERE}


def only(*fields: str) -> list[Item]:
    """The file's tensors, known by nothing but these fields."""
    return [
        Item(one.name, one.shape, **{name: getattr(one, name) for name in fields}) for one in THERE
    ]


def test_any_of_the_three_names_is_enough() -> None:
    for fields in (["path"], ["own"], ["place"], ["path", "own", "place"]):
        report = match(only(*fields), HERE)
        assert report.loaded == ALL and report.whole, fields
        assert report.misfits() == []


def test_a_head_of_another_shape_is_named_and_the_rest_loaded() -> None:
    there = [replace(one, shape=(3, 19)) if "head" in one.name else one for one in THERE]
    for fields in (there, [replace(one, path=None, own=None) for one in there]):
        report = match(fields, HERE)
        assert report.loaded == {k: v for k, v in ALL.items() if "head" not in k}
        assert report.misfits() == [
            "model/head/kernel is [3, 19] there, [3, 5] here: kept as drawn"
        ]
        assert report.counts() == (
            "4 of 5 tensors; 1 has another shape there, 0 are not there, "
            "0 of the file's are not used"
        )
        assert not report.whole


def test_equal_shapes_alone_find_nothing() -> None:
    report = match([Item(f"t{i}", one.shape) for i, one in enumerate(HERE)], HERE)
    assert report.loaded == {}
    assert report.missing == tuple(ALL)
    assert len(report.unused) == len(HERE)


def test_a_name_that_stands_twice_finds_nothing() -> None:
    twin = Item("twin", (3, 3), "stem/kernel")
    report = match([*only("path"), twin], HERE)
    assert "model/stem/kernel" in report.missing
    assert {"there model/stem/kernel", "twin"} == set(report.unused)


def test_a_layer_with_another_number_of_tensors_is_not_counted_through() -> None:
    """Keras 2 wrote a batch norm without gamma as beta alone: that is no gamma."""
    there = [
        Item("stem 0", (3, 3), own=Member("stem", 0, 2)),
        Item("stem 1", (3,), own=Member("stem", 1, 2)),
        Item("bn 0", (3,), own=Member("bn", 0, 1)),
    ]
    report = match(there, HERE)
    assert report.loaded == {"model/stem/kernel": "stem 0", "model/stem/bias": "stem 1"}
    assert report.unused == ("bn 0",)
    assert "model/bn/gamma is not there: kept as drawn" in report.misfits()


def test_a_tensor_goes_to_one_variable_only() -> None:
    """Found by its path, it is not found again by its turn in the layer."""
    there = [
        Item("a", (3,), "bn/beta", Member("bn", 0, 2)),
        Item("b", (3,), "bn/other", Member("bn", 1, 2)),
    ]
    report = match(there, HERE)
    assert report.loaded == {"model/bn/beta": "a"}


def test_places_count_for_nothing_where_any_name_is_known_or_the_layers_are_others() -> None:
    half = [*only("path")[:1], *only("place")[1:]]
    assert list(match(half, HERE).loaded) == ["model/stem/kernel"]
    deeper = [*only("place"), Item("more", (3, 3), place=Member("conv#2", 0, 1))]
    assert match(deeper, HERE).loaded == {}
    assert match(only("place")[:-1], HERE).loaded == {}


def test_names_from_the_file_are_shown_harmless_and_not_without_end() -> None:
    there = [Item(f"\x1b[2J{number}" + "x" * 999, (1,)) for number in range(1200)]
    lines = match(there, HERE).misfits()
    assert all("\x1b" not in line and len(line) < 400 for line in lines)
    assert len(lines) == len(HERE) + 1000 + 1
    assert lines[-1] == "… and 200 more of the file are not used"
