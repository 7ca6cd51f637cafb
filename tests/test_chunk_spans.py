"""Spans of chunks at their exact ends: sizes that just fit, overlaps, headings, blocks, symbols and names of chunkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunking.chunkers import default_text, open_chunker, options
from firsthand.retrieval.chunking.code_chunks import Symbol, _belong, _defined_name, _joined, code, symbols
from firsthand.retrieval.chunking.fixed_chunks import fixed
from firsthand.retrieval.chunking.markdown_chunks import blocks, markdown, sections
from firsthand.retrieval.chunking.parent_chunks import parent_ids, parents
from firsthand.retrieval.chunking.recursive_chunks import recursive
from firsthand.retrieval.chunking.semantic_chunks import semantic
from firsthand.retrieval.chunking.sentence_chunks import by_sentences
from firsthand.retrieval.chunking.text_spans import (
    check_sizes,
    chunks_of,
    overlapped,
    packed,
    pieces,
    sentence_pieces,
    sentences,
    split_at,
    trimmed,
)
from firsthand.retrieval.document import Document, Location


def texts(made: Sequence[Chunk]) -> list[str]:
    return [each.text for each in made]


def document(text: str, **meta: Any) -> Document:
    return Document("d", text, meta=meta)


def test_sizes_that_cannot_work_are_refused() -> None:
    check_sizes(1, 0), check_sizes(9, 4), check_sizes(8, 4)
    for size, overlap, said in ((0, 0, "size is 0: give 1 or more"),
                                (8, 5, "overlap is 5: give 0 to 4, half of the size, 8"),
                                (8, -1, "overlap is -1: give 0 to 4"), (9, 5, "give 0 to 4")):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            check_sizes(size, overlap)


def test_spans_are_trimmed_split_packed_and_cut() -> None:
    import re

    assert trimmed("  ab c ", 0, 7) == (2, 6) and trimmed("  ab c ", 1, 4) == (2, 4) and trimmed(" x ", 2, 3) is None
    assert [*split_at("a,b,,c", 0, 6, re.compile(","))] == [(0, 2), (2, 4), (4, 5), (5, 6)]
    assert [*split_at("a,", 0, 2, re.compile(","))] == [(0, 2)] and [*split_at("ab", 1, 1, re.compile(","))] == []
    assert packed([(0, 3), (4, 6), (7, 10), (10, 11)], 6) == [(0, 6), (7, 11)] and packed([], 5) == []
    text = "One. Two!\n\nThree four five"
    assert [text[a:b] for a, b in pieces(text, 0, len(text), 10)] == ["One. Two!", "Three", "four", "five"]
    assert [text[a:b] for a, b in pieces(text, 0, len(text), 9)] == ["One. Two!", "Three", "four", "five"]
    assert [text[a:b] for a, b in pieces(text, 0, len(text), 8)] == ["One.", "Two!", "Three", "four", "five"]
    assert [*pieces("abcdefg", 0, 7, 3)] == [(0, 3), (3, 6), (6, 7)] and [*pieces("abc", 0, 3, 3)] == [(0, 3)]
    assert [*pieces("", 0, 0, 3)] == []
    assert [*pieces("a\n\nb\nc", 0, 6, 4, level=1)] == [(0, 1), (3, 4), (5, 6)], "lines at once"
    whole = "Dr. No came. Fig. 3 shows. It cost 3. five. Is it? yes."
    assert [whole[a:b].strip() for a, b in sentences(whole, 0, len(whole))] == [
        "Dr. No came.", "Fig. 3 shows.", "It cost 3. five.", "Is it?", "yes."
    ]  # fmt: skip
    assert [*sentence_pieces("  A bc. \n\n Defg hi. ", 6)] == [(2, 7), (11, 15), (16, 19)]


def test_an_overlap_begins_at_a_sentence_else_a_word_and_at_no_floor() -> None:
    text = "One two. Three four five"
    spans = [(0, 14), (15, 24)]
    assert overlapped(text, spans, 0) == spans
    assert overlapped(text, spans, 8) == [(0, 14), (9, 24)], "the sentence within reach"
    assert overlapped(text, spans, 6) == [(0, 14), (9, 24)] and overlapped(text, spans, 5) == spans
    assert overlapped("aaaa bb cccc", [(0, 7), (8, 12)], 4) == [(0, 7), (5, 12)], "else the word"
    assert overlapped("aaaa bb cccc", [(0, 7), (8, 12)], 4, [0, 6]) == [(0, 7), (8, 12)]
    assert overlapped("abcdefgh", [(0, 4), (4, 8)], 2) == [(0, 4), (2, 8)], "one long word"
    assert overlapped("abcdefgh", [(0, 4), (4, 8)], 9) == [(0, 4), (1, 8)], "never before the last one's start"


def test_chunks_have_the_values_of_their_document_but_its_file() -> None:
    made = chunks_of(document(" ab  c ", n=1, file={"sha256": "x"}), [(0, 4), (3, 5), (5, 7)], "H", "p")
    assert made == [Chunk("d", 1, 3, "ab", "H", "p", {"n": 1}), Chunk("d", 5, 6, "c", "H", "p", {"n": 1})]


def test_recursive_sentence_and_fixed_chunks_fill_their_room_exactly() -> None:
    text = "aaaa. bbbb. cccc. dddd."
    assert texts(recursive(size=11, overlap=0)(document(text))) == ["aaaa. bbbb.", "cccc. dddd."]
    assert texts(recursive(size=10, overlap=0)(document(text))) == ["aaaa.", "bbbb.", "cccc.", "dddd."]
    assert texts(by_sentences(size=17, overlap=6)(document(text))) == ["aaaa. bbbb.", "bbbb. cccc. dddd."]
    assert texts(by_sentences(size=16, overlap=5)(document(text))) == ["aaaa. bbbb.", "cccc. dddd."]
    assert texts(fixed(size=4, overlap=1)(document("abcdefghij"))) == ["abcd", "defg", "ghij"]
    assert texts(fixed(size=4, overlap=1)(document("abcdefghijk"))) == ["abcd", "defg", "ghij", "jk"]
    assert texts(fixed(size=4, overlap=1)(document("ab"))) == ["ab"] and fixed(size=4, overlap=1)(document("")) == []
    assert texts(fixed(size=3, overlap=1, unit="tokens")(document("a b, c d"))) == ["a b,", ", c d"]
    assert texts(fixed(size=2, overlap=0, unit="tokens")(document("a b c"))) == ["a b", "c"]
    assert texts(fixed(size=2, overlap=0, unit="tokens")(document("x" * 17))) == ["x" * 17]
    assert texts(fixed(size=1, overlap=0, unit="tokens")(document("x" * 17))) == ["x" * 16, "x"]


def test_a_semantic_break_falls_where_the_distance_exceeds_the_percentile() -> None:
    text = "Aa. Ab. Ac. Ba. Bb."
    asked: list[str] = []

    def embed(windows: Sequence[str]) -> Any:
        asked.extend(windows)
        return np.array([[1.0, 0.0] if window.count("A") > window.count("B") else [0.0, 1.0] for window in windows])

    assert texts(semantic(size=100, percentile=90, embed=embed)(document(text))) == ["Aa. Ab. Ac.", "Ba. Bb."]
    assert [each.strip() for each in asked] == ["Aa. Ab.", "Aa. Ab. Ac.", "Ab. Ac. Ba.", "Ac. Ba. Bb.", "Ba. Bb."]
    assert texts(semantic(size=7, percentile=90, embed=embed)(document(text))) == ["Aa. Ab.", "Ac.", "Ba. Bb."]
    assert texts(semantic(size=100, embed=lambda windows: np.ones((len(windows), 1)))(document(text))) == [text]
    assert semantic(size=9, embed=embed)(document(" ")) == [] and texts(
        semantic(size=9, embed=embed)(document("One."))
    ) == ["One."]
    for percentile in (0, 100):
        with pytest.raises(ConfigError, match="give a number between 0 and 100, such as 90"):
            semantic(percentile=percentile, embed=embed)


def test_a_parent_stands_before_its_children_and_alone_with_one() -> None:
    text = "aaaa. bbbb.\n\ncccc."
    made = parents(size=5, overlap=0, parent_size=12)(document(text))
    assert [(each.start, each.end, each.text, each.parent) for each in made] == [
        (0, 11, "aaaa. bbbb.", None), (0, 5, "aaaa.", made[0].id), (6, 11, "bbbb.", made[0].id), (13, 18, "cccc.", None)
    ]  # fmt: skip
    assert parent_ids(made) == {made[0].id}
    parents(size=6, overlap=0, parent_size=12)
    with pytest.raises(ConfigError, match="parent_size is 11: give at least 12, twice the size of a child"):
        parents(size=6, overlap=0, parent_size=11)


# -- markdown --

PAGE = """---
title: x
---
# One `a`
Prose
goes on.

Under
=====
## Two
| a | b |
|---|---|
| 1 | 2 |
~~~
# no heading
~~~
### [Link](http://x) #
#notahead
Sub
---
last
"""


def test_blocks_and_sections_of_a_page() -> None:
    found = [(each.kind, each.level, each.title, PAGE[each.start : each.end]) for each in blocks(PAGE)]
    assert found == [
        ("prose", 0, "", "---\ntitle: x\n---\n"), ("heading", 1, "One a", "# One `a`\n"),
        ("prose", 0, "", "Prose\ngoes on.\n"),
        ("heading", 1, "Under", "Under\n=====\n"), ("heading", 2, "Two", "## Two\n"),
        ("table", 0, "", "| a | b |\n|---|---|\n| 1 | 2 |\n"), ("code", 0, "", "~~~\n# no heading\n~~~\n"),
        ("heading", 3, "Link", "### [Link](http://x) #\n"), ("prose", 0, "", "#notahead\nSub\n---\nlast\n"),
    ]  # fmt: skip
    assert [(each.headings, [block.kind for block in each.blocks]) for each in sections(PAGE)] == [
        ((), ["prose"]), (("One a",), ["heading", "prose"]), (("Under", "Two"), ["heading", "heading", "table", "code"]),
        (("Under", "Two", "Link"), ["heading", "prose"]),
    ]  # fmt: skip
    assert [each.headings for each in sections("# A\n# B\nx\n## C\n## D\n# E")] == [
        ("A",), ("B",), ("B", "C"), ("B", "D"), ("E",)
    ]  # fmt: skip
    assert [each.kind for each in blocks("```\nopen")] == ["code"] and [
        each.kind for each in blocks("````\n```\n````\nx")
    ] == ["code", "prose"]
    assert [each.kind for each in blocks("---\nno end")] == ["prose"]


def test_a_code_block_stays_whole_up_to_the_size_and_no_overlap_reaches_into_it() -> None:
    fence = "```\n" + "x" * 22 + "\n```\n"
    assert len(fence) == 31
    made = markdown(size=31, overlap=10)(document("Alpha beta.\n\n" + fence + "Gamma delta.\n"))
    assert texts(made) == ["Alpha beta.", fence.strip(), "Gamma delta."]
    prose = markdown(size=20, overlap=8)(document("# H\n\nOne two. Three. Four five six."))
    assert [each.heading for each in prose] == ["H"] * len(prose) and prose[0].text.startswith("# H")
    assert texts(prose) == ["# H", "H\n\nOne two.", "two. Three. Four", "Four five six."]
    adjoining = markdown(size=12, overlap=4)(document("aa bb cc\n```\nx y\n```\ndd ee"))
    assert [each.text for each in adjoining] == ["aa bb cc", "```\nx y\n```", "dd ee"]


# -- code --


def test_symbols_of_python_begin_with_their_decorators_and_what_stands_between_is_the_classs() -> None:
    text = 'import a\n\n@deco\ndef f():\n    pass\n\nX = 1\nclass C:\n    """D."""\n    def g(self): pass\n    y = 2\n'
    assert [(each.path, text[each.start : each.end]) for each in symbols(text, "python")] == [
        ((), "import a\n\n"), (("f",), "@deco\ndef f():\n    pass\n\n"), ((), "X = 1\n"),
        (("C",), 'class C:\n    """D."""\n'), (("C", "g"), "    def g(self): pass\n"), (("C",), "    y = 2\n"),
    ]  # fmt: skip
    made = code(size=1000)(document(text, language="python"))
    assert [each.heading for each in made] == ["f, C", "C > g"]
    names = {
        "def f(x):": "f", "  pub fn go(x)": "go", "class A.B:": "A.B", "const run = async () => 1": "run",
        "int main(int c) {": "main", "export default function foo() {": "foo", "if (x) {": "", "return call(x)": "",
        "x = 3": "", "void f(int a);": "",
    }  # fmt: skip
    assert {line: _defined_name(line) for line in names} == names
    assert (
        _belong(("A", "x"), ("A", "y"))
        and _belong(("a",), ("b",))
        and not _belong(("A", "x"), ("b",))
        and _belong((), ("b",))
    )


def test_symbols_of_other_languages_follow_braces_or_indentation() -> None:
    text = "// about f\nfunction f() {\n  function inner() {\n  }\n}\n\nclass C {\n  void m() {\n  }\n}\n"
    assert [(each.path, text[each.start : each.end].split("\n")[0]) for each in symbols(text, "javascript")] == [
        (("f",), "// about f"), (("f", "inner"), "  function inner() {"), (("C",), "class C {"), (("C", "m"), "  void m() {")
    ]  # fmt: skip
    ruby = "x = 1\n# note\ndef a\n  1\nend\n# far\n\nmodule M\n  def b\n  end\nend\n"
    assert [(each.path, ruby[each.start : each.end].split("\n")[0]) for each in symbols(ruby, "ruby")] == [
        ((), "x = 1"), (("a",), "# note"), (("M",), "module M"), (("M", "b"), "  def b")
    ]  # fmt: skip


def test_the_heading_of_joined_symbols_is_their_shared_path_and_six_names() -> None:
    def headed(*paths: tuple[str, ...]) -> str:
        [made] = _joined(document("x" * len(paths)), [Symbol(at, at + 1, path) for at, path in enumerate(paths)])
        return made.heading

    assert headed(("A", "f"), ("A", "g"), ("A", "f")) == "A > f, g" and headed(("A", "f")) == "A > f"
    assert headed((), ("a",), ("b",)) == "a, b" and headed(()) == "" and headed(("A",), ("A", "f")) == "A > f"
    assert headed(*((name,) for name in "abcdef")) == "a, b, c, d, e, f"
    assert headed(*((name,) for name in "abcdefg")) == "a, b, c, d, e, f, ..." and _joined(document("x"), []) == []


# -- names of chunkers, places and ids --


def test_a_chunkers_text_has_every_option_in_order() -> None:
    assert open_chunker("recursive:overlap=5:size=20").text == "recursive:size=20:overlap=5"
    assert default_text("semantic") == "semantic:size=1200:percentile=90" and default_text("code") == "code:size=1200"
    assert options("parents") == {"size": 400, "overlap": 50, "parent_size": 2400}
    assert open_chunker("semantic:percentile=92.5", lambda texts: np.ones((len(texts), 1))).text.endswith(
        "percentile=92.5"
    )
    with pytest.raises(UnknownName):
        open_chunker("recursve")
    for wrong, said in (
        ("code(x)", "has parentheses, and a chunker leads no other"),
        ("semantic:embed=x", "gives embed, which is"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_chunker(wrong)


def test_a_place_is_the_last_that_begins_at_or_before_a_character_else_its_line() -> None:
    marks = (Location(2, "page", "1"), Location(5, "page", "2"))
    placed = Document("d", "ab\ncd\nef", locations=marks)
    assert [placed.location(at) for at in (2, 4, 5, 7)] == [marks[0], marks[0], marks[1], marks[1]]
    assert placed.location(1) == Location(0, "line", "1") and Document("d", "ab\ncd").location(3) == Location(
        3, "line", "2"
    )
    assert Document("d", "ab\ncd").location(2) == Location(0, "line", "1"), "a line holds its own end"
    ids = {
        Chunk(*each).id
        for each in (("d", 1, 2, "x"), ("e", 1, 2, "x"), ("d", 2, 2, "x"), ("d", 1, 3, "x"), ("d", 1, 2, "y"))
    }
    assert len(ids) == 5 and Chunk("d", 1, 2, "x", "H", "p", {"a": 1}).id in ids
    assert Chunk("d", 0, 1, "x", "H").indexed_text == "H\nx" and Chunk("d", 0, 1, "x").indexed_text == "x"
    with pytest.raises(ConfigError, match=r"^a document has no id"):
        Document("", "x")
