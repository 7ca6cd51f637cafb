"""Pages as a reader sees them, and bodies as they come: whole texts of small pages that hold each kind of markup."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ToolError
from firsthand.tools.fetch import Page, read_body, read_url
from firsthand.tools.web.html import to_placed_text, to_text


def test_a_page_reads_as_its_title_its_blocks_its_lists_and_its_links() -> None:
    page = """<!DOCTYPE html><html><HEAD lang=en><style>h1 { x: "<p>" }</style><Title>A &amp; B</Title><meta name=x></HEAD>
<body><!-- <p>hidden</p> --><h1>One</h1><p>first \t line<br>second&nbsp;line</p><script>if (a < b) "</p>"</script>
<ul><li>a<li>b &lt;c&gt;</ul><h3>Three</h3><table><tr><th>k</th><td>v</td></tr></table>
<p>1 < 2 << 3 &#65;&#x42; &unknown; <3</p><?php x ?><b>bold</b><unknown-tag>kept</unknown-tag>
<pre>  two
    four</pre>after <a href="/x?a=1&amp;b=2">rel</a>, <a class=c HREF='http://o/y'>abs</a>, <a href=#top>top</a>,
<a href="javascript:x">js</a>, <a name=n>plain</a>.</body></html>"""
    assert to_text(page, "https://h/d/p") == (
        "A & B\n\n"
        "# One\n\nfirst line\nsecond line\n\n"
        "- a\n- b <c>\n\n"
        "### Three\n\nk | v |\n\n"
        "1 < 2 << 3 AB &unknown; <3\nboldkept\n  two\n    four\n"
        "after rel (https://h/x?a=1&b=2), abs (http://o/y), top, js, plain."
    )


def test_links_tags_and_pages_are_bounded() -> None:
    for size, shown in ((500, True), (501, False)):
        url = "http://h/" + "x" * (size - 9)
        assert to_text(f'<a href="{url}">t</a>') == (f"t ({url})" if shown else "t"), size
    assert to_text('<a href="//o/y">t</a>', "https://h/") == "t (https://o/y)"
    assert to_text('<a href="y">t</a>') == "t", "an address that leads nowhere"
    assert to_text('<a href="/y">t</a>') == "t (/y)" and to_text('<a href="http://[">t</a>', "http://h/") == "t"
    assert to_text('<a href="http://a/">one<a href="http://b/">two</a>') == "one (http://a/)two (http://b/)"
    assert to_text("x" * 1_000_000) == "x" * 1_000_000
    note = "\n[only the first 1,000,000 characters of the page were read]"
    assert to_text("x" * 1_000_001) == "x" * 1_000_000 + note
    assert to_text("a<script>b") == "a" and to_text("a<script>b</script >c") == "ac" and to_text("a<!-- b") == "a"
    assert to_text("<head><title>T</title><body>b") == "T\n\nb" and to_text("<head>no end") == "no end"
    assert to_text("<head></head>a<head><title>x</title></head>b") == "a\nx\nb", "a page has one head"
    assert to_text("a<b") == "a" and to_text("a <") == "a <" and to_text("a </ b>c") == "a c" and to_text("") == ""
    assert to_text("<pre>a  b<pre>c  d</pre>e  f</pre>g  h") == "a  b\nc  d\ne  f\ng h"


def test_each_line_of_a_page_has_the_place_that_it_comes_from() -> None:
    source = "<h1> One</h1>\n<p>two &amp;\n three</p><pre>\n  four\n</pre><script>x</script>five<br> six"
    text, places, _ = to_placed_text(source)
    words = ["One", "two", "four", "five", "six"]
    for offset, origin in places:
        line = text[offset:].split("\n")[0].lstrip("# ")
        assert source[origin:].startswith(line.split()[0]) or source[origin] == "<", (line, source[origin:])
    assert [word for word in words if word not in text] == []
    assert [offset for offset, _ in places] == sorted({offset for offset, _ in places})
    assert to_placed_text("") == ("", [], 0) and to_placed_text("a") == ("a", [(0, 0)], 0)


def body(pieces: list[bytes], encoding: str, most: int) -> Any:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    response: Any = SimpleNamespace(aiter_stream=stream)
    try:
        return asyncio.run(read_body(response, encoding, most))
    except ToolError as error:
        return str(error)


def test_a_body_is_read_up_to_its_limit_however_it_is_packed() -> None:
    raw = b"0123456789"
    bare = zlib.compressobj(wbits=-15)
    forms = {
        "": raw, " Identity ": raw, "gzip": gzip.compress(raw), "X-GZip": gzip.compress(raw), "deflate": zlib.compress(raw),
        "DEFLATE ": bare.compress(raw) + bare.flush(),
    }  # fmt: skip
    for encoding, packed in forms.items():
        room = max(10, len(packed))
        assert body([packed], encoding, room) == (raw, False), encoding
        assert body([packed], encoding, 9)[0] in (raw[:9], b"") and body([packed], encoding, 9)[1] is True
        if "DEFLATE" not in encoding:
            assert body([packed[n : n + 1] for n in range(len(packed))], encoding, room) == (raw, False)
    assert body([b"01234", b"56789"], "", 10) == (raw, False) and body([b"01234", b"567890"], "", 10) == (
        raw[:10][:-1] + b"9",
        True,
    )
    assert body([], "", 5) == (b"", False) == body([], "gzip", 5)
    bomb = gzip.compress(bytes(100_000))
    assert body([bomb], "gzip", 1_000) == (bytes(1_000), True)
    assert body([raw], "br", 99) == "the page is packed as 'br', which is not understood"
    assert body([raw], "gzip", 99).startswith("the page is not packed as it says: ")
    late = [b"x\x9c", b"\xff" * 9]
    assert body(late, "deflate", 99).startswith("the page is not packed as it says: ")


def test_a_response_is_text_by_what_it_says_of_itself() -> None:
    def shown(content_type: str, body: bytes, status: int = 200, *, cut: bool = False) -> str:
        try:
            return Page("http://h/", status, content_type, body, cut).readable().removeprefix("http://h/\n\n")
        except ToolError as error:
            return str(error)

    assert (
        shown("text/plain; charset=latin-1", b"\xe9") == "é" and shown("TEXT/PLAIN ; CHARSET='cp1252'", b"\x80") == "€"
    )
    assert shown("text/plain", b"\xe9", cut=True) == "\ufffd\n[only the first 1 bytes were read]"
    assert (
        shown("text/plain; charset=rot13", b"a") == "a" and shown("text/plain; charset=none-such", "é".encode()) == "é"
    )
    assert shown("text/html", b"<p>a<meta charset=latin-1>\xe9") == "aé"
    for spaces, charset in ((2048 - 20, "cp1252"), (2048 - 19, "utf-8")):  # 2,048 bytes are looked at: cp1252, cp125
        named = b" " * spaces + b"<meta charset=cp1252>"
        assert Page("u", 200, "text/html", named, False).charset() == charset
    assert shown("application/xhtml+xml", b"<p>a</p>") == "a" and shown("text/plain", b"<p>a</p>") == "<p>a</p>"
    closed = b"<html><head><title/><script src='a'/></head><body><style/><p>a</p><script src='b'/><p><![CDATA[b&]]></p>"
    assert shown("Application/XHTML+xml ; charset=utf-8", closed) == "a\n\nb&" and shown("text/html", closed) == ""
    assert shown("", b" <!DOCTYPE HTML><p>a") == "a" and shown("", b"plain <p>") == "plain <p>"
    assert shown("", bytes(1)) == "'http://h/' is of no known kind, which is no text"
    assert shown("", b"x" * 1_024 + b"\0").startswith("xxx")
    for kind in ("application/json", "application/ld+json", "application/vnd.x.yaml", "text/anything"):
        assert shown(kind, b"{}") == "{}"
    for kind in ("image/png", "application/octet-stream", "application/jsonx"):
        assert shown(kind, b"{}") == f"'http://h/' is {kind}, which is no text"
    assert (
        shown("text/plain", b"", 400) == "'http://h/' answers with status 400" and shown("text/plain", b"x", 399) == "x"
    )
    assert str(read_url(" http://h/a?b=c#d ")) == "http://h/a?b=c"
    exact = "http://h/" + "a" * (4_096 - 9)
    assert str(read_url(exact)) == exact
    for url, why in (
        (exact + "a", "too long"), ("http://h/a b", "spaces or control"), ("ftp://h", "a host are expected"),
        ("http://u:p@h/", "a user and password in a URL are not accepted"), ("http://h/\x7f", "spaces or control"),
    ):  # fmt: skip
        with pytest.raises(ToolError, match=why):
            read_url(url)


def test_a_page_with_odd_markup_reads_as_a_browser_shows_it() -> None:
    pages = {
        "a<svg/>b<canvas width=1 />c</canvas>e": "abe",
        "<head><title>T</title><header>x</header>y": "T\n\nx\ny",
        "<head><title>T</title></HEAD><p>x</p><body>y": "T\n\nx\n\ny",
        "<head><title>T</title><p>x</p><BODY>y</head>z": "T\n\nyz",
        "<head><title lang='>'>T</title>x</head>y": "'>T\n\ny",
        "<head><title>T</head>y</title>z": "y\nz",
        "<TITLE>T</TITLE>x": "T\nx",
        f"{'İ' * 30}<script>x</script>b<b>c</b>": "İ" * 30 + "bc",
        f"{'İ' * 30}<HEAD><title>T</title>x</HEAD>b<b>c</b>": "İ" * 30 + "T\n\nbc",
        "</pre>a  b<pre>c  d</pre></pre>e  f<PRE> g\n\n h</PRE>": "a b\nc  d\n\ne f\n g\n\n h",
        "<h6>six</h6><h7>seven</h7><H1 id=x>One</H1>": "###### six\nseven\n\n# One",
        "<th>a</th><td>b</td><td>c": "a | b | c",
        "<ol><li>one</li><li>two</ol>": "- one\n\n- two",
        "a<br/>b<hr>c": "a\nb\nc",
        "<a HREF = /x >one</a><a href=''>two</a><a href=' /y '>three</a><a data-href=/z>four</a>": (
            "one (/x)twothree (/y)four"
        ),
        "a\u00a0 \t\f b&nbsp;&#32;&amp;amp;&#x41;&#0;&copy": "a b &amp;A\ufffd\u00a9",
        "a<!-->b<!--->c<!---->d<!-- <!-- --!>e<!--!>x-->f<!-- x": "abcdef",
        "a<!x>b<?y ?>c</>d</ e>f<": "abcdf<",
        f"a<b title='{'x' * 100_000}>'>c": "ac",
        "a<b it's>c<b x = it's>d<b x=>e<b ==' >'>f": "acdef",
        "a<b x='>b": "a",
        "<script>1</script><style>2</style><noscript>3</noscript><template>4</template>x": "x",
        "<iframe>1</iframe><object>2</object><scripts>3</scripts><SCRIPT>4</script>": "3",
    }
    assert {page: to_text(page) for page in pages} == pages
    assert to_text("<a href=y?a=1&amp;b=2>t</a><a href=//o>u</a>", "https://h/d/p?q") == (
        "t (https://h/d/y?a=1&b=2)u (https://o)"
    )


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<head><title>T</title><base href='/v2/'></head><body><a href=i.html>I</a>", "T\n\nI (https://h/v2/i.html)"),
        ("<!doctype html><BASE HREF=https://o.example/a/ ><a href=p>P</a>", "P (https://o.example/a/p)"),
        ("<a href=p>P</a><base href=sub/><a href='?q'>Q</a>", "P (https://h/d/sub/p)Q (https://h/d/sub/?q)"),
        ("<base target=_blank><base href=/1/><base href=/2/><a href=p>P</a>", "P (https://h/1/p)"),
        ("<base href='/a&amp;b/'><a href=p>P</a><a href=#x>x</a>", "P (https://h/a&b/p)x"),
        ("<base href='javascript:1'><base href=/2/><a href=p>P</a>", "P (https://h/d/p)"),
        ("<base href='http://['><a href=p>P</a>", "P (https://h/d/p)"),
        ("<base href='ftp://o/'><a href=p>P</a><a href=https://o/q>Q</a>", "PQ (https://o/q)"),
        ("<head><!-- <base href=/no/> --><base href=/yes/></head><a href=p>P</a>", "P (https://h/yes/p)"),
        ("<head><script>'<base href=/no/>'</script></head><a href=p>P</a>", "P (https://h/d/p)"),
        ("<head><title><base href=/no/></title></head><a href=p>P</a>", "<base href=/no/>\n\nP (https://h/d/p)"),
        ("<head><meta x='<base href=/no/>'></meta></ ><base href=/yes/></head><a href=p>P</a>", "P (https://h/yes/p)"),
        ("<head><a <base href=/no/ </head><a href=p>P</a>", "P (https://h/d/p)"),
        ("<template><base href=/no/></template><svg><base href=/no/></svg><a href=p>P</a>", "P (https://h/d/p)"),
        ("<p hidden><base href=/yes/>x</p><a href=p>P</a>", "P (https://h/yes/p)"),
        (f"<base href='/{'x' * 500}/'><a href=p>P</a>", "P (https://h/d/p)"),
        (f"<base href='/{'x' * 490}/'><a href=p>P</a><a href=//o/p>Q</a>", "PQ (https://o/p)"),
    ],
)
def test_the_first_base_of_a_page_is_where_all_its_links_lead_from(page: str, text: str) -> None:
    assert to_text(page, "https://h/d/e") == text


def test_a_base_gives_the_links_of_a_page_without_an_address_theirs() -> None:
    page = "<base href=https://o.example/a/><p>x</p><a href=p>P</a>"
    assert to_text(page) == to_placed_text(page)[0] == "x\nP (https://o.example/a/p)"
    assert to_text("<base href=/><a href=p>P</a>") == "P (/p)" and to_text("<a href=p>P</a>") == "P"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<x-y><template shadowrootmode=open><p>42</p></template></x-y>z", "42\nz"),
        ("<x-y><template ShadowRootMode='CLOSED'>4<template>no</template>2</template></x-y>z", "42z"),
        ("<template shadowrootmode=none>no</template><template shadowrootmode>no</template>z", "z"),
        ("<template>a<template shadowrootmode=open>no</template>no</template>z", "z"),
        ("<div hidden><x-y><template shadowrootmode=open>no</div>no</template></x-y></div>z", "z"),
        ("<table><tr><td hidden><template shadowrootmode=open>no<td>no</td>no</template>no<td>z</table>", "z |"),
        ("<table><tr><td hidden><template shadowrootmode=open>no</td>no</template>no<td>z</table>", "z |"),
        ("<x-y><template shadowrootmode=open><div hidden>no</template></x-y>z", "z"),
        ("<div>a<x-y><template shadowrootmode=open><table><tr><td>b</template>c</div>z", "a\n\nb | c\nz"),
        ("<li>a<x-y><template shadowrootmode=open></li><li>b</template></x-y>c", "- a\n\n- bc"),
    ],
)
def test_the_text_of_a_shadow_root_is_shown_where_its_element_is(page: str, text: str) -> None:
    assert to_text(page) == to_placed_text(page)[0] == text
    assert to_placed_text("<template shadowrootmode='open'>no</template>z", is_xml=True)[0] == "z"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>a<noscript>b <i>c</i></noscript>d", "ab cd"),
        ("<p hidden>a<noscript>b</noscript></p><noscript hidden>c</noscript>d", "d"),
        ("<head><noscript><style>x</style></noscript></head><noscript><script>x</script>a</noscript>", "a"),
        ("a<iframe src=/f?a&amp;b>no</iframe>b", "a\nframe (https://h/f?a&b)\nb"),
        ("<iframe/src='g'>no</iframe>", "frame (https://h/d/g)"),
        ("<base href=/v/><iframe SRC='g' width='100%' height=1000></iframe>", "frame (https://h/v/g)"),
        ("<frameset><frame src=a><frame name=b><frame src=c></frameset><noframes>no</noframes>d",
         "frame (https://h/d/a)\n\nframe (https://h/d/c)\nd"),
        ("<frame src=a hidden><p>z", "z"),
        ("<noscript><iframe src=//t/ns.html height=0 width='0' style='display:none'></iframe></noscript>a", "a"),
        ("<iframe src=/p style='visibility: hidden'></iframe><iframe src=/p hidden></iframe>a", "a"),
        ("<iframe src=/p width=1px></iframe><iframe src=/p height=01></iframe>a", "a"),
        ("<div hidden><iframe src=/p></iframe></div>a", "a"),
        ("<iframe src=about:blank></iframe><iframe src=javascript:1></iframe>a", "a"),
        ("<iframe></iframe><iframe src='#x'></iframe>a", "a"),
        ("<base href=/v/>a<iframe src=/p srcdoc='<p>b &quot;c&quot; <a href=g>d</a>'>no</iframe>e",
         'a\nb "c" d (https://h/v/g)\ne'),
        ("<iframe SRCDOC='<pre>\n  two\n    four</pre>'></iframe>", "  two\n    four"),
        ("<iframe srcdoc='<script>b c</script>' src=/p></iframe>a", "frame (https://h/p)\na"),
        ("<div hidden><iframe srcdoc='b c'></iframe></div><iframe srcdoc='b c' hidden></iframe>a", "a"),
        ("<iframe srcdoc='b c' width=0></iframe><svg><iframe srcdoc='b c'></iframe></svg>a", "a"),
        ("<iframe srcdoc=\"1<iframe srcdoc='2<iframe srcdoc=&amp;quot;3<iframe/srcdoc=4>&amp;quot;>'>\">", "1\n2\n3"),
        ("<template><iframe src=/p></iframe></template><!-- <iframe src=/p> --><svg><iframe src=/p></iframe></svg>a", "a"),
    ],
)  # fmt: skip
def test_a_fetched_page_is_read_as_by_a_browser_without_scripts(page: str, text: str) -> None:
    assert to_text(page, "https://h/d/e", as_fetched=True) == text
    unread = to_placed_text(page)[0]
    assert "frame (" not in unread and "b c" not in unread
    assert (
        "\nframe (https://h/f?a&b)" in Page("https://h/", 200, "text/html", b"a<iframe src='/f?a&b'>", False).readable()
    )


@pytest.mark.parametrize(
    ("kind", "body", "cut", "text"),
    [
        ("text/html", b"caf\xe9 \x80 5", False, "café € 5"),
        ("Text/Plain; x=y", b"caf\xe9", False, "café"),
        ("text/html", "café ".encode() + b"\xe9", False, "café \ufffd"),
        ("text/html; charset=utf-8", b"caf\xe9", False, "caf\ufffd"),
        ("text/html", b"<meta charset=utf-8>caf\xe9", False, "caf\ufffd"),
        ("application/json", b'"caf\xe9"', False, '"caf\ufffd"'),
        ("text/csv", b"caf\xe9", False, "caf\ufffd"),
        ("text/html", b"caf" + "€".encode()[:2], True, "caf\ufffd"),
        ("text/html", b"caf\xe9 abc" + "€".encode()[:2], True, "café abcâ‚"),
    ],
)
def test_a_page_that_names_no_charset_and_is_no_utf_8_is_windows_1252(
    kind: str, body: bytes, cut: bool, text: str
) -> None:
    assert Page("u", 200, kind, body, cut).readable().split("\n")[2] == text
