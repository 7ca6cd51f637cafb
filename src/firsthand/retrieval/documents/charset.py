"""Decodes bytes: byte order marks, strict UTF-8, a charset that the text declares, then a guess, which is noted.

A wrong guess would fill an index with garbage in silence, so every guess is a remark, and a binary file is an error.
"""

from __future__ import annotations

import codecs
import importlib.util
import re
from contextlib import suppress

from firsthand.errors import DataError, MissingExtra
from firsthand.system.web_charsets import codec_of, decode_page

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"(?:charset|encoding|coding)\s{0,3}[=:]\s{0,3}[\"']?([A-Za-z][\w.:-]{1,30})")
_CONTROLS = bytes([*range(0, 7), *range(14, 27), *range(28, 32)])
_CONTROL = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_SAMPLE = 100_000
MAGIC = {
    b"%PDF-": "a PDF", b"PK\x03\x04": "a ZIP archive", b"\x7fELF": "a program", b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"\x1f\x8b": "a gzip archive", b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive", b"7z\xbc\xaf": "a 7z archive", b"MZ\x90": "a program", b"SQLite format 3": "a database",
    b"\xd0\xcf\x11\xe0": "an old Office file", b"Rar!": "a RAR archive",
}  # fmt: skip


def decode(data: bytes) -> tuple[str, list[str]]:
    """The text, with a remark if it is not UTF-8. DataError for bytes that are no text."""
    for magic, kind in MAGIC.items():
        if data.startswith(magic):
            raise DataError(f"it is {kind} and no text: give it the ending of its format, or leave it out")
    for mark, name in _MARKS:
        if data.startswith(mark):
            try:
                text = data.decode(name)
            except UnicodeDecodeError as error:
                at = error.start + (len(mark) if name == "utf-8-sig" else 0)  # whose decoder counts from after the mark
                raise DataError(f"it begins as {name.upper()} and is not valid at byte {at}: save it again") from None
            return text, [] if name == "utf-8-sig" else [f"decoded as {name.upper()}, by its byte order mark"]
    if wide := _wide(data):
        return data.decode(wide), [f"decoded as {wide.upper()}, which was guessed"]
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if controls > max(1, len(data) // 100):
        raise DataError(f"{controls} of its {len(data)} bytes are control characters: it is binary and no text")
    try:
        return data.decode(), []
    except UnicodeDecodeError as error:
        return _legacy(data, error)


def _wide(data: bytes) -> str:
    """UTF-16 without a mark: half of the bytes are zeros, all on one side."""
    sample = data[:4096]
    if len(sample) < 4 or len(data) % 2:
        return ""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros > 0.35 * (len(sample) // 2) and others <= 0.02 * (len(sample) // 2):
            try:
                text = data.decode(name)
            except UnicodeDecodeError:
                return ""
            return name if len(_CONTROL.findall(text[:2048])) <= len(text[:2048]) // 100 else ""
    return ""


def _legacy(data: bytes, error: UnicodeDecodeError) -> tuple[str, list[str]]:
    """Text of another charset: the one it declares, or the likeliest."""
    if found := _DECLARED.search(data[:2048]):
        name = codec_of(found[1].decode("ascii"), in_text=True)
        if name is not None and name != "utf-8":
            with suppress(UnicodeDecodeError):
                return decode_page(data, name), [f"decoded as {name}, which it declares"]
    damaged = data.decode(errors="replace")
    wrong = damaged.count("\ufffd") - data.count(b"\xef\xbf\xbd")
    if wrong * 200 < len(damaged) and any(byte >= 0xC2 for byte in data[: error.start]):
        return damaged, [f"UTF-8 with {wrong} invalid bytes, the first at {error.start}: they were replaced"]
    if importlib.util.find_spec("charset_normalizer") is None:
        raise MissingExtra("charset-normalizer", "rag", f"it is not UTF-8 (byte {error.start}); guessing its charset")
    from charset_normalizer import from_bytes

    around = max(0, min(error.start - _SAMPLE // 4, len(data) - _SAMPLE))
    guesses = from_bytes(data[around : around + _SAMPLE])
    best = guesses.best()
    usual = next((each for each in guesses if "cp1252" in (each.encoding, *each.could_be_from_charset)), None)
    if best is None:
        raise DataError(
            f"it is not UTF-8 (byte {error.start}) and of no charset that could be guessed: save it as UTF-8"
        )
    name = best.encoding
    if usual is not None and usual.chaos <= best.chaos + 0.1 and usual.coherence >= best.coherence - 0.05:
        name = "cp1252"  # as likely, and the charset of most such files
    try:
        return data.decode(name), [f"decoded as {name}, which was guessed"]
    except (UnicodeDecodeError, LookupError):
        text = data.decode(name, "replace")
        return text, [f"decoded as {name}, which was guessed, with {text.count(chr(0xFFFD))} bytes replaced"]
