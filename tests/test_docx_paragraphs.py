"""Paragraphs of DOCX as they are read: styles, levels, signs, cells, text boxes, and parts that break off in the middle."""

from __future__ import annotations

import pytest

import written_documents as written
from firsthand.errors import DataError
from firsthand.retrieval.document import Location
from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.file_content import ReadSettings

p = written.paragraph


def t(words: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{words}</w:t></w:r>'


def text_of(body: str, **parts: str) -> str:
    [document] = read_docx(written.docx(body, **parts), "d.docx", ReadSettings()).documents
    return document.text


def style(id: str, name: str, more: str = "") -> str:
    return f'<w:style w:styleId="{id}"><w:name w:val="{name}"/>{more}</w:style>'


def level(number: str) -> str:
    return f'<w:outlineLvl w:val="{number}"/>'


def test_a_styles_level_is_that_of_its_name_or_else_of_its_outline() -> None:
    nameless = '<w:style><w:name w:val="heading 1"/><w:outlineLvl w:val="0"/></w:style>'
    styles = (
        style("own", "Custom", level("2")) + style("both", "heading 1", level("4")) + style("none", "Custom", level("9"))
        + style("last", "Custom") + nameless + style("first", "Custom", level("0")) + style("Heading1", "heading 3")
        + style("eighth", "Custom", level("8")) + style("T", "tItLe", level("3")) + style("empty", "Custom", level(""))
    )  # fmt: skip
    bare = f'<w:p><w:pPr><w:pStyle w:val=""/></w:pPr>{t("bare")}</w:p>'
    ids = (
        "own",
        "both",
        "none",
        "last",
        "first",
        "Heading1",
        "eighth",
        "T",
        "empty",
        "Heading2",
        "heading 4",
        "Heading22",
    )
    body = bare + "".join(p(id, id) for id in ids)
    assert text_of(body, styles=f"<w:styles {written.W}>{styles}</w:styles>").split("\n\n") == [
        "bare", "### own", "# both", "none", "last", "# first", "### Heading1", "###### eighth", "# T", "empty",
        "## Heading2", "#### heading 4", "Heading22", "",
    ]  # fmt: skip
    item = "<w:numPr/>"
    own = (
        p("a", "Berschrift1", level("3"))
        + p("b", more=level("9"))
        + p("c", "Title", item)
        + p("d \n e", "Title")
        + p("f")
    )
    assert text_of(own + p("g", more=item) + p("h", more=item) + p("i")) == (
        "#### a\n\nb\n\n# c\n\n# d e\n\nf\n\n- g\n- h\ni\n\n"
    )
    without = written.zipped({"word/document.xml": f"<w:document {written.W}>{p('x', 'Berschrift1')}</w:document>"})
    assert read_docx(without, "d.docx", ReadSettings()).documents[0].text == "x\n\n"


def test_a_title_is_that_of_the_properties_alone_and_of_the_first_heading_where_they_have_none() -> None:
    def title(core: str) -> str:
        body = f"<w:document {written.W}>{p('Head', 'Heading1')}</w:document>"
        parts: dict[str, str | bytes] = {"word/document.xml": body, "docProps/core.xml": core}
        content = read_docx(written.zipped(parts), "d.docx", ReadSettings())
        assert content.notes == ()
        return content.documents[0].title

    assert title("<c><a/>x<title> My &amp;\n own\u200b</title>y<b/>z</c>") == "My & own"
    assert [title(core) for core in ("<c/>", "<c><title> </title></c>", "<broken", "", "<c><Title>no</Title></c>")] == [
        "Head"
    ] * 5
    parts = [letter * 5000 for letter in "AB"]  # longer together than what the parser gives at once
    assert title(f"<c><title>{'&amp;'.join(parts)}</title></c>") == "A" * 200


def test_signs_are_text_and_what_is_left_out_has_none() -> None:
    run = f"<w:p><w:r><w:tab/><w:br/></w:r>{t('a')}<w:r><w:tab/></w:r>{t('b')}<w:r><w:br/></w:r>{t('c')}<w:r><w:cr/></w:r>"
    run += f"{t('d')}<w:r><w:noBreakHyphen/></w:r>{t('e')}<w:r><w:cr/><w:tab/></w:r></w:p>"
    assert text_of(run) == "a\tb\nc\nd-e\n\n"
    tabs = '<w:tabs><w:tab w:val="left"/><w:tab w:val="right"/></w:tabs>'
    assert text_of(p("x", more=tabs)) == "x\n\n"
    field = "<w:p><w:r><w:instrText>PAGE</w:instrText><w:delText>gone</w:delText></w:r>" + t("7") + "</w:p>"
    signs = "<w:r><w:noBreakHyphen/><w:t>x</w:t><w:tab/><w:br/></w:r>"
    for kind in ("del", "moveFrom", "Fallback"):
        left = f"<w:p>{t('a')}<w:{kind}>{signs}<w:{kind}>{t('y')}</w:{kind}>{t('z')}</w:{kind}>{t('b')}</w:p>"
        assert text_of(field + left) == "7\n\nab\n\n"
    assert text_of(f"<w:p><w:ins>{t('new')}</w:ins><w:moveTo>{t('er')}</w:moveTo></w:p>") == "newer\n\n"


def test_a_text_box_does_not_take_the_words_before_it_from_its_paragraph() -> None:
    box = f"<w:txbxContent>{p('in the box', more='<w:numPr/>')}{p('below')}</w:txbxContent>"
    twice = f"<AlternateContent><Choice>{box}</Choice><Fallback><w:pict>{box}</w:pict></Fallback></AlternateContent>"
    anchor = f'<w:p><w:pPr><w:pStyle w:val="Title"/></w:pPr>{t("before ")}<w:r>{twice}</w:r>{t("after")}</w:p>'
    [document] = read_docx(written.docx(p("one") + anchor + p("two")), "d.docx", ReadSettings()).documents
    assert document.text == "one\n\n- in the box\nbelow\n\n# before after\n\ntwo\n\n"
    starts = [document.text.index(words) for words in ("one", "- in", "below", "# before", "two")]
    assert document.locations == tuple(
        Location(start, "paragraph", number) for start, number in zip(starts, "12367", strict=True)
    ), "paragraphs that are left out are counted"
    assert text_of(anchor.replace('<w:pStyle w:val="Title"/>', "<w:numPr/>")) == (
        "- in the box\nbelow\n\n- before after\n"
    )
    cell = f"<w:tbl><w:tr><w:tc>{anchor}</w:tc><w:tc>{p('x')}</w:tc></w:tr></w:tbl>"
    assert text_of(cell) == "| in the box below before after | x |\n\n"


def test_rows_have_their_cells_on_one_line_and_empty_ones_are_left_out() -> None:
    def row(*cells: str) -> str:
        return "<w:tr>" + "".join(f"<w:tc>{cell}</w:tc>" for cell in cells) + "</w:tr>"

    lines = f"<w:p>{t('a')}<w:r><w:br/></w:r>{t('  b')}<w:r><w:tab/></w:r>{t('c')}</w:p>"
    assert text_of(f"<w:tbl>{row(lines, p('d') + p('e'))}{row(p(''), p(' '))}{row(p(''), p('f'))}</w:tbl>{p('g')}") == (
        "| a b c | d e |\n|  | f |\n\ng\n\n"
    )
    inner = f"<w:tbl>{row(p('x'), p('y'))}{row(p(''), p(''))}</w:tbl>"
    assert text_of(f"<w:tbl>{row(p('1') + inner + p('2'), p('3', 'Title'))}</w:tbl>") == "| 1 x | y 2 | 3 |\n\n"
    assert text_of(f"<w:tbl>{row(p('1'))}</w:tbl><w:tbl>{row(p('2'))}</w:tbl>") == "| 1 |\n\n| 2 |\n\n"
    # what no Word writes: a cell outside of a row, a row in a row, words in a row outside of its cells
    assert text_of(f"<w:tc>{p('x')}</w:tc>") == "x\n\n"
    assert text_of(f"<w:tbl><w:tr>{p('in')}<w:tr><w:tc>{p('y')}</w:tc></w:tr></w:tr></w:tbl>") == "in\n\n| y |\n\n"


def test_a_part_that_breaks_off_does_not_change_how_the_next_one_is_read() -> None:
    field = "<w:p><w:r><w:instrText>stray</w:instrText></w:r></w:p>"
    for begun in ("<w:tbl><w:tr><w:tc>", "<w:p><w:r><w:t>", "<w:p><w:del>", "<w:p><w:pPr><w:numPr/></w:pPr>"):
        broken = f"<w:footnotes {written.W}>{p('kept')}{begun}lost<"
        end = f"<w:endnotes {written.W}>stray{p('whole')}<w:r>{t('stray')}</w:r>{field}</w:endnotes>"
        content = read_docx(written.docx(p("é"), footnotes=broken, endnotes=end), "d.docx", ReadSettings())
        [document] = content.documents
        assert document.text == "é\n\nkept\n\nwhole\n\n", begun
        assert document.locations == tuple(
            Location(start, "paragraph", number) for start, number in ((0, "1"), (3, "2"), (9, "3"))
        )
        assert len(content.notes) == 1 and content.notes[0].startswith("its XML is damaged: ")
    for part in ({"styles": "<broken"}, {"document": "<broken"}):
        with pytest.raises(DataError, match=r"^its XML is damaged: unclosed token"):
            text_of(p("x"), **part)
