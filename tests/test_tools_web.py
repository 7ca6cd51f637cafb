"""Pages of the web and addresses: what is sent, what is read, and each refusal in its own words."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import zlib
from typing import Any

import httpcore
import httpx
import pytest

from answering_server import answer, refused, served
from firsthand.errors import ToolError
from firsthand.tools.fetch import MAX_REDIRECTS, Page, _next, get, read_body, read_url
from firsthand.tools.web.addresses import Rules, checked_addresses, embedded, parse_rules, read_host, resolve
from firsthand.tools.web.html import to_placed_text, to_text
from firsthand.tools.web.pinned_backend import PinnedBackend

# -- pages --


def test_a_page_is_asked_for_plainly_and_its_redirects_are_counted() -> None:
    async def work(port: int, rules: Rules) -> Page:
        return await get(f"http://127.0.0.1:{port}/a b?q=ä&x=1#part".replace(" ", "%20"), rules)

    page, (request,) = served([answer(b"words", content_type="text/plain; charset=ascii", x="y")], work)
    assert (page.status, page.content_type, page.body, page.cut) == (200, "text/plain; charset=ascii", b"words", False)
    assert page.url.endswith("/a%20b?q=%C3%A4&x=1")
    port = page.url.split(":")[2].split("/")[0]
    assert request == (
        f"GET /a%20b?q=%C3%A4&x=1 HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: firsthand\r\n"
        "accept: text/html, text/*;q=0.9, application/json;q=0.9, */*;q=0.1\r\n"
        "accept-encoding: gzip, deflate\r\nconnection: close\r\n\r\n"
    )
    for status in ("301 M", "302 F", "303 S", "307 T", "308 P"):
        page, came = served([answer(status=status, location="../next?y=2"), answer(b"end")], work)
        assert page.body == b"end" and page.url.endswith("/next?y=2") and len(came) == 2
    page, came = served([answer(b"none", "302 F")], work)
    assert (page.status, page.body) == (302, b"none"), "without a place to go it is the page"
    page, _ = served([answer(b"here", "304 N", location="/x")], work)
    assert page.status == 304
    moved = [answer(status="302 F", location=f"/{n}") for n in range(MAX_REDIRECTS)]
    assert served([*moved, answer(b"end")], work)[0].body == b"end"
    said = refused(lambda: served([*moved, answer(status="302 F", location="/more"), answer(b"end")], work))
    assert said.endswith("leads on and on: more than 5 redirects") and "/a%20b?q=" in said
    said = refused(lambda: served([answer(status="302 F", location="ftp://x/")], work))
    assert said.endswith("leads to 'ftp://x/', which is no URL") or "is no URL that can be fetched" in said


def test_a_location_is_utf_8_or_else_latin_1() -> None:
    async def work(port: int, rules: Rules) -> Page:
        return await get(f"http://127.0.0.1:{port}/", rules)

    for place in (b"/x?q=\xc3\xa9", b"/x?q=\xe9"):
        moved = answer(status="302 F", location="PLACE").replace(b"PLACE", place)
        assert served([moved, answer(b"end")], work)[0].url.endswith("/x?q=%C3%A9"), place


def test_byte_order_marks_and_xml_declarations_name_the_encoding() -> None:
    def read(body: bytes, kind: str) -> str:
        return Page("u", 200, kind, body, False).readable().removeprefix("u\n\n")

    words = "h\u00e9llo"
    assert read(b"\xef\xbb\xbf" + words.encode(), "text/plain; charset=iso-8859-1") == words
    for codec in ("utf-16-le", "utf-16-be"):
        assert (
            read(("\ufeff" + words).encode(codec), "text/plain") == words == read(("\ufeff" + words).encode(codec), "")
        )
        assert read(f"<?xml version='1.0'?><r>{words}</r>".encode(codec), "text/xml").endswith(f"<r>{words}</r>")
    declared = f"<?xml version='1.0' encoding = 'ISO-8859-1'?><r>{words}</r>".encode("latin-1")
    assert read(declared, "application/xml").endswith(f"<r>{words}</r>")
    assert read(declared, "application/xml; charset=utf-8").endswith("<r>h\ufffdllo</r>"), "the header wins"


def test_bodies_are_unpacked_as_they_say_and_cut_beyond_the_limit() -> None:
    text = bytes(range(256)) * 8
    bare = zlib.compressobj(wbits=-15)
    packed = {
        "": text, "identity": text, " GZIP ": gzip.compress(text), "x-gzip": gzip.compress(text),
        "deflate": zlib.compress(text), "Deflate": bare.compress(text) + bare.flush(),
    }  # fmt: skip

    def read(body: bytes, encoding: str, most: int, size: int = 7) -> tuple[bytes, bool]:
        class Response:
            async def aiter_stream(self) -> Any:
                for at in range(0, len(body), size):
                    yield body[at : at + size]

        response: Any = Response()
        return asyncio.run(read_body(response, encoding, most))

    for encoding, body in packed.items():
        size = 4_000 if encoding == "Deflate" else 7
        assert read(body, encoding, len(text), size) == (text, False), encoding
        assert read(body, encoding, len(text) - 1, size) == (text[:-1], True), encoding
    for size in (1, 7, 9_000):
        members = gzip.compress(text) + gzip.compress(b"") + b"\0\0" + gzip.compress(b"end")
        assert read(members, "gzip", 9_000, size) == (text + b"end", False)
        assert read(members, "gzip", len(text) + 2, size) == (text + b"en", True)
        assert read(members + b"\x1f", "gzip", 9_000, size) == (text + b"end", False)
        assert read(members + b"junk" + members, "gzip", 9_000, size) == (text + b"end", False)
        assert read(members[:-9], "gzip", 9_000, size)[1] and read(zlib.compress(text)[:-1], "deflate", 9_000, size)[1]
        assert read(zlib.compress(text) + gzip.compress(text), "deflate", 9_000, size) == (text, False)
    assert read(b"", "", 0) == (b"", False) and read(b"x", "", 0) == (b"", True)
    assert read(gzip.compress(b""), "gzip", 5) == (b"", True), "what came is counted too"
    assert refused(read, text, "br", 9) == "the page is packed as 'br', which is not understood"
    assert refused(read, text, "gzip", 9).startswith("the page is not packed as it says: ")
    assert refused(read, zlib.compress(text)[:-1] + b"?", "deflate", 9_999).startswith("the page is not packed as it")


def test_a_page_is_text_by_its_kind_or_by_how_it_begins() -> None:
    def shown(kind: str, body: bytes = b"<p>a</p>") -> str:
        return Page("http://h/", 200, kind, body, False).readable().removeprefix("http://h/\n\n")

    plain, read = "<p>a</p>", "a"
    assert {kind: shown(kind) for kind in (
        "text/plain", "TEXT/HTML ; charset=x", "application/xhtml+xml", "application/json", "application/ld+json",
        "application/vnd.x.yaml", "text/x-any", "application/sql",
    )} == {
        "text/plain": plain, "TEXT/HTML ; charset=x": read, "application/xhtml+xml": read, "application/json": plain,
        "application/ld+json": plain, "application/vnd.x.yaml": plain, "text/x-any": plain, "application/sql": plain,
    }  # fmt: skip
    assert shown("") == plain and shown("", b" \n<!DOCTYPE html><p>a") == read and shown("", b"<HTML><p>a") == read
    assert shown("", b"x" * 1_024 + b"\0").endswith("\0")
    for kind, body, said in (
        ("image/png", b"x", "'http://h/' is image/png, which is no text"),
        ("application/jsonx", b"x", "'http://h/' is application/jsonx, which is no text"),
        ("", b"x" * 1_023 + b"\0", "'http://h/' is of no known kind, which is no text"),
    ):
        assert refused(shown, kind, body) == said


def test_a_url_is_http_with_a_host_and_nothing_secret() -> None:
    assert str(read_url("  HTTP://Exa.mple/a#b ")) == "http://exa.mple/a"
    assert len(str(read_url("http://h/" + "x" * (4_096 - 9)))) == 4_096
    assert str(_next(httpx.URL("https://h/a/b?c"), "../d#e")) == "https://h/d"
    host, odd = "http:// or https:// and a host are expected", "too long, or with spaces or control characters in it"
    for text, said in (
        ("http://h/" + "x" * (4_097 - 9), odd), ("http://h/a b", odd), ("http://h/\x7f", odd), ("ftp://h/", host),
        ("http:///x", host), ("h/x", host), ("http://me@h/", "a user and password in a URL are not accepted"),
        ("http://:x@h/", "a user and password in a URL are not accepted"),
    ):  # fmt: skip
        assert refused(read_url, text) == f"{text[:200]!r} is no URL that can be fetched: {said}"


# -- addresses --


def test_no_network_that_is_kept_for_a_purpose_is_reached_at_either_end_and_its_neighbours_are() -> None:
    rules, at = Rules(), ipaddress.ip_address
    ends = {
        "0.0.0.0": "0.255.255.255", "10.0.0.0": "10.255.255.255", "100.64.0.0": "100.127.255.255",
        "127.0.0.0": "127.255.255.255",
        "169.254.0.0": "169.254.255.255", "172.16.0.0": "172.31.255.255", "192.0.0.0": "192.0.0.255",
        "192.0.2.0": "192.0.2.255",
        "192.88.99.0": "192.88.99.255", "192.168.0.0": "192.168.255.255", "198.18.0.0": "198.19.255.255",
        "198.51.100.0": "198.51.100.255", "203.0.113.0": "203.0.113.255", "224.0.0.0": "255.255.255.255",
        "168.63.129.16": "168.63.129.16", "192.31.196.0": "192.31.196.255", "192.52.193.0": "192.52.193.255",
        "192.175.48.0": "192.175.48.255", "::": "::ffff:ffff", "64:ff9b:1::": "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
        "100::": "100::ffff:ffff:ffff:ffff",
        "2001::": "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::": "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        "2002::": "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::": "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
        "5f00::": "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fc00::": "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "fe80::": "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ff00::": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    }  # fmt: skip
    beside = {"2001:db8::", "2001::", "fe80::", "ff00::", "0.0.0.0", "::", "224.0.0.0"}
    for first, last in ends.items():
        assert rules.refuses(at(first), "h") and rules.refuses(at(last), "h"), first
        if first not in beside:
            assert not rules.refuses(at(first) - 1, "h") and not rules.refuses(at(last) + 1, "h"), first
    assert not rules.refuses(at("1.0.0.0"), "h") and not rules.refuses(at("2001:200::"), "h")
    assert rules.refuses(at("64:ff9b::a00:1"), "h") and not rules.refuses(at("64:ff9b::808:808"), "h")
    assert rules.refuses(at("2600::5efe:a00:1"), "h") and rules.refuses(at("2600::200:5efe:a00:1"), "h")
    assert not rules.refuses(at("2600::5efe:808:808"), "h") and not rules.refuses(at("2600::5eff:a00:1"), "h")
    assert [str(each) for each in embedded(at("::ffff:1.2.3.4"))] == ["1.2.3.4"] and list(
        embedded(at("10.0.0.1"))
    ) == []


def test_rules_and_hosts_are_read_in_each_spelling() -> None:
    rules = parse_rules(" 10.0.0.0/8+ Wiki.Local ++::1", "80+8080")
    assert rules.networks == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))
    assert (rules.hosts, rules.ports) == ({"wiki.local"}, {80, 8080}) and parse_rules("", "80") == Rules(
        ports=frozenset((80,))
    )
    assert refused(parse_rules, "a b", "80").startswith("allow has 'a b': give networks or host names")
    assert refused(parse_rules, "", "80,81").startswith("ports is '80,81': give numbers with + between")
    at = ipaddress.ip_address
    hosts = {
        "Exa.Mple.": "exa.mple", "[::1]": at("::1"), "[FE80::1%eth0]": at("fe80::1"), "1.2.3.4.": at("1.2.3.4"),
        "0x7f.1": at("127.0.0.1"),
        "017700000001": at("127.0.0.1"), "a_b": "a_b", "a" * 63: "a" * 63,
        ".".join(["a" * 62] * 4): ".".join(["a" * 62] * 4),
    }  # fmt: skip
    assert {host: read_host(host) for host in hosts} == hosts
    long = ".".join(["a" * 63] * 3 + ["a" * 62])
    for host in ("a..b", "-a", "a-", "a" * 64, long, "", "é"):
        assert refused(read_host, host) == f"{host[:100]!r} is no host name"
    largest = {
        "4294967295": "255.255.255.255", "255.16777215": "255.255.255.255", "1.2.65535": "1.2.255.255",
        "1.2.3.255": "1.2.3.255", "0x1.0x2.0xffff": "1.2.255.255", "01.010.0377": "1.8.0.255", "1.0.3": "1.0.0.3",
    }  # fmt: skip
    assert {host: str(read_host(host)) for host in largest} == largest
    for host in (
        "1.2.3.4.5", "4294967296", "1.16777216", "1.2.65536", "1.2.3.256", "256.1", "1.256.1", "1.2.256.1", "08.1",
        "0x", "1..2",
    ):  # fmt: skip
        assert refused(read_host, host) == f"{host!r} is no host name and no address"


def test_a_connection_goes_to_checked_addresses_alone() -> None:
    async def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return known[host]

    def checked(host: str, port: int = 80, **rules: Any) -> list[str]:
        return asyncio.run(checked_addresses(host, port, Rules(**rules), resolver))

    asked: list[Any] = []
    known = {
        "a.b": ["8.8.8.8", "2600::1%eth0"], "in.side": ["8.8.8.8", "10.0.0.1"], "none": [],
    }  # fmt: skip
    assert checked("A.b.", 443) == ["8.8.8.8", "2600::1"] and asked == [("a.b", 443)]
    assert checked("0x08080808") == ["8.8.8.8"] and len(asked) == 1, "an address is not asked for"
    assert checked("in.side", hosts=frozenset({"in.side"})) == ["8.8.8.8", "10.0.0.1"]
    assert checked("in.side", networks=(ipaddress.ip_network("10.0.0.0/8"),)) == ["8.8.8.8", "10.0.0.1"]
    assert (
        refused(checked, "In.side")
        == "'In.side' is at 10.0.0.1, which is no public address: it may not be reached from here"
    )
    assert refused(checked, "none") == "the host 'none' has no address"
    assert refused(checked, "a.b", 81, ports=frozenset((8080, 80))) == "port 81 may not be used: 80, 8080 may"

    async def unknown(host: str, port: int) -> list[str]:
        raise OSError(5, "Nobody knows")

    assert refused(checked_addresses, "X.y", 80, Rules(), unknown) == "the host 'x.y' is not known: Nobody knows"
    assert asyncio.run(resolve("127.0.0.1", 80)) == ["127.0.0.1"]

    async def several(host: str, port: int) -> list[str]:
        return [f"127.0.0.{n}" for n in (5, 4, 3, 2, 1)]

    async def work(port: int, rules: Rules) -> Any:
        backend = PinnedBackend(rules, several)
        with pytest.raises(httpcore.ConnectError):  # the first four are tried, and nobody listens there
            await backend.connect_tcp("h", port, 2.0)
        backend.resolver = lambda host, port: some()
        stream = await backend.connect_tcp("h", port, 2.0)
        await stream.aclose()
        with pytest.raises(ToolError, match="a socket file may not be reached"):
            await backend.connect_unix_socket("/x")

    async def some() -> list[str]:
        return ["127.0.0.4", "127.0.0.1"]

    served([answer()], work)


# -- pages as text --


def test_lines_of_a_page_lead_back_to_their_place_in_its_source() -> None:
    head = "<head><title>T</title></head><h2> Head </h2>\n"
    source = f"{head}<p>one <b>two</b>\nthree<pre>  x\n\n  y</pre>\n\n  end &lt; 5 < 6"
    text, places, _ = to_placed_text(source)
    assert text == "T\n\n##  Head\n\none two three\n  x\n\n  y\nend < 5 < 6"
    assert [(text[at:].split("\n")[0], source[to : to + 3]) for at, to in places] == [
        ("T", "<he"), ("##  Head", "<h2"), ("one two three", "one"), ("  x", "x\n\n"), ("  y", "y</"),
        ("end < 5 < 6", "end"),
    ]  # fmt: skip
    assert to_placed_text("") == ("", [], 0) and to_placed_text("<p> </p>") == ("", [], 0)
    # white space behind a line does not count, nor do entities that are longer than what they show
    for source, text, words in (
        ("<pre>  k  \n\n m \t\n</pre>z", "  k\n\n m\n\nz", "k m z"),
        ("<b>k</b> <br> <i>m</i> <hr>\t", "k\nm", "k m"),
        ("<p> k &amp; x \n</p>\t<pre>&lt;&lt;q  \n\tm&gt;x\r\n  &quot;\n<i>u\nv</i> w</pre> &lt;\ny",
         'k & x\n\n<<q\n\tm>x\n  "\nu\nv w\n< y', "k &lt;&lt;q m&gt;x &quot; u v &lt;\ny"),
    ):  # fmt: skip
        found, places, _ = to_placed_text(source)
        assert found == text == to_text(source)
        assert [to for _, to in places] == [source.rindex(word) for word in words.split(" ")]
        starts = [at for at in range(len(text)) if text[at] != "\n" and (not at or text[at - 1] == "\n")]
        assert [at for at, _ in places] == starts


def test_markup_that_is_broken_or_hides_words_is_passed_over() -> None:
    shown = {
        "a<!-- x > y -->b": "ab", "a<!-- x": "a", "a<!DOCTYPE x>b": "ab", "a<?x y>b": "ab", "a<b": "a", "a</b": "a",
        "a<1>b": "a<1>b",
        "a<<b>c": "a<<b>c", "a < b": "a < b", "<script>x</script >a": "a", "<script/>a": "", "<style>x": "",
        "<SVG><p>x</SVG>a": "xa",
        "<head><title>T</title>x<body>a": "T\n\na", "<head><title>T": "T", "<head>a": "a", "<head>x</head>a<head>b": "ab",
        "<pre>a  b</pre>c  d": "a  b\nc d", "<pre><pre>a  b</pre> c  d</pre>e  f": "a  b\n c  d\ne f",
        "</pre>a  b": "a b", "<td>a</td><th>b</th>": "a | b |", "<h6>a</h6>b": "###### a\nb", "<h7>a</h7>b": "ab",
        "a&nbsp;&nbsp;b &#65;&#x42; &bogus; &amp;amp;": "a b AB &bogus; &amp;", "a<br>b<hr/>c": "a\nb\nc",
        "<ol><li>a</li><li>b</li></ol>": "- a\n\n- b", "a<p>\n\n\n\n<p><p><p>b": "a\n\nb", "<span>a</span>b": "ab",
    }  # fmt: skip
    assert {source: to_text(source) for source in shown} == shown
    links = {
        "<a href=x>a</a>": "a (http://h/d/x)", "<a class=y HREF = 'x'>a</a>": "a (http://h/d/x)", "<a datahref=x>a</a>": "a",
        "<a href=/x>a<a href=//o/y>b</a>": "a (http://h/x)b (http://o/y)", "<a href='javascript:x'>a</a>": "a",
        f"<a href=/{'x' * 490}>a</a>": f"a (http://h/{'x' * 490})", f"<a href=/{'x' * 492}>a</a>": "a",
        "<a href='http://['>a</a>": "a",
        "<a href=' x '>a</a> b": "a (http://h/d/x) b", "<a href=x>a": "a", "<a name=x>a</a>": "a",
    }  # fmt: skip
    assert {source: to_text(source, "http://h/d/e") for source in links} == links


class Lines(httpcore.AsyncNetworkBackend):
    """Connects to `there` alone, and keeps what it was asked."""

    def __init__(self, there: str) -> None:
        self.there, self.asked = there, list[Any]()

    async def connect_tcp(self, host: str, *rest: Any, **more: Any) -> Any:
        self.asked.append((host, *rest))
        if host != self.there:
            raise (httpcore.ConnectError if len(self.asked) % 2 else httpcore.ConnectTimeout)(host)
        return f"a stream to {host}"


def test_the_first_four_addresses_of_a_name_are_tried_in_turn() -> None:
    addresses = [f"93.184.216.{number}" for number in range(1, 6)]

    async def resolver(host: str, port: int) -> list[str]:
        return addresses

    async def reached(there: str) -> tuple[Any, list[Any]]:
        inner = Lines(there)
        backend = PinnedBackend(Rules(), resolver, inner)
        try:
            return await backend.connect_tcp("Site.example", 443, 2.5, "10.0.0.1", ["options"]), inner.asked
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            return str(error), inner.asked

    asked = [(each, 443, 2.5, "10.0.0.1", ["options"]) for each in addresses]
    assert asyncio.run(reached(addresses[0])) == (f"a stream to {addresses[0]}", asked[:1])
    assert asyncio.run(reached(addresses[3])) == (f"a stream to {addresses[3]}", asked[:4])
    assert asyncio.run(reached(addresses[4])) == (addresses[3], asked[:4]), "the last fault is told"


def test_a_host_name_has_253_characters_at_most_besides_its_last_dot() -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(name) == 253 and read_host(name) == read_host(f"{name.upper()}.") == name
    for long in (name + "b", "a" * 64, f"x.{'a' * 64}.y"):
        with pytest.raises(ToolError) as refused:
            read_host(long)
        assert str(refused.value) == f"{long[:100]!r} is no host name"
