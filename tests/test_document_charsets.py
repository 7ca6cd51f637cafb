"""Bytes that are text and those that are none, at the limits between; and what cleaning drops, moves and composes."""

from __future__ import annotations

import codecs

import pytest

from firsthand.errors import DataError
from firsthand.retrieval.document import Location
from firsthand.retrieval.documents.charset import MAGIC, decode
from firsthand.retrieval.documents.clean_text import clean, clean_line


def refused(data: bytes) -> str:
    with pytest.raises(DataError) as error:
        decode(data)
    return str(error.value)


def test_a_file_that_begins_as_another_format_is_named_and_one_that_holds_it_later_is_text() -> None:
    for magic, kind in MAGIC.items():
        assert refused(magic + b"x") == f"it is {kind} and no text: give it the ending of its format, or leave it out"
    assert decode(b" %PDF-1.4") == (" %PDF-1.4", []) and decode(b"") == ("", [])
    assert refused(b"Rar!") == "it is a RAR archive and no text: give it the ending of its format, or leave it out"


def test_a_byte_order_mark_decides_between_widths_and_says_so_but_for_utf_8() -> None:
    for mark, name, told in (
        (codecs.BOM_UTF32_LE, "utf-32-le", ["decoded as UTF-32, by its byte order mark"]),
        (codecs.BOM_UTF32_BE, "utf-32-be", ["decoded as UTF-32, by its byte order mark"]),
        (codecs.BOM_UTF16_LE, "utf-16-le", ["decoded as UTF-16, by its byte order mark"]),
        (codecs.BOM_UTF16_BE, "utf-16-be", ["decoded as UTF-16, by its byte order mark"]),
        (codecs.BOM_UTF8, "utf-8", []),
    ):
        assert decode(mark + "aé\x01\x01".encode(name)) == ("aé\x01\x01", told)
    assert refused(codecs.BOM_UTF16_LE + b"a\0b") == "it begins as UTF-16 and is not valid at byte 4: save it again"
    assert refused(codecs.BOM_UTF8 + b"ab\xff") == "it begins as UTF-8-SIG and is not valid at byte 5: save it again"


def test_a_file_is_binary_with_two_control_characters_and_one_of_a_hundred_bytes() -> None:
    assert decode(b"a\0b") == ("a\0b", []) and decode(b"\0\0" + b"x" * 198)[0] == "\0\0" + "x" * 198
    assert refused(b"\0\x01" + b"x" * 197) == ("2 of its 199 bytes are control characters: it is binary and no text")
    kept = bytes([7, 8, 9, 10, 11, 12, 13, 27, 127])
    assert decode(kept) == (kept.decode(), [])
    for byte in (*range(1, 7), *range(14, 27), *range(28, 32)):
        assert refused(bytes([byte, byte])).startswith("2 of its 2 bytes are control")


def test_wide_text_without_a_mark_has_more_than_a_third_of_zeros_on_one_side() -> None:
    for name in ("utf-16-le", "utf-16-be"):
        told = [f"decoded as {name.upper()}, which was guessed"]
        enough = "a" * 36 + "本" * 64  # of 100 units, 36 have a zero on one side
        assert decode(enough.encode(name)) == (enough, told)
        assert "35 of its 200 bytes are control" in refused(("a" * 35 + "本" * 65).encode(name))
        two, three = "a" * 40 + "\u4e00" * 2 + "本" * 58, "a" * 40 + "\u4e00" * 3 + "本" * 57  # zeros on the other side
        assert decode(two.encode(name)) == (two, told) and "43 of its 200" in refused(three.encode(name))
        one = "a" * 99 + "\x01"
        assert decode(one.encode(name)) == (one, told)
        assert "control characters" in refused(("a" * 98 + "\x01\x01").encode(name))
        assert "control characters" in refused(("a" * 9).encode(name) + b"a"), "an odd number of bytes"
        assert decode("ab".encode(name)) == ("ab", told), "four bytes are enough"
        assert decode("a".encode(name))[1] == [], "two are not"
        for half in ("\ud841", "\udc41"):  # of a pair, neither of whose bytes is a zero
            for broken in (f"aaaa{half}", f"{half}aaaa", f"aa{half}aa"):
                assert "4 of its 10 bytes are control" in refused(broken.encode(name, "surrogatepass"))
        assert decode("aaaa\U00020441".encode(name)) == ("aaaa\U00020441", told)
        long = "a" * 2048 + "本" * 3000  # the beginning tells
        assert decode(long.encode(name)) == (long, told)


def test_a_declared_charset_is_believed_in_the_beginning_and_if_it_is_one() -> None:
    russian = "Привет"
    for written, charset, name in (
        ('<meta charset="KOI8-R">', "koi8-r", "koi8-r"), ("<?xml encoding='windows-1251'?>", "cp1251", "cp1251"),
        ("# -*- coding: iso-8859-5 -*-", "iso8859-5", "iso8859-5"), ("charset = ibm866", "cp866", "cp866"),
    ):  # fmt: skip
        assert decode(f"{written} {russian}".encode(charset)) == (
            f"{written} {russian}", [f"decoded as {name}, which it declares"]
        )  # fmt: skip
    for far in (2048 - len("charset=koi8-r"), 2049 - len("charset=koi8-r")):
        text, [note] = decode((" " * far + "charset=koi8-r Привет, как дела? Всё хорошо.").encode("koi8-r"))
        assert ("which it declares" in note) == (far + len("charset=koi8-r") <= 2048), note
    for wrong in ("zlib", "idna", "no-such", "utf-8", "utf-16"):  # no charset, not known, or not valid here
        text, [note] = decode(f"charset={wrong} ça va? Où est-il? Déjà là. C'était à côté.".encode("cp1252"))
        assert text.startswith(f"charset={wrong} ") and note.endswith(", which was guessed"), note


def test_utf_8_with_fewer_than_one_damaged_byte_of_200_characters_is_mended() -> None:
    known = "é\ufffd".encode()  # a replacement that was in the text is no damage
    text, notes = decode(known + b"a" * 198 + b"\xff")
    assert text == "é\ufffd" + "a" * 198 + "\ufffd"
    assert notes == ["UTF-8 with 1 invalid bytes, the first at 203: they were replaced"]
    two = known + b"a" * 199 + b"\xff" + b"b" * 199 + b"\xfe"
    assert decode(two)[1] == ["UTF-8 with 2 invalid bytes, the first at 204: they were replaced"]
    for letter in ("\x80", "£", "ÿ", "𝄞"):
        assert decode(f"{letter}{'a' * 300}".encode() + b"\xff")[0] == f"{letter}{'a' * 300}\ufffd"
    for guessed in (known + b"a" * 197 + b"\xff", b"a" * 300 + b"\xe9", b"a" * 300 + b"\xe9 caf\xc3\xa9"):
        assert "which was guessed" in decode(guessed)[1][0], "too much damage, or no UTF-8 before the first of it"


# -- cleaning --


def test_what_is_dropped_is_counted_by_its_kind_from_the_first_of_a_range_to_the_last() -> None:
    dropped = {
        "control": "\x00\x08\x0e\x1b\x7f\x84\x86\x9f",
        "bidirectional": "\u061c\u200e\u200f\u202a\u202e\u2066\u2069",
        "zero-width": "\u034f\u115f\u1160\u180e\u200b\u2060\u2065\u206a\u206f\ufeff\ufff9\ufffb\ufffe\uffff",
        "soft-hyphen": "\u00ad",
        "tag": "\U000e0000\U000e0fff",
    }
    for kind, chars in dropped.items():
        for char in chars:
            assert clean(f"Ж{char}Ж") == ("ЖЖ", (), [f"invisible characters were dropped: 1 {kind}"]), ascii(char)
    kept = "\t\n\x0c ~\x85\xa0\u061d\u200a\u2010\u2029\u202f\u2070\u115e\u1161\ufff8\ufffc\U000dffff\U000e1000"
    for char in kept:
        assert clean(f"Ж{char}Ж") == (f"Ж{char}Ж", (), []), ascii(char)
    whole = "".join(dropped[kind] for kind in ("tag", "control", "zero-width", "bidirectional"))
    assert clean(whole)[2] == ["invisible characters were dropped: 7 bidirectional, 8 control, 2 tag, 14 zero-width"]
    for char in "\x0b\x1c\x1f":
        assert clean(f"Ж{char}Ж") == (*clean(f"Ж{char}\x01Ж")[:2], []) == ("Ж Ж", (), []), ascii(char)
    assert clean("Donau\xaddampf\xadschiff")[0] == "Donaudampfschiff" and clean("foo\x0bbar")[0] == "foo bar"
    assert clean("a\rb\r\nc\n\rd\ud800") == ("a\nb\nc\n\nd\ufffd", (), [])


def test_a_joiner_stays_between_letters_beyond_ascii_alone() -> None:
    one = ["invisible characters were dropped: 1 zero-width"]
    for text, made, told in (
        ("क\u200dष", "क\u200dष", []), ("ك\u200cه", "ك\u200cه", []), ("a\u200dष", "aष", one), ("क\u200db", "कb", one),
        ("क \u200dष", "क ष", one), ("क\u200d", "क", one), ("\u200dष", "ष", one), ("क\u200c\u200dष", "क\u200dष", one),
        ("क\u200d\nष", "क\nष", one),
        ("\u200ba\u200d", "a", ["invisible characters were dropped: 2 zero-width"]),
    ):  # fmt: skip
        assert clean(text) == (made, (), told), ascii(text)


def test_places_move_by_what_was_dropped_before_them_and_keep_kind_and_label() -> None:
    places = (Location(0, "page", "i"), Location(3, "page", "ii"), Location(3, "row", "x"), Location(8, "line", "9"))
    # two controls before the second place, a composition after the third, a line break that was two
    text, moved, told = clean("a\x01\x02be\u0301\r\nz\u200b", places)
    assert (text, told) == ("abé\nz", ["invisible characters were dropped: 2 control, 1 zero-width"])
    assert moved == (places[0], Location(1, "page", "ii"), Location(1, "row", "x"), Location(4, "line", "9"))
    plain = [Location(1, "page", "1")]
    assert clean("abc", plain) == ("abc", tuple(plain), [])
    assert clean_line(" a\r\n\tb\u200b c\x00 ") == "a b c" and clean_line("") == ""


def test_long_runs_are_composed_whole() -> None:
    assert clean("a" * 1023 + "e\u0301z")[0] == "a" * 1023 + "éz"
    assert clean("a" * 1023 + "\u1100\u1161" + "e\u0301")[0] == "a" * 1023 + "가é"
    # U+0316 stands below and does not hide the accent: it is composed over any number of them
    for marks in (29, 30, 31, 3000):
        assert clean("e" + "\u0316" * marks + "\u0301")[0] == "é" + "\u0316" * marks
    both = "e" + "\u0316" * 30 + "\u0301" + "z" + "e" + "\u0316" * 29 + "\u0301"
    assert clean(both)[0] == "é" + "\u0316" * 30 + "zé" + "\u0316" * 29
    assert clean("e\u0301" + "\u0316" * 3000)[0] == "é" + "\u0316" * 3000
    acute, dot = "\u0301", "\u0323"
    assert clean("q" + (acute + dot) * 35)[0] == "q" + dot * 35 + acute * 35, "the marks of a run are sorted together"
