"""Names of strangers in Markdown: an address in them is text, for renderers that link bare addresses too."""

import pytest
from markdown_it import MarkdownIt

from firsthand.show.markdown_text import escaped

ADDRESSES = (
    "https://evil.example", "HTTP://evil.example/a?b=c", "ftp://evil.example", "www.evil.example", "WWW.evil.example", "a (https://evil.example)",
    "x:https://evil.example", "//www.evil.example", "https:///www.evil.example",
)  # fmt: skip


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_bare_address_in_a_name_is_no_link(name: str) -> None:
    pytest.importorskip("linkify_it")
    assert "<a " not in MarkdownIt("gfm-like").render(escaped(name))


def test_the_marks_by_which_github_finds_an_address_are_escaped() -> None:
    assert escaped("https://a http://b FTP://c") == "https\\://a http\\://b FTP\\://c"
    assert escaped("www.a WWW.b.c xwww.d") == "www\\.a WWW\\.b.c xwww\\.d"


@pytest.mark.parametrize("name", [*ADDRESSES, "model: a", "org/model:free", "v1.2", "wwwidget", "a::b"])
def test_a_name_with_an_address_reads_as_it_is(name: str) -> None:
    assert MarkdownIt().render(escaped(name)) == f"<p>{name}</p>\n"


def test_colons_and_dots_elsewhere_have_no_mark() -> None:
    assert escaped("org/model:free v1.2 a: b /x//y") == "org/model:free v1.2 a: b /x//y"
