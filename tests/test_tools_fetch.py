"""The web: which addresses are reached, by every spelling and detour, and pages that flood, stall, lie and lead around."""

import asyncio
import gzip
import ipaddress
import shutil
import ssl
import subprocess
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsthand import catalog
from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, ToolError
from firsthand.tools.fetch import MAX_REDIRECTS, fetcher, trusted
from firsthand.tools.web.addresses import Rules, parse_rules, read_host
from firsthand.tools.web.html import to_text

PUBLIC = "93.184.215.14"


def names(**known: str) -> Callable[[str, int], Awaitable[list[str]]]:
    """A resolver that knows these names; `_` in a keyword stands for a dot, and + between several addresses."""

    async def resolver(host: str, port: int) -> list[str]:
        key = host.replace(".", "_")
        if key not in known:
            raise OSError("no such name")
        return known[key].split("+")

    return resolver


def fetch(url: str, rules: Rules | None = None, resolver: Any = None, **limits: Any) -> str:
    tool = fetcher(rules or Rules(), resolver=resolver or names(), **limits)
    return asyncio.run(tool({"url": url}))


def refused(url: str, rules: Rules | None = None, resolver: Any = None, **limits: Any) -> str:
    with pytest.raises(ToolError) as error:
        fetch(url, rules, resolver, **limits)
    return str(error.value)


# -- addresses --

INWARD = [
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "017700000001", "0x7f.1", "0177.0.0.1",
    "0x7f.0x0.0x0.0x1", "127.0.0.1.", "0", "0.0.0.0", "10.0.0.1", "10.1", "167772161", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "192.168.257", "3232235521", "0xc0a80001", "0300.0250.0.1", "169.254.169.254", "2852039166", "0xa9fea9fe",
    "0251.0376.0251.0376", "169.254.43518", "100.64.0.1", "100.127.255.254", "192.0.0.192", "198.18.0.1", "224.0.0.1",
    "239.255.255.250", "255.255.255.255", "240.0.0.1", "192.0.2.1", "168.63.129.16", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]",
    "[2002:c0a8:1::1]", "[2001:0:7f00:1::1]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[fe80::1]", "[fe80::1%25eth0]",
    "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]", "[100::1]", "[fec0::1]", "[2607:f8b0::5efe:10.0.0.1]",
    "[::ffff:0a00:0001]", "①②⑦.⓪.⓪.①", "127。0。0。1", "１２７.0.0.1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("host", INWARD, ids=ascii)
def test_what_is_not_public_is_not_reached(host: str) -> None:
    """Refused before anything is connected to: a connection that fails would say 'cannot be fetched'."""
    for scheme in ("http", "https"):
        said = refused(f"{scheme}://{host}/latest/meta-data")
        assert "no public address" in said or "is no URL" in said or "no host name" in said, said


@pytest.mark.parametrize("host", [host for host in INWARD if host.isascii()])
def test_a_name_that_leads_inward_is_not_reached(host: str) -> None:
    address = read_host(host.replace("%25", "%"))
    assert not isinstance(address, str)
    said = refused("http://rebind.example/", resolver=names(rebind_example=str(address)))
    assert "no public address" in said
    said = refused("http://rebind.example/", resolver=names(rebind_example=f"{PUBLIC}+{address}"))
    assert "no public address" in said  # one is enough


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"])
def test_public_addresses_are_reached(address: str) -> None:
    assert not Rules().refuses(ipaddress.ip_address(address), "x")


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_reached_that_the_standard_library_calls_private(address: ipaddress.IPv4Address) -> None:
    known = address.is_private or not address.is_global or address.is_multicast or address.is_reserved
    assert Rules().refuses(address, "x") or not known
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert Rules().refuses(mapped, "x") == Rules().refuses(address, "x")


@pytest.mark.slow
@given(st.ip_addresses(v=4), st.sampled_from(["d", "x", "o", "2", "3"]))
def test_every_spelling_of_an_address_is_read_as_that_address(address: ipaddress.IPv4Address, form: str) -> None:
    a, b, c, d = address.packed
    spelled = {
        "d": str(int(address)),
        "x": hex(int(address)),
        "o": ".".join(f"0{part:o}" for part in (a, b, c, d)),
        "2": f"{a}.{int.from_bytes(bytes([b, c, d]))}",
        "3": f"{a}.0x{b:x}.{(c << 8) + d}",
    }[form]
    assert read_host(spelled) == address


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.org/", "gopher://127.0.0.1:6379/_x", "dict://x/", "data:text/plain,x", "//x/",
        "x", "",        "http://", "http:///x", "http://user:pass@example.org/", "http://example.org@127.0.0.1/", "http://127.0.0.1#@example.org/",
        "http://127.0.0.1\\@example.org/", "http://exa mple.org/", "http://example.org/\r\nX: y", "http://[::1", "http://a..b/",
        "http://-a.org/", "http://" + "a" * 300 + ".org/", "http://example.org/" + "x" * 5000, "http://ex\tample.org/",
        "javascript:alert(1)", "http://256.1.1.1/", "http://1.2.3.4.5/", "http://0x100000000/", "http://example.org:99999/",
        "http://$(id).example.org/",
    ],
    ids=lambda url: ascii(url)[:40],
)  # fmt: skip
def test_what_is_no_web_address_is_refused(url: str) -> None:
    said = refused(url)
    assert "cannot be fetched: " not in said or "is no URL that" in said


@pytest.mark.parametrize("port", [22, 25, 6379, 8080, 65535])
def test_other_ports_are_refused(port: int) -> None:
    assert f"port {port} may not be used" in refused(f"http://{PUBLIC}:{port}/")


def test_allowing_is_exact() -> None:
    rules = parse_rules("10.0.0.0/8+wiki.local", "80+8080")
    assert not rules.refuses(ipaddress.ip_address("10.1.2.3"), "x")
    assert not rules.refuses(ipaddress.ip_address("::ffff:10.1.2.3"), "x")
    assert rules.refuses(ipaddress.ip_address("192.168.0.1"), "x")
    assert not rules.refuses(ipaddress.ip_address("192.168.0.1"), "wiki.local")
    assert rules.ports == {80, 8080}
    for allow, ports in [("10.0.0.0/33", "80"), ("!", "80"), ("", "http")]:
        with pytest.raises(ConfigError):
            parse_rules(allow, ports)
    assert catalog.tool("fetch:allow=127.0.0.0/8:ports=80+8000").name == "fetch"
    made = fetcher(Rules(), total_s=7.0)
    assert (made.name, made.effect, made.origin, made.timeout_s) == ("fetch", "read", "the web", 17.0)
    assert made.declares == Declaration(authority=("url",), recipients=("url",)) == catalog.tool("fetch").declares
    assert catalog.tool("fetch").effect == "read" and catalog.tool("fetch").origin == "the web"
    with pytest.raises(ConfigError) as host_bits:  # 10.0.0.5/8 may be meant as one address or as all of 10.0.0.0/8
        parse_rules("127.0.0.1+10.0.0.5/8", "80")
    assert str(host_bits.value) == "allow has '10.0.0.5/8': give networks or host names, as in 10.0.0.0/8+wiki.local"
    both = parse_rules(" 127.0.0.1+ FD00::/8 + Wiki.Local+", "443")
    assert both == Rules(
        (ipaddress.ip_network("127.0.0.1/32"), ipaddress.ip_network("fd00::/8")), frozenset(("wiki.local",)),
        frozenset((443,)),
    )  # fmt: skip


# -- a server of our own --


def page(body: bytes, kind: str = "text/plain", status: str = "200 OK", **headers: str) -> bytes:
    lines = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    head = "".join(f"{key}: {value}\r\n" for key, value in lines.items() if key == "Content-Length" or value)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def served(
    answers: Any, url: str = "http://site.example:{port}/", *, resolver: Any = None, tls: Any = None, **limits: Any
) -> str:
    """What fetch says of a server that gives `answers`: bytes, a mapping of paths, or a coroutine of (path, writer)."""

    async def main() -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                if callable(answers):
                    await answers(path, writer)
                else:
                    writer.write(
                        answers if isinstance(answers, bytes) else answers.get(path, page(b"", status="404 No"))
                    )
                    await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        known = {"site_example": "127.0.0.1", "other_example": "127.0.0.1", "metadata_example": "169.254.169.254"}
        rules = Rules((ipaddress.ip_network("127.0.0.1"),), ports=frozenset((port, 80)))
        tool = fetcher(rules, resolver=resolver(port) if resolver else names(**known), **limits)
        try:
            return await tool({"url": url.format(port=port)})
        finally:
            server.close()

    return asyncio.run(main())


def failing(*args: Any, **rest: Any) -> str:
    with pytest.raises(ToolError) as error:
        served(*args, **rest)
    return str(error.value)


def test_a_page_is_read_as_text() -> None:
    html = b"<html><head><title>T</title></head><body><p>Caf&eacute; <a href='/x'>here</a></p></body></html>"
    text = served(page(html, "text/html; charset=utf-8"))
    assert text.startswith("http://site.example:") and text.split("\n\n", 1)[1].startswith("T\n\n")
    assert "Café here (http://site.example:" in text
    assert served(page(b'{"a": 1}', "application/json")).endswith('\n\n{"a": 1}')
    assert served(page("é".encode("latin-1"), "text/plain; charset=iso-8859-1")).endswith("\n\né")


def test_redirects_are_followed_and_each_is_checked() -> None:
    def to(where: str) -> bytes:
        return page(b"", status="302 Found", Location=where)

    assert served({"/": to("/a"), "/a": to("b?c=1"), "/b?c=1": page(b"there")}).endswith("/b?c=1\n\nthere")
    for where in [
        "http://169.254.169.254/",
        "http://metadata.example/",
        "//10.0.0.1/",
        "http://2852039166/",
        "http://[::1]/",
    ]:
        assert "no public address" in failing({"/": to(where)})
    assert "port 22 may not" in failing({"/": to("http://site.example:22/")})
    for where in ["file:///etc/passwd", "gopher://x/", "http://a:b@site.example/", "javascript:x"]:
        assert "is no URL" in failing({"/": to(where)})
    assert f"more than {MAX_REDIRECTS} redirects" in failing({"/": to("/")})


def test_a_name_whose_answer_changes_gains_nothing() -> None:
    """The name is public at the second look only; and is looked up once for each connection, at which it is checked too."""
    looks: list[str] = []

    def rebinding(port: int) -> Any:
        async def resolver(host: str, port: int) -> list[str]:
            looks.append(host)
            return ["127.0.0.1"] if len(looks) == 1 else ["10.0.0.1"]

        return resolver

    assert served(page(b"first"), resolver=rebinding).endswith("first")
    assert looks == ["site.example"]
    looks.clear()
    answers = {"/": page(b"", status="307 Again", Location="/again"), "/again": page(b"inside")}
    assert "10.0.0.1, which is no public address" in failing(answers, resolver=rebinding)


def test_a_body_without_end_is_cut() -> None:
    async def flood(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    text = served(flood, max_bytes=10_000)
    assert text.endswith("\n[only the first 10000 bytes were read]") and text.count("x") > 9_000
    assert served(page(b"y" * 10), max_bytes=10).endswith("\n\n" + "y" * 10), "as long as the limit is not cut"
    cut = served(page(b"y" * 11), max_bytes=10)
    assert cut.partition("\n\n")[2].rstrip() == "y" * 10 + "\n[only the first 10 bytes were read]"


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [0.001, 0.3])
def test_a_body_that_drips_or_stalls_ends_in_time(wait_s: float) -> None:
    sent = [0.0]

    async def drip(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            sent.append(asyncio.get_running_loop().time())
            await asyncio.sleep(wait_s)

    assert "did not come within 0.2 s" in failing(drip, total_s=0.2)
    if wait_s == 0.3:  # both ends share a loop: whatever its speed, 0.2 s are over before the second 0.3 s are
        assert len(sent) - 1 <= 2


def test_a_name_that_never_resolves_ends_in_time() -> None:
    async def forever(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    assert "did not come within 0.05 s" in refused("http://slow.example/", resolver=forever, total_s=0.05)


@pytest.mark.slow
def test_packed_bodies_are_unpacked_no_further_than_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 20_000_000, 9)
    twice = gzip.compress(bomb, 9)
    for body in (bomb, twice):
        text = served(page(body, "text/plain", Content_Encoding="gzip"), max_bytes=300_000)
        assert len(text) < 17_000
    plain = b"words " * 100
    raw = zlib.compressobj(wbits=-15)
    for encoding, packed in [
        ("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain)), ("deflate", raw.compress(plain) + raw.flush()),
    ]:  # fmt: skip
        assert served(page(packed, Content_Encoding=encoding)).endswith(plain.decode())
    assert "not packed as it says" in failing(page(b"no gzip", Content_Encoding="gzip"))
    assert "packed as 'br'" in failing(page(b"x", Content_Encoding="br"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (page(b"%PDF", "application/pdf"), "is application/pdf, which is no text"),
        (page(b"\0\1", ""), "of no known kind"),
        (page(b"", "image/svg\x1b[2J"), r"is image/svg\x1b[2j, which is no text"),
        (page(b"secret of the server", status="500 Broken"), "answers with status 500"),
        (page(b"", status="404 Gone"), "answers with status 404"),
        (page(b"", status="304 Same"), ""),
        (b"no http at all\r\n\r\n", "cannot be fetched"),
        (b"", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000 + b"\r\n", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "cannot be fetched"),
    ],
    ids=range(12),
)
def test_servers_that_lie_are_results_that_say_so(answer: bytes, said: str) -> None:
    if said:
        assert said in failing(answer)
        assert "secret of the server" not in failing(answer)
    else:
        served(answer)


@pytest.mark.parametrize(
    "charset", ["utf-8", "nonsense", "punycode", "zlib", "unicode_escape", "idna", "utf-16", "x" * 1000]
)
def test_a_charset_of_the_servers_is_used_only_if_it_is_one_for_text(charset: str) -> None:
    assert served(page(b"hi" * 50_000, f"text/plain; charset={charset}"))


def test_nothing_of_ours_is_sent_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cookie, no authorization, no proxy of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    seen: list[str] = []

    async def look(path: str, writer: asyncio.StreamWriter) -> None:
        seen.append(path)
        writer.write(page(b"fine"))
        await writer.drain()

    assert served(look, "http://site.example:{port}/a?b=c#fragment").endswith("fine")
    assert seen == ["/a?b=c"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_must_be_for_the_name_though_the_connection_goes_to_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x -keyout k -out c"
    )
    subprocess.run(
        [*made.split(), "-addext", "subjectAltName=DNS:site.example"], cwd=tmp_path, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    assert "certificate verify failed" in failing(page(b"x"), "https://site.example:{port}/", tls=context)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c"))
    trusted.cache_clear()
    try:
        assert served(page(b"over TLS"), "https://site.example:{port}/", tls=context).endswith("over TLS")
        for other in ("other.example", "127.0.0.1"):
            said = failing(page(b"x"), f"https://{other}:{{port}}/", tls=context)
            assert "certificate verify failed" in said
    finally:
        trusted.cache_clear()


# -- pages --


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a<p>b", "a\nb"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<script>if (a < b) alert('</p>')</script>x", "x"),
        ("<style>p{}</style>x<noscript>y</noscript>", "x"),
        ("<!-- <p>no</p> -->x", "x"),
        ("<!-- never closed <p>x", ""),
        ("a < b && c > d", "a < b && c > d"),
        ("&lt;script&gt; &amp; &#65; &#x42; &#0; &#99999999; &nope;", "<script> & A B \ufffd \ufffd &nope;"),
        ("<a href='javascript:alert(1)'>x</a>", "x"),
        ("<a href=https://e.org/?a=1&amp;b=2>x</a>", "x (https://e.org/?a=1&b=2)"),
        ("<a title='a > b' href='/c'>x</a>", "x (http://base.org/c)"),
        ("<h2>T</h2><ul><li>a<li>b</ul>", "## T\n\n- a\n- b"),
        ("<table><tr><td>1</td><td>2</td></tr></table>", "1 | 2 |"),
        ("<SCRIPT>x</SCRIPT><P>y", "y"),
        ("<p", ""),
        ("<>", "<>"),
        ("", ""),
    ],
)
def test_html_becomes_what_a_reader_sees(html: str, text: str) -> None:
    assert to_text(html, "http://base.org/d/") == text


UNITS = [
    "<a ",
    "<!--",
    "</a ",
    "<a x='",
    "<script>a<",
    "&#",
    "<",
    "<head>",
    "<pre>",
    "<title",
    "<a href=x>",
    "<svg>",
    "\n",
]


@pytest.mark.parametrize("unit", UNITS)
def test_hostile_pages_are_read_in_linear_time(unit: str) -> None:
    """The standard library's reader needs minutes for some of these, so that it ends at all is the test."""
    to_text((unit * 1_000_000)[:60_000])


@pytest.mark.slow
@given(st.text(alphabet="<>/!-?ahrefscipt='\" &#;x1\n", max_size=200))
def test_any_page_is_read(html: str) -> None:
    assert "\n\n\n" not in to_text(html, "http://base.org/")
