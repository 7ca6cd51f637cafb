"""Pages by their elements' own styles: digits that are drawn apart stay apart, and what no browser draws is left out."""

from __future__ import annotations

import time

import pytest

from firsthand.retrieval.documents.html_reader import page_text
from firsthand.tools.web.html import to_text


def styled(style: str, inner: str = "3") -> str:
    return f'10<span style="{style}">{inner}</span>4'


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("vertical-align:super", "10^3 4"),
        ("Vertical-Align : SUPER !important; vertical-align: baseline", "10^3 4"),
        ("vertical-align:super;vertical-align:baseline", "1034"),
        ("vertical-align:sub", "10_3 4"),
        ("vertical-align:0.5em", "10^3 4"),
        ("vertical-align:-20%", "10_3 4"),
        ("vertical-align:3px", "10^3 4"),
        ("vertical-align:2px", "1034"),
        ("vertical-align:middle", "1034"),
        ("font-variant-position:super", "10^3 4"),
        ("position:relative;top:-.5em", "10^3 4"),
        ("position:relative;bottom:-6pt", "10_3 4"),
        ("top:-.5em", "1034"),
        ("text-decoration:line-through", "10~~3~~4"),
        ("text-decoration-line: underline line-through", "10~~3~~4"),
        ("text-decoration:underline", "1034"),
        ("display:block", "10 3 4"),
        ("display:table-cell", "10 3 4"),
        ("display:inline-block", "1034"),
        ("color:red", "1034"),
    ],
)
def test_an_element_is_read_by_its_own_style_as_by_its_tag(style: str, text: str) -> None:
    assert to_text(styled(style)) == page_text(styled(style))[0] == text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("10<sup><span style='vertical-align:super'></span>2</sup>3", "10^2 3"),
        ("<i style='text-decoration:line-through'>1</i><i style='text-decoration:line-through'>2</i>3", "~~1~~~~2~~3"),
        ("10<sup><span style='vertical-align:super'>3</span></sup>4", "10^3 4"),
        ("10<sup style='vertical-align:super'>3</sup>4", "10^3 4"),
        ("<s><span style='text-decoration:line-through'>900</span></s>500", "~~900~~500"),
        ("<s style='text-decoration:line-through'>900</s>500", "~~900~~500"),
        ("<b style='text-decoration:line-through'>9<i style='text-decoration:line-through'>0</i>0</b>5", "~~900~~5"),
        ("x<b style='text-decoration:line-through'> </b>y<b style='text-decoration:line-through'><br></b>z", "x y\nz"),
        ("<ul><li style='text-decoration:line-through'>900</li><li>5</li></ul>", "- ~~900~~\n\n- 5"),
        ("<p style='text-decoration:line-through'>9 <b>x</b></p><p>5</p>", "~~9 x~~\n\n5"),
        ("<table><tr><td>1<td style='vertical-align:super'>2</table>", "1 | 2 |"),
        ("<img style='vertical-align:-6px'>1<br style='vertical-align:super'>2", "1\n2"),
        ("1<img style='text-decoration:line-through'>2", "12"),
        ("<h1><span style='display:block'>A</span> title</h1>", "# A title"),
        ("<a href='http://x.org' style='display:block'>t</a>b", "t (http://x.org) b"),
        ("<svg><text>10<tspan baseline-shift='super'>3</tspan></text></svg>", "10^3"),
        ("<b baseline-shift='super'>1</b><svg><text text-decoration='line-through'>9</text></svg>", "1\n~~9~~"),
        ("<pre><i style='display:flex'>a\n</i><i style='display:flex'>  b\n</i></pre>", "a\n  b"),
        ("<ruby>10<rt>2</rt></ruby> mg", "10(2) mg"),
        ("<ruby>10<rt>2<rt>3</ruby>4", "10(2)(3)4"),
        ("<ruby>10<rp>(</rp><rt>2</rt><rp>)</rp></ruby>", "10(2)"),
        ("<ruby>10<rt></rt></ruby>5", "105"),
    ],
)
def test_marks_of_styles_stand_once_and_where_the_words_are(page: str, text: str) -> None:
    assert to_text(page) == text


@pytest.mark.parametrize(
    "element",
    [
        "<div popover>x</div>",
        "<div popover=manual>x</div>",
        "<datalist><option>x<option>x</datalist>",
        "<datalist><option hidden>x</datalist>",
        "<video src=v>x</video>",
        "<audio><source>x<a href=x>x</a></audio>",
        "<progress>x</progress>",
        "<meter>x</meter>",
        "<ruby><rp>x</rp></ruby>",
        "<ruby><rp><b>(x</b></rp></ruby>",
        "<svg display='none'><text>x</text></svg>",
        "<svg><text visibility=hidden>x</text></svg>",
        "<svg><g opacity='0'><text>x</text></g></svg>",
        "<svg><text font-size=0>x</text></svg>",
        "<svg><defs><text>x</text></defs></svg>",
        "<svg><clipPath><text>x</text></clipPath></svg>",
        "<p style='display:none!important;display:block'>x</p>",
        "<p style='display:none ! IMPORTANT;display:block'>x</p>",
    ],
)
def test_what_no_browser_draws_is_left_out_and_counted(element: str) -> None:
    text, _, notes = page_text(f"<p>Seen</p>{element}<p>Too</p>")
    assert "x" not in text and text.startswith("Seen") and text.endswith("Too")
    assert notes[0].startswith("text that a reader does not see was left out: ")


@pytest.mark.parametrize(
    "element",
    [
        "<dialog open popover>x</dialog>",
        "<div display=none>x</div>",
        "<defs>x</defs>",
        "<svg><text display='none' style='display:inline'>x</text></svg>",
        "<p style='display:none;display:block!important;display:none'>x</p>",
        "<p style='display:none!important;display:block!important'>x</p>",
        "<div data-x='popover'>x</div>",
        "<select><option>x</select>",
        "<datalist><option>1</datalist>x",
    ],
)
def test_what_only_looks_hidden_is_read(element: str) -> None:
    assert "x" in page_text(f"<p>Seen</p>{element}")[0]


def test_fields_have_the_value_that_they_show() -> None:
    assert to_text("Dose<input value='5 &amp; A'>mg") == "Dose 5 & A mg"
    assert to_text("<input type=NUMBER value=5><input type=submit VALUE=Go>") == "5 Go"
    assert to_text("a<input data-x=' value=no' value>b") == "ab"
    for kind in ("hidden", "password", "checkbox", "radio", "file", "range", "color", "image"):
        assert to_text(f"a<input type={kind} value=no>b") == "ab"
    assert to_text("<div hidden><input value=no></div>a<input hidden value=no>") == "a"


def test_many_styled_elements_take_linear_time() -> None:
    raised, struck = '<i style="vertical-align:super">', '<i style="text-decoration:line-through">x</i>'
    begun = time.process_time()
    to_text(raised * 8000 + struck * 8000)
    to_text(raised * 20000 + "3</i>" * 20000)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("&lt5 &gt5 &pound5 &copy2024 &frac125", "<5 >5 £5 ©2024 ½5"),
        ("&copy; 5 &copy 5 &AMP", "© 5 © 5 &"),
        ("&notin; &notit; &alpha5 &unknown5;", "∉ ¬it; &alpha5 &unknown5;"),
        ("&amp;lt5 R&D AT&T", "&lt5 R&D AT&T"),
        ("&frac1234 &sup23 &sup2", "½34 ²3 ²"),
        ("<a href='http://x.org/?a=1&copy=2'>t</a>", "t (http://x.org/?a=1&copy=2)"),
        ("<title>a &lt5</title>", "a <5"),
        ("<input value='&lt5'>", "&lt5"),
    ],
)
def test_old_entities_need_no_semicolon_in_text(source: str, text: str) -> None:
    assert to_text(source) == page_text(source)[0] == text
    assert to_text(f"<head>{source}</head>" if "title" in source else source) == text
