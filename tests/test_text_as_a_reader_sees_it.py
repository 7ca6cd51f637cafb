"""Text is read as a page or a document shows it: what is hidden is left out, and digits that are apart stay apart."""

from __future__ import annotations

import io
import zipfile

import pytest

from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.html_reader import page_text, read_html
from firsthand.tools.web.html import to_text

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("500<sup>2</sup> mg", "500^2 mg"),
        ("10<sup><b>-6</b></sup>5", "10^-6 5"),
        ("(a)<sup>2</sup> m<sup>2</sup>", "(a)^2 m^2"),
        ("1<sup>st</sup> H<sub>2</sub>O x<sub>1</sub>", "1st H2O x1"),
        ("101<sub>2</sub>", "101_2"),
        ("word<sup>[2]</sup> 5<sup></sup>0 5 <sup>2</sup>", "word[2] 50 5 2"),
        ("<p>5</p><p><sup>2</sup> note</p>", "5\n\n2 note"),
        ("<sup>1</sup>2", "1 2"),
        ("<s>900</s>500 <del></del>", "~~900~~500"),
        ("a</s>b", "ab"),
    ],
)
def test_digits_that_are_raised_lowered_or_struck_stay_apart(source: str, text: str) -> None:
    assert to_text(source) == text


@pytest.mark.parametrize(
    "element",
    [
        "<div hidden>x</div>",
        "<div hidden/>x</div>",
        "<div HIDDEN=''>x<div>x</div>x</div>",
        "<p style='color: red; DISPLAY :/**/ none !important'>x</p>",
        '<span style="visibility:hidden">x</span>',
        "<span style='font-size:0.0px'>x</span>",
        "<span style=opacity:0>x</span>",
        "<dialog>x</dialog>",
        "<b><div hidden></b>x</div>",
        "<section><div hidden>x</section>",
        "<span><div hidden></span>x</div>",
        "<div><table><tr><td hidden></div>x</table></div>",
        "<ul><li hidden>x<li>",
        "<p hidden>x<div>",
        "<div hidden><br>x<a href='https://x.org/x'>x</a><ul><li>x</ul></div>",
    ],
)
def test_an_element_that_hides_itself_is_left_out_up_to_its_end(element: str) -> None:
    text, _, notes = page_text(f"<p>Seen</p>{element}<p>Too</p>")
    assert "x" not in text and text.startswith("Seen") and text.endswith("Too")
    assert notes[0].startswith("text that a reader does not see was left out: ")


@pytest.mark.parametrize(
    "element",
    [
        "<div title='not hidden'>x</div>",
        "<div hidden=until-found>x</div>",
        "<div role=tabpanel hidden>x</div>",
        "<dialog open>x</dialog>",
        "<body hidden>x</body>",
        "<p style='display:none;display:block;font-size:0.8em'>x</p>",
        "<input hidden>x",
        "<p aria-hidden=true>x</p>",
    ],
)
def test_what_is_shown_or_opens_with_a_click_is_read(element: str) -> None:
    text, _, notes = page_text(f"<p>Seen</p>{element}")
    assert "x" in text and notes == []


def test_an_empty_element_of_xml_hides_nothing() -> None:
    assert page_text("<div hidden=''/>x", is_xml=True)[0] == "x" and page_text("<div hidden=''/>x")[0] == ""


def docx(runs: str) -> FileContent:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr("word/document.xml", f'<w:document xmlns:w="{_W}"><w:body>{runs}</w:body></w:document>')
        parts.writestr("[Content_Types].xml", "<Types/>")
    return read_docx(file.getvalue(), "a.docx", ReadSettings())


def run(text: str, formats: str = "") -> str:
    return f"<w:r><w:rPr>{formats}</w:rPr><w:t>{text}</w:t></w:r>"


def test_a_document_is_read_without_hidden_runs_and_with_marks_of_raised_and_struck_ones() -> None:
    raised, lowered = '<w:vertAlign w:val="superscript"/>', '<w:vertAlign w:val="subscript"/>'
    shown = '<w:vanish w:val="0"/>'
    hidden = docx(f"<w:p>{run('a')}{run('bad', '<w:vanish/>')}{run('c', shown)}</w:p>")
    assert hidden.documents[0].text == "ac\n\n"
    assert hidden.notes == ("text that a reader does not see was left out: 3 characters",)
    box = docx(f"<w:p><w:r><w:p>{run('bad', '<w:vanish/>')}</w:p><w:t>a</w:t></w:r></w:p>")
    assert box.documents[0].text == "a\n\n", "a text box stands in a run, whose format is its own"
    for runs, text in (
        (run("10") + run("6", raised) + run("5"), "10^6 5"),
        (run("H") + run("2", lowered) + run("O"), "H2O"),
        (run("9", "<w:strike/>") + run("0", "<w:dstrike/>") + run("5"), "~~90~~5"),
        (run("9", "<w:strike/>"), "~~9~~"),
        ("<w:pPr><w:rPr><w:vanish/></w:rPr></w:pPr>" + run("a"), "a"),
        (run("a", "<w:rPrChange><w:rPr><w:vanish/></w:rPr></w:rPrChange>"), "a"),
    ):
        assert docx(f"<w:p>{runs}</w:p>").documents[0].text == f"{text}\n\n" and not docx(f"<w:p>{runs}</w:p>").notes


def test_the_receipt_tells_of_hidden_text_of_a_page() -> None:
    made = read_html(b"<p>a</p><p hidden>bad</p>", "a.html", ReadSettings())
    assert made.notes == ("text that a reader does not see was left out: 3 characters",)
