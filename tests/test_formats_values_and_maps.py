"""Values of model files that only resemble what is expected, their alignment, and their bytes as they are mapped."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ModelFileError
from firsthand.formats.fields import MAX_LAYERS, MAX_NUMBERS, Fields
from firsthand.formats.gguf_file import _alignment
from firsthand.formats.model_files import map_file

WHOLE, FINITE = "a whole number from 0 to 2**31", "a finite number"
STRINGS, NUMBERS = "a list of at most 1024 strings", "a list of at most 4096 finite numbers"


def fields(value: Any) -> Fields:
    return Fields({"p.k": value, "k": "of no prefix"}, "c", "p.")


def told(read: Any, *given: Any) -> str:
    with pytest.raises(ModelFileError) as error:
        read(*given)
    return str(error.value)


def test_each_getter_takes_its_own_kind_and_what_is_false_is_not_absent() -> None:
    choices = {"": 1, "a": None}
    taken: dict[str, list[tuple[Any, Any]]] = {
        "integer": [(0, 0), (2**31 - 1, 2**31 - 1)], "number": [(0, 0.0), (-0.5, -0.5), (9e29, 9e29)],
        "text": [("", ""), ("a", "a")], "section": [({}, Fields({}, "c: p.k")), ({"a": 1}, Fields({"a": 1}, "c: p.k"))],
        "strings": [([], []), ([""], [""]), (["a"] * MAX_LAYERS, ["a"] * MAX_LAYERS)],
        "numbers": [([], []), ([0, 1.5], [0.0, 1.5]), ([1] * MAX_NUMBERS, [1.0] * MAX_NUMBERS)],
        "num_layers": [(1, 1), (MAX_LAYERS, MAX_LAYERS)],
    }  # fmt: skip
    for name, pairs in taken.items():
        for value, wanted in pairs:
            found = getattr(fields(value), name)("k")
            assert found == wanted and type(found) is type(wanted), (name, value)
    assert [fields(each).flag("k", not each) for each in (True, False)] == [True, False]
    assert [fields(each).choice("k", choices) for each in ("", "a")] == [1, None]
    wrong: dict[str, tuple[str, list[Any]]] = {
        "integer": (WHOLE, ["", False, True, 1.0, -1, 2**31, [], {}]),
        "number": (FINITE, ["", False, [], {}, 1e30, -1e30, math.nan, "1"]),
        "text": ("a string", [0, False, [], {}]), "section": ("an object", [0, "", False, []]),
        "strings": (STRINGS, [0, "", "ab", False, {}, (), [1], ["a", None], ["a"] * (MAX_LAYERS + 1)]),
        "numbers": (NUMBERS, [0, "", False, {}, (), [True], ["1"], [None], [1, math.inf], [1] * (MAX_NUMBERS + 1)]),
        "num_layers": ("1 to 1024 layers", [0, MAX_LAYERS + 1]),
    }  # fmt: skip
    for name, (expected, values) in wrong.items():
        for value in values:
            shown = repr(str(value)[:80])
            assert told(getattr(fields(value), name), "k") == f"c: p.k is {shown}: expected {expected}", (name, value)
    for value in (0, 1, "", "true", []):
        assert told(fields(value).flag, "k", True) == f"c: p.k is {str(value)!r}: expected true or false"
    assert told(fields("b").choice, "k", choices) == "c: p.k is 'b': expected one of , a"


@pytest.mark.parametrize(
    "absent", [Fields({}, "c", "p."), Fields({"p.k": None}, "c", "p."), Fields({"k": 1}, "c", "p.")]
)
def test_what_is_absent_or_null_is_the_default_and_without_one_told(absent: Fields) -> None:
    assert (absent.strings("k"), absent.numbers("k"), absent.section("k")) == (None, None, Fields({}, "c: p.k"))
    assert (absent.integer("k", 0), absent.number("k", 0), absent.text("k", ""), absent.flag("k", False)) == (
        0, 0.0, "", False,
    )  # fmt: skip
    assert absent.choice("k", {"a": 5}, "a") == 5 and not absent.has("k")
    for name, expected in (("integer", WHOLE), ("number", FINITE), ("text", "a string"), ("num_layers", WHOLE)):
        assert told(getattr(absent, name), "k") == f"c has no p.k: expected {expected}"
    for value in (0, "", False, [], {}):
        assert fields(value).has("k")


def test_an_alignment_is_a_power_of_two_and_no_flag() -> None:
    header: Any = SimpleNamespace(error=ModelFileError)
    assert _alignment(header, {}) == 32
    for value in (1, 2, 32, 64, 4096, 1 << 40):
        assert _alignment(header, {"general.alignment": value}) == value
    for value in (True, False, 0, -1, -32, 3, 33, 48, 32.0, "32", None, [32], "x" * 99):
        assert told(_alignment, header, {"general.alignment": value}) == (
            f"general.alignment is {str(value)[:80]}: expected a power of two"
        )


def test_mapped_bytes_are_those_of_the_file_and_cannot_be_changed(tmp_path: Path) -> None:
    file, empty = tmp_path / "f", tmp_path / "e"
    file.write_bytes(b"abc")
    empty.write_bytes(b"")
    with map_file(file) as mapped:
        assert (len(mapped), mapped[:], memoryview(mapped).readonly) == (3, b"abc", True)
        for at in (0, slice(0, 1)):
            with pytest.raises(TypeError):
                mapped[at] = b"x"[0] if at == 0 else b"x"
    assert file.read_bytes() == b"abc"
    assert told(map_file, empty) == f"{empty} is empty"
    assert told(map_file, tmp_path / "none") == f"{tmp_path / 'none'} cannot be read: No such file or directory"
    assert told(map_file, tmp_path).startswith(f"{tmp_path} cannot be read: ")
