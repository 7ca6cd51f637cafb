"""Pages by HTML's rules: hidden elements up to their end, preformatted lines, and cells that span columns and rows."""

from __future__ import annotations

import pytest

from firsthand.retrieval.documents.html_reader import page_text
from firsthand.tools.web.html import to_placed_text, to_text


@pytest.mark.parametrize("tag", ["br", "br/", "body", "html", "title", "option", "legend", "tr", "tbody", "thead", "tfoot",
                                 "caption", "td", "/br", "img src=x", "/body", "/html", "noframes", "noembed"])  # fmt: skip
@pytest.mark.parametrize("hidden", ["hidden", 'style="display:none"'])
def test_a_hidden_paragraph_is_not_ended_by_what_ends_no_paragraph_in_a_browser(tag: str, hidden: str) -> None:
    for around in ("{}", "<html><body>{}</body></html>"):
        page = around.format(f"<p>Seen</p><p {hidden}>A<{tag}>LEAK<b>LEAK</b></p><p>End</p>")
        text, _, hidden_note = page_text(page)
        assert "LEAK" not in text and text.startswith("Seen"), text
        if tag not in ("title", "noframes", "noembed", "option", "legend"):
            assert text.endswith("End")
        assert hidden_note, "it is counted"


@pytest.mark.parametrize(
    "tag", ["hr", "p", "div", "ul", "li", "dd", "h2", "pre", "menu", "hgroup", "dialog open", "form"]
)
def test_a_hidden_paragraph_ends_where_a_browser_ends_it(tag: str) -> None:
    assert "shown" in to_text(f"<p hidden>A<{tag}>shown")


@pytest.mark.parametrize(
    "page",
    [
        "<span><menu hidden>A</span>LEAK</menu>",
        "<b><button hidden>A</b>LEAK</button>",
        "<p><button hidden>A</p>LEAK</button></p>",
        "<ul><li><ul hidden>A</li>LEAK</ul></ul>",
        "<form><div hidden>A</form>LEAK</div>",
        "<div><marquee hidden>A</div>LEAK</marquee></div>",
        "<p hidden>A<textarea></p>LEAK</textarea></p>",
        "<body><div hidden>A</body>LEAK</div>",
        "<p hidden>A<table><tr><td>LEAK</td></tr></table></p>",
        "<td><div hidden>A<td>LEAK</div>",
        "<caption><p hidden>A</caption>LEAK</p>",
        "<tr><div hidden>A<tbody>LEAK</div>",
        "<object>A<object>B</object>LEAK</object>",
        "<template><template>A</template>LEAK</template>",
        "<style>A</styles>LEAK</style>",
        "<noscript>A<noscript>B</noscript>",
    ],
)
def test_an_end_tag_ends_no_hidden_element_that_it_does_not_reach(page: str) -> None:
    assert to_text(f"{page}<p>End</p>").lstrip("-| \n") == "End"


def test_a_part_of_no_table_hides_nothing_and_in_xml_is_an_element() -> None:
    assert to_text("<td hidden>shown</td>behind").replace("\n", " ").split() == ["shown", "|", "behind"]
    assert page_text("<td hidden=''>LEAK</td><p>v</p>", is_xml=True)[0] == "v"


def test_a_form_or_a_table_ends_a_hidden_paragraph_as_in_a_browser() -> None:
    assert to_text("<form><p hidden>A</form>shown") == "shown"
    assert to_text("<!doctype html><p hidden>A<table><tr><td>shown</table>") == "shown |"


def test_in_xml_only_an_end_tag_ends_a_hidden_element() -> None:
    for inner in ("<hr/>LEAK", "<div>LEAK</div>", "<p>LEAK</p>LEAK", "<br/>LEAK"):
        assert page_text(f"<p hidden=''>x{inner}</p><p>v</p>", is_xml=True)[0] == "v", inner
    assert page_text("<svg hidden=''><p>LEAK</p></svg><p>v</p>", is_xml=True)[0] == "v"


def test_preformatted_lines_keep_their_indentation_and_blank_lines() -> None:
    code = "def f(x):\n    if x:\n        return 1\n\n\n    return 2"
    marked = code.replace("return", "<span class=k>return</span>").replace("    if", "    <b></b>if")
    for page in (
        f"<pre>{code}</pre>",
        f"<pre><code>\n{marked}  \n</code></pre>",
        f"<p>a</p>\n<pre>\n{code}\n\n</pre>b",
    ):
        text, places, _ = to_placed_text(page)
        assert code in text and text == to_text(page)
        assert [text[at] for at, _ in places] != [] and all(at == 0 or text[at - 1] == "\n" for at, _ in places)
    assert to_text("<pre>\n  first\n</pre>\n\n<p>\n  after</p>") == "  first\n\nafter"
    assert to_text("<p>a</p><pre>\n b</pre>") == "a\n\n b"
    assert to_text("a<pre>\n\n\n b\n\n\n</pre>c") == "a\n\n\n\n b\n\n\nc"
    assert to_text("<pre>a<div hidden>x</pre> b   c") == "a\nb c", "a pre ends with what is open in it"
    assert to_text("<section>a<div hidden>x</section>b") == "a\nb"


def test_cells_that_span_columns_and_rows_leave_the_others_in_their_columns() -> None:
    head = "<table><tr><th>Region<th>Q1<th>Q2"
    for rows, text in (
        ("<tr><td colspan=2>both<td>9", "both |  | 9 |"),
        ("<tr><td rowspan=2>N<td>1<td>2<tr><td>3<td>4<tr><td>S<td>5<td>6",
         "N | 1 | 2 |\n|  3 | 4 |\nS | 5 | 6 |"),
        ("<tr><td>N<td rowspan='2'>1<td>2<tr><td>S<td>4", "N | 1 | 2 |\nS |  | 4 |"),
        ("<tr><td rowspan=2 colspan=2>N<td>2<tr><td>4", "N |  | 2 |\n|  |  4 |"),
        ("<tr><td rowspan=0>N<td>1<td>2<tr><td>3<tr><td>4<tbody><tr><td>5", "N | 1 | 2 |\n|  3 |\n|  4 |\n\n5 |"),
        ("<tr><td hidden rowspan=2>x<td>1<tr><td>3", "1 |\n3 |"),
        ("<tr><td rowspan=2>N<table><tr><td>i<tr><td>j</table><td>1<tr><td>3", "N\n\ni |\nj |\n| 1 |\n|  3 |"),
        ("<tr><td colspan=x rowspan=-2>N<td>1<tr><td>3", "N | 1 |\n3 |"),
    ):  # fmt: skip
        assert " ".join(to_text(f"{head}{rows}</table>").split()) == " ".join(f"Region | Q1 | Q2 | {text}".split()), (
            rows
        )
    assert to_text("<table><tr><td rowspan=3>a</table><table><tr><td>b<tr><td>c</table>") == "a |\n\nb |\nc |"


def test_spans_make_no_page_much_longer() -> None:
    for row in ("<tr><td colspan=99999>", "<tr><td rowspan=999><td>", "<tr><td colspan=100 rowspan=3><td>"):
        assert to_text("<table>" + row * 3000).count("|") <= 100_000 + 6000


@pytest.mark.parametrize("name", ["script", "style", "template", "iframe", "noscript"])
def test_a_silent_element_closes_itself_in_xml_and_drawings_alone(name: str) -> None:
    page = f"<p>A</p><{name}/><p>B</p></{name}><p>C</p>"
    assert to_text(page) == "A\n\nC"
    assert to_text(f"<p>A</p><{name} src='x' />B") == "A"
    assert to_placed_text(f"<p>A</p><{name}/> BC ")[2] == 2, "what is left out is counted"
    assert to_placed_text(f"<p>A</p><{name}>BC</{name}>")[2] == 0
    assert to_placed_text(f"<p>A</p><{name}/><p>B</p>", is_xml=True)[0] == "A\n\nB"
    assert to_text(f"<p>A</p><svg><{name}/><text>B</text></svg><p>C</p>") == "A\n\nB\n\nC"
