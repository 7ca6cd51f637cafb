"""DOCX: characters of symbol fonts, and cells that span columns."""

from __future__ import annotations

import io
import zipfile

from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.symbol_fonts import symbol

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(body: str) -> FileContent:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("word/document.xml", f'<w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>')
    return read_docx(file.getvalue(), "a.docx", ReadSettings())


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def sign(code: str, font: str = "Symbol", formats: str = "") -> str:
    return f'<w:r><w:rPr>{formats}</w:rPr><w:sym w:font="{font}" w:char="{code}"/></w:r>'


def test_symbols_are_read_and_unknown_ones_are_noted() -> None:
    made = docx(f"<w:p>{run('dose ')}{sign('F0A3')}{run(' 5 ')}{sign('F0B1')}{run('2')}{sign('F0B0')}{run('C')}</w:p>")
    assert (made.documents[0].text, made.notes) == ("dose ≤ 5 ±2°C\n\n", ())
    other = docx(f"<w:p>{run('a')}{sign('F021', 'Wingdings 3')}{sign('F0FC', 'WINGDINGS')}{sign('xyz')}</w:p>")
    assert other.documents[0].text == "a\ufffd✓\ufffd\n\n"
    assert other.notes == ("2 symbols of other fonts than Symbol, read as \ufffd",)
    hidden = docx(f"<w:p>{run('a')}{sign('F0A3', formats='<w:vanish/>')}{sign('F021', 'x', '<w:vanish/>')}</w:p>")
    assert hidden.documents[0].text == "a\n\n"
    assert hidden.notes == ("text that a reader does not see was left out: 2 characters",)
    assert docx(f"<w:p>{run('a')}<w:del>{sign('F0A3')}</w:del></w:p>").documents[0].text == "a\n\n"
    level = '<w:vertAlign w:val="superscript"/>'
    raised = docx(f"<w:p>{run('10')}{sign('F032', formats=level)}</w:p>")
    assert raised.documents[0].text == "10^2\n\n"


def test_a_code_is_a_character_of_its_font() -> None:
    for code, char in (
        ("F020", " "), ("F02D", "−"), ("F07E", "∼"), ("F0A0", "€"), ("F06D", "μ"), ("F0AE", "→"),
        ("F0D6", "√"), ("F0EF", "⎪"),
        ("F0F1", "〉"), ("F0FE", "⎭"), ("B0", "°"), ("00b3", "≥"), ("F07F", "\ufffd"), ("F0F0", "\ufffd"),
        ("F0FF", "\ufffd"),
        ("", "\ufffd"), ("-5", "\ufffd"), ("FFFFFFFF", "\ufffd"), ("D800", "\ufffd"),
    ):  # fmt: skip
        assert symbol("Symbol", code) == char, code
    assert (
        symbol("Wingdings", "F081") == "①"
        and symbol("Wingdings", "F095") == "❿"
        and symbol("Wingdings 2", "F050") == "✓"
    )
    assert (
        symbol("Arial", "2264") == "≤" and symbol("Arial", "F0B0") == symbol("", "D800") == symbol("", "1") == "\ufffd"
    )
    assert symbol("", "F8FF") == symbol("", "110000") == "\ufffd" and symbol("", "F900") != "\ufffd"


def cell(text: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr><w:p>{run(text) if text else ''}</w:p></w:tc>"


def row(*cells: str, properties: str = "") -> str:
    return f"<w:tr><w:trPr>{properties}</w:trPr>{''.join(cells)}</w:tr>"


def test_cells_that_span_columns_leave_the_others_in_their_columns() -> None:
    two, below = '<w:gridSpan w:val="2"/>', "<w:vMerge/>"
    was = f"<w:tcPrChange><w:tcPr>{two}</w:tcPr></w:tcPrChange>"
    before = '<w:gridBefore w:val="1"/>'
    inner = f"<w:tbl>{row(cell('i'), cell('j'))}</w:tbl>"
    for given, text in (
        (row(cell("both", two), cell("9")), "| both |  | 9 |\n"),
        (row(cell("9"), cell("both", two)), "| 9 | both |  |\n"),
        (
            row(cell("N", '<w:vMerge w:val="restart"/>'), cell("1")) + row(cell("", below), cell("2")),
            "| N | 1 |\n|  | 2 |\n",
        ),
        (row(cell("a", was), cell("b")), "| a | b |\n"),
        (row(cell("a"), cell("b"), properties=before), "|  | a | b |\n"),
        (row(cell("a", '<w:gridSpan w:val="x"/>'), cell("b", '<w:gridSpan w:val="0"/>')), "| a | b |\n"),
        (row(f"<w:tc><w:tcPr>{two}</w:tcPr>{inner}</w:tc>", cell("9")), "| i | j |  | 9 |\n"),
        (row(cell("", two), cell("")), ""),
    ):
        assert docx(f"<w:tbl>{given}</w:tbl>").documents[0].text == text + "\n", given


def test_spans_make_no_row_much_longer() -> None:
    wide = cell("a", '<w:gridSpan w:val="99999"/>') * 500
    for properties in ("", '<w:gridBefore w:val="99999"/>'):
        assert docx(f"<w:tbl>{row(wide, properties=properties)}</w:tbl>").documents[0].text.count("|") <= 501 + 100
