"""Text of DOCX by its formats and styles: digits that are drawn apart stay apart, and parts that are not read are told."""

from __future__ import annotations

import pytest

import written_documents as written
from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings


def run(words: str, formats: str = "") -> str:
    return f'<w:r><w:rPr>{formats}</w:rPr><w:t xml:space="preserve">{words}</w:t></w:r>'


def read(inner: str, **parts: str) -> FileContent:
    return read_docx(written.docx(f"<w:p>{inner}</w:p>", **parts), "d.docx", ReadSettings())


def text_of(inner: str, **parts: str) -> str:
    return read(inner, **parts).documents[0].text.removesuffix("\n\n")


def styles(**formats: str) -> str:
    made = "".join(f'<w:style w:styleId="{id}">{inner}</w:style>' for id, inner in formats.items())
    return f"<w:styles {written.W}>{made}</w:styles>"


RAISED = '<w:rPr><w:vertAlign w:val="superscript"/></w:rPr>'
STRUCK = "<w:rPr><w:strike/></w:rPr>"


@pytest.mark.parametrize(
    ("formats", "text"),
    [
        ('<w:position w:val="8"/>', "10^3 4"),
        ('<w:position w:val="-4"/>', "10_3 4"),
        ('<w:position w:val="3"/>', "1034"),
        ('<w:position w:val="-3"/>', "1034"),
        ('<w:position w:val="x"/>', "1034"),
        ('<w:position w:val="8"/><w:vertAlign w:val="subscript"/>', "10_3 4"),
        ('<w:rStyle w:val="up"/>', "10^3 4"),
        ('<w:rStyle w:val="heir"/>', "10^3 4"),
        ('<w:rStyle w:val="heir"/><w:vertAlign w:val="baseline"/>', "1034"),
        ('<w:vertAlign w:val="baseline"/><w:rStyle w:val="up"/>', "1034"),
        ('<w:rStyle w:val="down"/>', "10_3 4"),
        ('<w:rStyle w:val="out"/>', "10~~3~~4"),
        ('<w:rStyle w:val="out"/><w:strike w:val="0"/>', "1034"),
        ('<w:rStyle w:val="high"/>', "10^3 4"),
        ('<w:rStyle w:val="mark"/>', "1034"),
        ('<w:rStyle w:val="circle"/>', "1034"),
        ('<w:rStyle w:val="unknown"/>', "1034"),
        ('<w:rPrChange><w:rPr><w:rStyle w:val="up"/></w:rPr></w:rPrChange>', "1034"),
    ],
)
def test_digits_are_kept_apart_by_position_and_by_style(formats: str, text: str) -> None:
    given = styles(
        up=RAISED, out=STRUCK, heir='<w:basedOn w:val="up"/>',
        down='<w:basedOn w:val="up"/><w:rPr><w:vertAlign w:val="subscript"/></w:rPr>',
        high='<w:rPr><w:position w:val="6"/></w:rPr>',
        mark=f"<w:pPr>{RAISED}</w:pPr><w:tblStylePr>{STRUCK}</w:tblStylePr>", circle='<w:basedOn w:val="circle"/>',
    )  # fmt: skip
    assert text_of(run("10") + run("3", formats) + run("4"), styles=given) == text


def test_a_paragraphs_style_is_that_of_its_runs_and_of_no_other_paragraph() -> None:
    given = styles(out=STRUCK, down='<w:rPr><w:strike w:val="0"/></w:rPr>')
    marked = f'<w:pPr><w:pStyle w:val="out"/></w:pPr>{run("900")}'
    assert text_of(f"{marked}</w:p><w:p>{run('5')}", styles=given) == "~~900~~\n\n5"
    assert text_of(marked + run("5", '<w:rStyle w:val="down"/>'), styles=given) == "~~900~~5"
    boxed = f"{run('1')}<w:r><w:txbxContent><w:p>{marked}</w:p></w:txbxContent></w:r>{run('2')}"
    assert text_of(boxed, styles=given) == "~~900~~\n\n12"


def test_runs_of_drawings_have_their_own_formats() -> None:
    def drawn(formats: str) -> str:
        return text_of(f"<w:p><w:r><w:t>10</w:t></w:r><w:r><w:rPr {formats}/><w:t>3</w:t></w:r></w:p>")

    assert drawn('baseline="30000"') == "10^3" and drawn('baseline="-25000"') == "10_3"
    assert drawn('strike="sngStrike"') == "10~~3~~" and drawn('strike="noStrike"') == drawn('baseline="0"') == "103"


def test_tabs_to_a_margin_small_text_and_drop_down_fields_stand_apart() -> None:
    assert text_of(run("Page 1") + "<w:r><w:ptab/></w:r>" + run("500")) == "Page 1\t500"
    ruby = f"<w:r><w:ruby><w:rt>{run('2')}</w:rt><w:rubyBase>{run('10')}</w:rubyBase></w:ruby></w:r>"
    assert text_of(run("a ") + ruby + ruby + run(" mg")) == "a 10(2)10(2) mg"
    assert text_of(ruby.replace(">2<", "> <") + run("5")) == "105"
    entries = '<w:listEntry w:val="5 mg"/><w:listEntry w:val="50 mg"/>'

    def chosen(result: str) -> str:
        return text_of(
            f"{run('Dose ')}<w:r><w:fldChar><w:ffData><w:ddList>{result}{entries}</w:ddList></w:ffData></w:fldChar></w:r>"
        )

    assert chosen('<w:result w:val="1"/>') == "Dose 50 mg" and chosen("") == "Dose 5 mg"
    assert chosen('<w:result w:val="2"/>') == "Dose"


def test_equations_of_fields_and_embedded_documents_are_told() -> None:
    def field(*instructions: str) -> tuple[str, ...]:
        inner = "".join(f"<w:r><w:instrText>{each}</w:instrText></w:r>" for each in instructions)
        ends = [f'<w:r><w:fldChar w:fldCharType="{kind}"/></w:r>' for kind in ("begin", "end")]
        return read(f"{ends[0]}{inner}{ends[1]}{run('cup')}").notes

    assert field(" EQ \\f(1,2) ") == field(" E", "Q \\f(1,2)") == ("1 formula of EQ fields not read",)
    assert field(" PAGE ") == field("x EQ y") == ()
    assert read(f"{run('a')}</w:p><w:altChunk/><w:altChunk/><w:p>").notes == (
        "2 embedded documents (altChunk) not read",
    )


def test_parts_with_text_that_are_not_read_are_told_with_their_characters() -> None:
    def part(inner: str) -> str:
        return f"<w:hdr {written.W}><w:p>{inner}</w:p></w:hdr>"

    begin, end = ('<w:r><w:fldChar w:fldCharType="begin"/></w:r>', '<w:r><w:fldChar w:fldCharType="end"/></w:r>')
    number = begin + run("12") + end
    simple = f'<w:fldSimple w:instr="PAGE">{run("3")}</w:fldSimple>'
    assert read(run("x"), header1=part(" "), footer1=part(number), footer2=part(simple)).notes == ()
    given = {"header1": part(run("not this")), "header2": part(run("a")), "footer1": part(number + simple + run("b"))}
    told = "text that is not read: 2 headers (8 characters), 1 footer (1 character)"
    assert read(run("x"), **given).notes == (told,)
    given = {"comments": part(run("c")), "diagrams/data1": part(run("d")), "charts/chart1": "<c><v>5</v></c>"}
    told = "1 part of comments (1 character), 1 diagram (1 character), 1 chart (1 character)"
    assert read(run("x"), **given).notes == (f"text that is not read: {told}",)
    assert read(run("x"), header1="<w:hdr").notes[0].startswith("its XML is damaged")
