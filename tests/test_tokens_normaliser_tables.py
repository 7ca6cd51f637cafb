"""SentencePiece's normaliser tables: a trie written by hand is read back whole, also where it is wider than one look."""

from __future__ import annotations

import base64
import string
from collections.abc import Mapping

import numpy as np
import pytest

from firsthand.errors import ModelFileError
from firsthand.tokens import charsmap
from firsthand.tokens.charsmap import read_table, replacer
from firsthand.tokens.text_growth import check_growth


def written(replacements: Mapping[bytes, bytes], wide: bool = False) -> bytes:
    """The table of these replacements, in darts-clone's layout: a node's children stand in a block of 256 units at the
    block's start XOR their letter, and its value at the start.

    A unit is its letter, the bit of a value (1 << 8) and, from bit 10 on, its place XOR its block; `wide` writes the root's
    as one counted in 256s (1 << 9). Nodes without children share blocks, one unit each.
    """
    prefixes = sorted({key[:size] for key in replacements for size in range(len(key) + 1)} | {b""})
    inner = {prefix[:-1] for prefix in prefixes if prefix} | {b""}
    block_of = {prefix: 256 * at for at, prefix in enumerate(sorted(inner), 1)}
    ends = [prefix for prefix in prefixes if prefix not in inner]
    block_of |= {prefix: 256 * (len(inner) + 1) + at for at, prefix in enumerate(ends)}
    units = np.zeros(256 * (len(inner) + 2 + len(ends) // 256), "<u4")
    texts = b""
    for prefix in prefixes:
        place = block_of[prefix[:-1]] ^ prefix[-1] if prefix else 0
        away = place ^ block_of[prefix]
        unit = (prefix[-1] if prefix else 0) | (away << 10)
        if prefix in replacements:
            units[block_of[prefix]] = 0x80000000 | len(texts)
            texts += replacements[prefix] + b"\0"
            unit |= 1 << 8
        units[place] = (1 << 9) | (away >> 8 << 10) if wide and not prefix else unit
    body = units.tobytes()
    return len(body).to_bytes(4, "little") + body + texts


@pytest.mark.parametrize("wide", [False, True])
def test_a_table_is_read_back_with_keys_within_keys_and_all_lengths_of_letters(wide: bool) -> None:
    made = {
        "a": "b",
        "ab": "",
        "abc": "xyz",
        "\x01": " ",
        "ﬁ": "fi",
        "é": "é",
        "😀": ":)",
        "\U0010ffff": "?",
        "~b": "ab",
    }
    table = written({key.encode(): new.encode() for key, new in made.items()}, wide)
    assert read_table(table, "here") == made
    assert replacer(made)("abcab~b😀a~ é") == "xyzab:)b~ é"
    assert read_table(written({b"\xff": b"a", b"a": b"\xff", b"b": b"c", b"a\xcc": b""}, wide), "here") == {"b": "c"}


@pytest.mark.parametrize("count", [4096, 4097])
def test_a_table_wider_than_what_is_looked_at_at_once_keeps_each_key_with_its_own_replacement(count: int) -> None:
    letters = (string.ascii_letters + string.digits + "+-/")[:65]
    made = dict(list({f"{a}{b}z": f"{b}{a}" for a in letters for b in letters}.items())[:count])
    assert len(made) == count
    found = read_table(written({key.encode(): new.encode() for key, new in made.items()}), "here")
    assert found == made


def test_a_table_that_is_cut_short_loops_or_points_past_its_end_is_refused() -> None:
    whole = written({b"a": b"bc"})
    size = int.from_bytes(whole[:4], "little")
    assert read_table(whole, "here") == {"a": "bc"} and read_table(bytes(4), "here") == {}
    grown = written({b"a": b"c" * 64})
    assert read_table(grown, "here") == {"a": "c" * 64}
    loop = np.zeros(512, "<u4")
    loop[0], loop[256 ^ 97] = 256 << 10, 97 | (97 << 10)  # the block of `a` is the one that `a` stands in
    cases = {
        whole[:3]: "table is cut short", b"": "table is cut short", bytes([2, 0, 0, 0]) + bytes(8): "table is cut short",
        whole[: 4 + size - 1]: "table is cut short", whole[: 4 + size]: "table points past its end",
        whole[:-1]: "table points past its end",
        written({b"a": b"c" * 65}): "table makes 65 characters of 'a'",
        written({b"a": b"c" * 16_384}): "table makes 16384 characters of 'a'",
        written({b"a": b"c" * 16_384})[:-1]: "table points past its end",
        written({b"a": b"c" * 16_385}): "table has a replacement of more than 16384 bytes",
        (2048).to_bytes(4, "little") + loop.tobytes(): "table has no end: it loops, or is not SentencePiece's",
    }  # fmt: skip
    for table, says in cases.items():
        with pytest.raises(ModelFileError) as told:
            read_table(table, "here")
        assert str(told.value) == f"here: the normaliser's {says}"


def shared(places: list[int], texts: bytes) -> bytes:
    """A table of the letters from `A` on, whose replacements begin at these places of `texts`."""
    made = written({bytes([65 + at]): b"" for at in range(len(places))})
    size = int.from_bytes(made[:4], "little")
    units = np.frombuffer(made, "<u4", count=size // 4, offset=4).copy()
    units[units >= 0x80000000] = [0x80000000 | place for place in places]
    return made[:4] + units.tobytes() + texts


def test_replacements_are_made_once_for_each_place_and_their_bytes_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """242,000 keys of one replacement of 15 kB took 3.9 GB, and so may keys whose replacements end alike."""
    found = read_table(shared([0] * 50, b"xyz\0"), "here")
    assert len(found) == 50 and len({id(text) for text in found.values()}) == 1 and found["A"] == "xyz"
    monkeypatch.setattr(charsmap, "MAX_NEW_BYTES", 6)
    assert read_table(shared([0, 0, 1, 2, 1, 0], b"xyz\0"), "here") == dict(
        zip("ABCDEF", ("xyz", "xyz", "yz", "z", "yz", "xyz"), strict=True)
    )
    monkeypatch.setattr(charsmap, "MAX_NEW_BYTES", 5)
    for texts in (b"xyz\0", b"\xff\xff\xff\0"):  # what is no text is read as well
        with pytest.raises(ModelFileError, match="normaliser's replacements have more than 5 bytes together: expected"):
            read_table(shared([0, 1, 2], texts), "here")


def test_a_table_of_more_bytes_or_keys_than_real_ones_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = written({b"a": b"b", b"\xff": b"c", b"d": b"e"})
    monkeypatch.setattr(charsmap, "MAX_TABLE_BYTES", len(whole))
    monkeypatch.setattr(charsmap, "_MAX_KEYS", 3)
    step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(whole).decode()}
    assert read_table(whole, "here") == {"a": "b", "d": "e"}
    check_growth({"normalizer": step}, "here")
    monkeypatch.setattr(charsmap, "_MAX_KEYS", 2)
    with pytest.raises(ModelFileError, match="table replaces more than 2 texts: expected"):
        read_table(whole, "here")
    monkeypatch.setattr(charsmap, "MAX_TABLE_BYTES", len(whole) - 1)
    for refused in (lambda: read_table(whole, "here"), lambda: check_growth({"normalizer": step}, "here")):
        with pytest.raises(
            ModelFileError, match=f"here: the normaliser's table has {len(whole)} bytes: expected at most"
        ):
            refused()
