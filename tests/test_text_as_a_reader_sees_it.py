"""Text is read as a page or a document shows it: what is hidden is left out, and digits that are apart stay apart."""

from __future__ import annotations

import io
import zipfile

import pytest

from firsthand.retrieval.documents.docx_reader import read_docx
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.html_reader import page_text, read_html
from firsthand.retrieval.documents.table_reader import read_table
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
        f"<div style='display:none' data-x='{'A' * 4100}>'>x</div>",
        "<svg>x<g><rect/></g><circle/></svg>",
        "<math><mphantom hidden><mfrac><mn>x</mn><mn>x</mn></mfrac></mphantom></math>",
        "<math></math> <span class='katex katex-html' aria-hidden='true'>x</span>",
        "<math></math><span class=katex-html>x</span>",
        "<p style='display:none' style='color:red'>x</p>",
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


@pytest.mark.parametrize(
    ("page", "in_xml", "in_html"),
    [
        ("<p><![CDATA[Mice & men &amp; <b>]]> run</p>", "Mice & men &amp; <b> run", "]]> run"),
        ("<p>a<![CDATA[]]>b</p>", "ab", "ab"),
        ("<p hidden=''><![CDATA[no]]></p>y", "y", "y"),
        ("<p>a<![CDATA[b", "ab", "a"),
        ("<pre><![CDATA[a\n  b]]></pre>", "a\n  b", ""),
        ("<p>10<sup><![CDATA[3]]></sup></p>", "10^3", "10"),
        ("<script><![CDATA[ a</script> ]]></script>x", "x", "]]>x"),
        ("<style><![CDATA[ p]]></style>x<style>no</style>", "x", "x"),
        ("<svg><text><![CDATA[a > b]]></text></svg>", "a > b", "a > b"),
        ("<math><mtext><![CDATA[a > b]]></mtext></math>", "a > b", "a > b"),
        ("<svg><foreignObject><![CDATA[a > b]]></foreignObject></svg>", "a > b", "a > b"),
        ("<svg><foreignObject><p><![CDATA[a > b]]></p></foreignObject></svg>", "a > b", "b]]>"),
        ("<svg></svg><p><![CDATA[a > b]]></p>", "a > b", "b]]>"),
    ],
)
def test_a_section_of_cdata_is_text_as_it_stands_where_browsers_show_it(page: str, in_xml: str, in_html: str) -> None:
    assert to_text(page, is_xml=True) == page_text(page, is_xml=True)[0] == in_xml
    assert to_text(page) == page_text(page)[0] == in_html


def test_a_line_of_cdata_has_its_place() -> None:
    _, places, notes = page_text("<p>one</p>\n<p><![CDATA[two]]></p>\n<p hidden=''><![CDATA[a&lt;]]></p>", is_xml=True)
    assert [(each.start, each.label) for each in places] == [(0, "1"), (5, "2")]
    assert "5 characters" in notes[0]


def test_a_file_of_xhtml_is_read_as_xml_by_its_name() -> None:
    def text(name: str) -> str:
        return read_html(b"<body><script src='a'/><p>Seals bark.</p></body>", name, ReadSettings()).documents[0].text

    assert (text("a.xhtml"), text("b/A.XHTML"), text("a.html"), text("xhtml")) == ("Seals bark.", "Seals bark.", "", "")


def docx(runs: str) -> FileContent:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr(
            "word/document.xml", f'<w:document xmlns:w="{_W}" xmlns:m="{_W}/math"><w:body>{runs}</w:body></w:document>'
        )
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


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("<tr><td>1<td>5<tr><th>2<th>3", "1 | 5 |\n2 | 3 |"),
        ("<tr><td><p>1<td><b>5<tr><td>2", "1 | 5 |\n2 |"),
        ("<caption>c<tr><td>1<td>5<tbody><tr><td>2<tfoot><tr><td>3", "c\n1 | 5 |\n\n2 |\n\n3 |"),
        ("<tr><td>1<table><tr><td>2<td>3</table>4<td>5", "1\n\n2 | 3 |\n4 | 5 |"),
        ("<tr><td>1<td hidden>x<td>5", "1 | 5 |"),
        ("<caption hidden>x<tr><td>1<td>5", "1 | 5 |"),
        ("<thead hidden><tr><td>x<tbody><tr><td>1", "1 |"),
        ("<tr><td>1</td><td>5</td></tr>", "1 | 5 |"),
    ],
)
def test_cells_stand_apart_whether_or_not_they_have_end_tags(table: str, text: str) -> None:
    assert to_text(f"<table>{table}</table>") == text


def test_a_caption_without_an_end_tag_ends_where_cells_begin() -> None:
    for part in ("<td>1", "<tr><td>1", "<tbody><tr><td>1"):
        assert page_text(f"<table><caption hidden>x{part}</table>")[0] == "1 |", part


def test_an_empty_cell_of_xml_keeps_its_column() -> None:
    assert page_text("<table><tr><td/><td>5</td></tr></table>", is_xml=True)[0] == "| 5 |"


def test_what_a_tag_or_comment_without_an_end_swallows_is_counted() -> None:
    for source in ("a<!-- bad!", "a<b bad", "a<b x='>b"):
        text, _, notes = page_text(source)
        assert text == "a" and notes[0].startswith("text that a reader does not see was left out: "), source


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("<mn>5</mn>", "5"),
        ("<mn>1</mn><mfrac> <mn>1</mn> <mn>2</mn> </mfrac><mi>x</mi>", "1 1/2 x"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mn>2</mn></mfrac>", "(a+b)/2"),
        ("<msup><mn>10</mn><mn>3</mn></msup><mn>5</mn>", "10^3 5"),
        ("<msup><mn>10</mn><mrow><mo>-</mo><mn>3</mn></mrow></msup>", "10^(-3)"),
        ("<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>", "x_1^2"),
        ("<mn>2</mn><msqrt><mi>a</mi><mo>+</mo><mn>1</mn></msqrt>", "2 √(a+1)"),
        ("<mroot><mn>8</mn><mn>3</mn></mroot>", "8^(1/3)"),
        ("<msup><mi>x</mi><none/></msup><mspace width=1 /><mo>=</mo><mn>1</mn>", "x=1"),
        (
            "<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd></mtr></mtable>",
            "1, 2; 3",
        ),
        ("<mfenced><mn>1</mn><mn>2</mn></mfenced>", "(1, 2)"),
        (
            "<mi>sin</mi><mo>&#x2061;</mo><mi>x</mi><mtext> or </mtext><mn>2</mn><mo>&#x2062;</mo><mi>y</mi>",
            "sin x or 2y",
        ),
        ("<semantics><mn>1</mn><annotation encoding='application/x-tex'>bad</annotation></semantics>", "1"),
        ("<mover><mi>x</mi><mn>2</mn></mover><mo>+</mo><munder><mi>y</mi><mn>3</mn></munder>", "x^2+y_3"),
        ("<munderover><mo>∑</mo><mn>1</mn><mi>n</mi></munderover>", "(∑)_1^n"),
        ("<mmultiscripts><mi>C</mi><mn>6</mn><mn>12</mn></mmultiscripts>", "C_6^12"),
        ("<mi>a</mi><mo>&#x2063;</mo><mi>b</mi><mo>&#x2064;</mo><mi>c</mi>", "ab c"),
        ("<mn>1</mn><mspace width=1 /><mn>2</mn>", "1 2"),
        ("<msup><mn>10</mn><mrow><mn>2</mn><mi>n</mi></mrow></msup>", "10^(2n)"),
        ("<msub><mi>x</mi><mrow><mi>max</mi><mn>1,000.5</mn></mrow></msub>", "x_max1,000.5"),
        ("<mfrac><mfrac><mn>1</mn><mn>2</mn></mfrac><mn>3</mn></mfrac>", "(1/2)/3"),
    ],
)
def test_a_formula_of_a_page_is_read_with_its_structure(formula: str, text: str) -> None:
    assert page_text(f"Give <math>{formula}</math> mg")[::2] == (f"Give {text} mg", [])


def test_the_texts_of_a_drawing_are_read_and_tooltips_are_no_hidden_text() -> None:
    drawing = "<svg><title>t</title><text x=1>4<tspan>5</tspan><tspan dx=1>6</tspan></text><text>2</text></svg>"
    assert page_text(f"a{drawing}b")[::2] == ("a\n45 6\n\n2\nb", [])
    assert page_text("<svg><path d='x'><p>shown</p>")[::2] == ("shown", []), "a block ends a drawing"
    assert page_text("<svg><foreignObject><div>shown</div></foreignObject></svg>")[0] == "shown"


def test_an_unclosed_formula_or_a_deep_drawing_ends_where_a_page_goes_on() -> None:
    assert to_text("a <math><mn>5</mn><p>text <b>bold</b> more") == "a 5\ntext bold more"
    assert to_text("<math><mtext>a<p>b</p></mtext><mn>1</mn> <mn>2</mn></math>") == "a\nb\n12", "HTML within a formula"
    assert to_text(f"<svg>{'<path d=x>' * 250}</svg>Home") == to_text(f"<svg>{'<path d=x>' * 250}<p>Home") == "Home"


@pytest.mark.parametrize(
    "drawn",
    [
        "a<span class=katex-html>x</span>",
        "<math></math>a<span class=katex-html>x</span>",
        "<math></math><span class=no-katex-html>x</span>",
        "<math></math><span class=katex-html2>x</span>",
        "<math></math><span data-class=katex-html>x</span>",
    ],
)
def test_a_drawn_formula_without_mathml_before_it_is_read(drawn: str) -> None:
    assert page_text(drawn)[0].endswith("x")


def formula(content: str) -> str:
    made = docx(f"<w:p>{run('2')}<m:oMath>{content}</m:oMath>{run('5')}</w:p>").documents[0].text
    return made.strip()


def test_a_formula_of_a_document_is_read_with_its_structure() -> None:
    def r(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    def part(name: str, text: str) -> str:
        return f"<m:{name}>{r(text) if text else ''}</m:{name}>"

    chosen = '<m:dPr><m:begChr w:val="["/><m:sepChr w:val=";"/><m:endChr w:val=""/></m:dPr>'
    for content, text in (
        (f"<m:f>{part('num', '1')}{part('den', '2')}</m:f>", "2 1/2 5"),
        (f"<m:f>{part('num', 'a+b')}{part('den', '2')}</m:f>", "2 (a+b)/2 5"),
        (f"{r('x')}<m:sSup>{part('e', '10')}{part('sup', '3')}</m:sSup>", "2x10^3 5"),
        (f"<m:sSub>{part('e', 'x')}{part('sub', '1')}</m:sSub>", "2x_1 5"),
        (f"<m:sSubSup>{part('e', 'x')}{part('sub', '1')}{part('sup', '2')}</m:sSubSup>", "2x_1^2 5"),
        (f"<m:rad>{part('deg', '')}{part('e', 'a+1')}</m:rad>", "2 √(a+1) 5"),
        (f"<m:rad>{part('deg', '3')}{part('e', '8')}</m:rad>", "2 ^3√8 5"),
        (f"{r('f')}<m:d>{part('e', 'x')}{part('e', 'y')}</m:d>", "2f(x|y) 5"),
        (f"<m:d>{chosen}{part('e', 'x')}{part('e', 'y')}</m:d>", "2[x;y 5"),
        (
            f'<m:nary><m:naryPr><m:chr w:val="∑"/></m:naryPr>{part("sub", "")}{part("sup", "n")}{part("e", "k")}</m:nary>',
            "2∑^n k 5",
        ),
        (f"<m:limLow>{part('e', 'x')}{part('lim', '1')}</m:limLow>", "2x_1 5"),
        (f"<m:limUpp>{part('e', 'x')}{part('lim', '1')}</m:limUpp>", "2x^1 5"),
        (f"<m:eqArr>{part('e', '1')}{part('e', '2')}</m:eqArr>", "2 1; 2 5"),
        (f"<m:sPre>{part('sub', '6')}{part('sup', '12')}{part('e', 'C')}</m:sPre>", "2_6^12 C 5"),
        (f"<m:nary><m:naryPr/>{part('sub', '1')}{part('e', 'k')}</m:nary>", "2∫_1 k 5"),
        (f"<m:rad>{part('e', 'a+1')}</m:rad>", "2 √(a+1) 5"),
        (f"<m:func>{part('fName', 'sin')}{part('e', 'x')}</m:func>", "2sin x 5"),
        (f"<m:m><m:mr>{part('e', '1')}{part('e', '2')}</m:mr><m:mr>{part('e', '3')}</m:mr></m:m>", "2 1, 2; 3 5"),
        (f"<m:f><w:del>{part('num', '9')}</w:del>{part('num', '1')}{part('den', '2')}</m:f>", "2 1/2 5"),
        (f"<m:dPr/>{part('num', '1')}", "215"),
    ):
        assert formula(content) == text, content


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("\n ,,\nname,price,x\nA,5,1\n", "name: A\nprice: 5\nx: 1"),
        ("Name (Last, First);Price, net, EUR;Note\nA;5,5;x\n", "Name (Last, First): A\nPrice, net, EUR: 5,5\nNote: x"),
        ("\nA;B;C,D\n1;2;3\n", "A: 1\nB: 2\nC,D: 3"),
        ("a,b,c|d\n", ""),
        ("a,b;c;d\n1\n", "a,b: 1"),
        (f"id;text;x,y\n1;{'a' * 9000},{'a' * 9000};z\n", f"id: 1\ntext: {'a' * 9000},{'a' * 9000}\nx,y: z"),
        ("a;b\n1,5;2\n3;4,5,6\n", "a: 1,5\nb: 2\n\na: 3\nb: 4,5,6"),
        ("a\n1;2\n", "a: 1;2"),
        ("a,b;c\n" + "1,2\n" * 3 + "x;1;2\n" * 2, "a: 1\nb;c: 2\n\n" * 3 + "a: x;1;2\n\na: x;1;2"),
        ("a,b;c;d\n" + "1,2\n" * 3 + "x;1;2\n" * 2500, None),
    ],
)
def test_the_first_filled_row_names_the_columns_and_the_rows_that_fit_it_the_delimiter(
    table: str, text: str | None
) -> None:
    read = read_table(table.encode(), "a.csv", ReadSettings()).documents[0].text.strip()
    assert read == text if text is not None else read.startswith("a,b: 1,2\n\n") and read.endswith("c: 1\nd: 2")
