"""Labels of charsets mean in pages and documents what they mean in browsers."""

from __future__ import annotations

import codecs

import pytest

from firsthand.retrieval.documents.charset import decode
from firsthand.retrieval.documents.file_content import ReadSettings
from firsthand.retrieval.documents.html_reader import read_html
from firsthand.system.web_charsets import codec_of, decode_page
from firsthand.tools.fetch import Page


@pytest.mark.parametrize(
    ("label", "written_as", "text"),
    [
        ("iso-8859-1", "cp1252", "Price: €100, can’t – 5—10"),
        ("US-ASCII", "cp1252", "can’t"),
        ("latin-1", "cp1252", "can’t"),
        ("iso-8859-9", "cp1254", "İ € “ş”"),
        ("shift_jis", "cp932", "①㈱髙橋"),
        ("x-sjis", "cp932", "東京"),
        ("gb2312", "gbk", "镕基"),
        ("GBK", "gb18030", "镕基㐀"),
        ("euc-kr", "cp949", "똠방각하"),
        ("ks_c_5601-1987", "cp949", "서울"),
        ("tis-620", "cp874", "ภาษาไทย…"),
        ("big5", "cp950", "台北市‧€"),
        ("big5-hkscs", "big5hkscs", "嘅喺"),
        ("euc-jp", "euc_jis_2004", "①東京"),
        ("eucjp", "euc_jis_2004", "①東京"),
        ("x-mac-cyrillic", "mac_cyrillic", "Москва"),
        ("ibm866", "cp866", "Москва"),
        ("cp437", "cp437", "ça"),
    ],
)
def test_a_label_is_read_as_browsers_read_it(label: str, written_as: str, text: str) -> None:
    page = f'<meta charset="{label}"><p>{text}</p>'.encode(written_as)
    [document], notes = (made := read_html(page, "a.html", ReadSettings())).documents, made.notes
    assert document.text == text and notes == (f"decoded as {codec_of(label)}, which it declares",)
    assert Page("u", 200, "text/html", page, False).readable() == f"u\n\n{text}"
    assert Page("u", 200, f"text/plain; charset={label}", text.encode(written_as), False).readable() == f"u\n\n{text}"


def test_bytes_without_a_character_are_controls_in_windows_code_pages_and_nowhere_else() -> None:
    assert decode(b"charset=iso-8859-1 \x80\x81") == (
        "charset=iso-8859-1 €\x81", ["decoded as cp1252, which it declares"]
    )  # fmt: skip
    for byte in range(256):
        expected = bytes([byte]).decode("cp1252", "ignore") or chr(byte)
        assert decode_page(bytes([byte]), "cp1252") == expected
    with pytest.raises(UnicodeDecodeError):
        decode_page(b"\x80\xaa\x81", "cp1253")
    assert decode_page(b"\x80\xaa\x81", "cp1253", "replace") == "€\ufffd\x81"
    assert decode_page(b"\x81\x20a", "cp932", "replace").endswith(" a")


def test_labels_of_no_charset_are_none_and_every_codec_is_pythons() -> None:
    for label in ("zlib", "idna", "punycode", "rot13", "hex", "cp037", "none-such", "", "\0", "x" * 1000, "utf-7"):
        assert codec_of(label) is None, label
    from firsthand.system.web_charsets import _LABELS

    for codec, labels in _LABELS.items():
        assert codecs.lookup(codec).name == codec
        assert all(codec_of(f" {label.upper()}") == codec for label in labels.split())
    assert sum(len(labels.split()) for labels in _LABELS.values()) == 221, "each label once"
    assert codec_of("utf-16") == "utf-16" and codec_of("utf-16", in_text=True) == "utf-8"
