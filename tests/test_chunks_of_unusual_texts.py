"""Chunks of unusual texts: deep and cut symbols, fences in fences, headings at their limits, windows over white space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunking import code_chunks
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.chunking.code_chunks import (
    _between,
    _by_lines,
    _defined_name,
    _joined,
    _line_starts,
    _python,
    code,
    symbols,
)
from firsthand.retrieval.chunking.fixed_chunks import fixed
from firsthand.retrieval.chunking.kind_chunks import WITH_HEADINGS, by_kind
from firsthand.retrieval.chunking.markdown_chunks import blocks, markdown, sections
from firsthand.retrieval.chunking.parent_chunks import parents
from firsthand.retrieval.chunking.recursive_chunks import recursive
from firsthand.retrieval.chunking.text_spans import sentences
from firsthand.retrieval.document import Document


def shown(text: str, found: Sequence[Any] | None) -> list[tuple[str, str]]:
    assert found is not None
    return [(" > ".join(each.path), text[each.start : each.end]) for each in found]


def texts(made: Sequence[Chunk]) -> list[str]:
    return [each.text for each in made]


# -- code --


def test_comments_belong_to_the_symbol_below_and_only_three_levels_are_symbols() -> None:
    text = (
        "# of a\n@one\n# more\ndef a\n  def b\n    def c\n      def d\n        def e\n  def f\n"
        "# lost\nx = 1\ndef g\n\n# far\n\n\tdef h\n" + " " * 400 + "def far\n  # end"
    )
    assert shown(text, [*_by_lines(text)]) == [
        ("a", "# of a\n@one\n# more\ndef a\n"),
        ("a > b", "  def b\n"),
        ("a > b > c", "    def c\n      def d\n        def e\n"),
        ("a > f", "  def f\n# lost\nx = 1\n"),
        ("g", "def g\n\n# far\n\n"),
        ("g > h", "\tdef h\n" + " " * 400 + "def far\n  # end"),
    ]
    assert shown("x\n" + " " * 396 + "def f", [*_by_lines("x\n" + " " * 395 + "fn f")])[1][0] == "f", "within 400"


def test_braces_count_from_one_in_forty_lines_and_outside_of_strings_and_comments() -> None:
    inner = "class A {\n  fn b() {}\n"
    assert [each[0] for each in shown(inner, [*_by_lines(inner)])] == ["A", "A > b"]
    flat = "class A {\nfn b() {}\n}\n"  # by braces; by indentation b would stand beside A
    assert [each[0] for each in shown(flat, [*_by_lines(flat)])] == ["A", "A > b"]
    for lines, name in ((119, "A > b"), (120, "b")):  # two braces are enough below 120 lines
        text = "class A {\nfn b() {}\n" + "x\n" * (lines - 2)
        assert text.count("\n") == lines and [*_by_lines(text)][-1].path == tuple(name.split(" > "))
    quoted = 'fn a() {\n  s = "{" + \'{\' + "\\"{" // {\n  # {\n}\n}}\nfn b() {\n}\n'
    assert [each[0] for each in shown(quoted, [*_by_lines(quoted)])] == ["a", "b"], "closing more than was opened"
    closed = "a }}\nclass A {\nfn b() {}\n"  # what closes more than was opened does not let b stand beside A
    assert [each[0] for each in shown(closed, [*_by_lines(closed)])] == ["", "A", "A > b"]
    mixed = "}}\n{\nclass A {\nfn b() {}\n}\nclass C {\nfn d() {}"
    assert [each[0] for each in shown(mixed, [*_by_lines(mixed)])] == ["", "A", "A > b", "C", "C > d"]
    then = "}}}\nclass A {\nfn b() {\n}\n}\nfn c() {}"
    assert [each[0] for each in shown(then, [*_by_lines(then)])] == ["", "A", "A > b", "c"]


def test_a_definition_is_known_by_its_words_its_assignment_or_its_parentheses() -> None:
    names = {
        "pub(crate) unsafe fn x()": "x", "export default async function* go() {": "go",
        "func (r *Repo) Save(x int) {": "Save",
        "namespace a::b {": "a::b", "class Foo:": "Foo", "impl<T> Shape for Square": "Shape", "const f = x => 1": "f",
        "  let g = async function () {": "g", "var h = (a, b) => {": "h", "const k = 3": "", "static int f(void)": "f",
        "unsigned long long int ref(char *s) {": "ref", "int f(void);": "", "new Foo (x) {": "", "else if (x) {": "",
        "return f (x)": "", "throw Foo (x)": "", "  and not (x)": "", "define f": "", "deffn x": "", "macro_rules! m": "m",
        "void ~Foo() {": "Foo", "def if": "", "type X = 1": "X", "proc p {": "p",
    }  # fmt: skip
    assert {line: _defined_name(line) for line in names} == names


def test_python_counts_its_own_lines_and_classes_are_followed_eight_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _line_starts("a\r\nb\rc\n\nd") == [0, 3, 5, 7, 8] and _line_starts("") == [0]
    text = 's = "\\d"\nasync def f():\n  pass\n# of f\nx = 1\n@a\nclass C(\n  B): pass\ny = 2\nz = 3\n'
    assert shown(text, _python(text)) == [
        ("", 's = "\\d"\n'), ("f", "async def f():\n  pass\n# of f\n"), ("", "x = 1\n"), ("C", "@a\nclass C(\n  B): pass\n"),
        ("", "y = 2\nz = 3\n"),
    ]  # fmt: skip
    deep = "".join(f"{' ' * depth}class c{depth}:\n" for depth in range(11)) + " " * 11 + "x = 1"
    paths = [each.path for each in _python(deep) or []]
    assert paths == [tuple(f"c{n}" for n in range(depth)) for depth in range(1, 10)]
    long = "class C:\n  def f(self):\n    return 1\n  # of f\n  x = 2\ndef g(\n  a,\n): pass\nz = 3\n"
    assert shown(long, _python(long)) == [
        ("C", "class C:\n"), ("C > f", "  def f(self):\n    return 1\n  # of f\n"), ("C", "  x = 2\n"),
        ("g", "def g(\n  a,\n): pass\n"), ("", "z = 3\n"),
    ]  # fmt: skip
    crlf = "def f():\r\n  pass\r\rdef g(): pass"
    assert shown(crlf, _python(crlf)) == [("f", "def f():\r\n  pass\r\r"), ("g", "def g(): pass")]
    assert _python("a\0b") is None
    for nested in ("x" + ".b" * 20_000, "-" * 20_000 + "1", "not " * 20_000 + "x", "1" + "+1" * 20_000, "(" * 300):
        below = f"{nested}\n\ndef f(): pass\n"  # deeper than Python's parser goes: its lines say what it holds
        assert shown(below, symbols(below, "python")) == [("", f"{nested}\n\n"), ("f", "def f(): pass\n")]
    text = "if x:\n  def f(): pass\ndef g(): pass\n"  # by its tree a definition in a branch is no symbol
    monkeypatch.setattr(code_chunks, "MAX_TREE_CHARS", len(text))
    assert [each.path for each in symbols(text, "python")] == [(), ("g",)]
    by_lines = [(), ("f",), ("g",)]
    assert [each.path for each in symbols(text, "Python")] == by_lines == [each.path for each in symbols(text, "")]
    assert [each.path for each in symbols(text + " ", "python")] == by_lines, "one character too long"
    assert [each.path for each in symbols(text[:-2] + ":\n", "python")] == by_lines, "it does not parse"
    assert _between([(0, ()), (0, ("a",)), (3, ("b",)), (5, ())], 5) == [(0, 3, ("a",)), (3, 5, ("b",))]
    assert _joined(Document("d", "  "), [code_chunks.Symbol(0, 2, ("a",))]) == []


def test_a_long_symbol_is_cut_between_lines_and_its_end_joined_to_a_neighbour_at_the_top() -> None:
    first, second = "def a():\n    x = 11\n    y = 22\n", "class B:\n    def c(self): pass\n"
    document = Document("d.py", first + second, meta={"kind": "code", "language": "python", "file": {"a": 1}})
    made = code(size=19)(document)
    assert [(each.heading, each.text) for each in made] == [
        ("a", "def a():\n    x = 11"), ("a, B", "y = 22\nclass B:"), ("B > c", "def c(self): pass")
    ]  # fmt: skip
    assert made[0].meta == {"kind": "code", "language": "python"}
    assert [each.heading for each in code(size=40)(document)] == ["a, B", "B > c"], (
        "a class' methods are beside no function"
    )
    with pytest.raises(ConfigError, match=r"^size is 0: give 1 or more$"):
        code(size=0)


# -- markdown --


def test_fences_tables_and_front_matter_end_where_they_say() -> None:
    def kinds(text: str) -> list[tuple[str, str]]:
        return [(each.kind, text[each.start : each.end]) for each in blocks(text)]

    assert kinds("~~~~ py\n~~~\n~~~~ x\n```\n   ~~~~~  \n# A\n") == [
        ("code", "~~~~ py\n~~~\n~~~~ x\n```\n   ~~~~~  \n"), ("heading", "# A\n")
    ]  # fmt: skip
    assert kinds("``\nx\n    ```\ny") == [("prose", "``\nx\n    ```\ny")], "two, or four blanks before"
    assert kinds("a | b\n:-: | -\nc | d\nend") == [("table", "a | b\n:-: | -\nc | d\n"), ("prose", "end")]
    assert kinds("a | b\n--- \nc | d") == [("heading", "a | b\n--- \n"), ("prose", "c | d")], "no column in its rule"
    assert kinds("x\n| a |\n|--|") == [("prose", "x\n"), ("table", "| a |\n|--|")]
    for lines, kind in ((198, "prose"), (199, "heading")):  # front matter closes among the first 200 lines
        text = "---\n" + "# x\n" * lines + "...\n# y"
        assert kinds(text)[0][0] == "prose" and len(kinds(text)) == (2 if kind == "prose" else lines + 3)
        assert kinds(text)[0][1] == (text[:-3] if kind == "prose" else "---\n")
    assert kinds(" ---\na\n---\n") == [("prose", " ---\na\n---\n")] and kinds("") == kinds("\n \n") == []


def test_a_heading_has_up_to_six_signs_and_three_blanks_and_a_title_without_markup() -> None:
    def heads(text: str) -> list[tuple[int, str]]:
        return [(each.level, each.title) for each in blocks(text) if each.kind == "heading"]

    assert heads("   ###### a  b\n    # c\n####### d\n#\te ##\n#\n# f{#id-1} `g` *h* [i](j) ![k](l) ¶ #\n") == [
        (6, "a b"), (1, "e"), (1, ""), (1, "f g h i k")
    ]  # fmt: skip
    assert heads("One\n===\nTwo\n  -\nlong\nThree\n---\n\nFour\n= =\n\nFive\n--- ") == [
        (1, "One"),
        (2, "Two"),
        (2, "Five"),
    ]
    assert [len(title) for _, title in heads("# " + "x" * 130)] == [120]
    assert [each.headings for each in sections("## A\n### B\n# C\nx\n### D\n## E\ny\n")] == [
        ("A", "B"), ("C",), ("C", "D"), ("C", "E")
    ]  # fmt: skip


def test_a_section_is_packed_with_its_code_whole_and_a_long_table_cut_between_lines() -> None:
    text = "# T\n\n| a | b |\n|---|---|\n" + "".join(f"| {n} | x |\n" for n in range(5)) + "\nAfter it all. And more."
    document = Document("d", text, meta={"kind": "markdown"})
    made = markdown(size=30, overlap=10)(document)
    assert [each.heading for each in made] == ["T"] * len(made)
    assert texts(made) == [
        "# T\n\n| a | b |", "|---|---|\n| 0 | x |", "| 1 | x |\n| 2 | x |", "| 3 | x |\n| 4 | x |",
        "After it all.", "it all. And more.",
    ]  # fmt: skip


def test_long_code_is_cut_between_lines_and_not_at_its_blank_ones() -> None:
    text = "```\naaaaaaaaaaa\nbbbbbbbbbbb\n\nccccccccc\n```"
    made = markdown(size=30, overlap=10)(Document("d", text))
    assert texts(made) == ["```\naaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccc\n```"]
    assert texts(markdown(size=42, overlap=10)(Document("d", text))) == [text], "whole up to the size"
    assert texts(markdown(size=41, overlap=0)(Document("d", text))) == [text[:-4], "```"]
    after = texts(markdown(size=43, overlap=10)(Document("d", f"One two.\n{text}\nThree four.")))
    assert after == ["One two.", text, "Three four."]


# -- kinds, windows, parents, sentences --


def test_each_kind_has_its_chunker_with_the_sizes_that_were_given() -> None:
    text = "# A\n\nOne two three. Four five.\n\ndef f():\n    return 1234567\n\n# B\n\nSix seven eight nine ten."
    chunk = by_kind(size=30, overlap=12)
    assert WITH_HEADINGS == ("markdown", "html", "docx", "epub", "notebook")
    for kind in (*WITH_HEADINGS, "code", "text", "table", "Markdown", None):
        document = Document("d", text, meta={"kind": kind, "language": "x"})
        fit = markdown(size=30, overlap=12) if kind in WITH_HEADINGS else recursive(size=30, overlap=12)
        fit = code(size=30) if kind == "code" else fit
        assert chunk(document) == fit(document) != [], kind
    assert len({tuple(texts(make(Document("d", text)))) for make in (markdown(size=30, overlap=12), code(size=30),
                recursive(size=30, overlap=12), markdown(size=30, overlap=0))}) == 4  # fmt: skip


def test_windows_over_white_space_keep_the_longest_of_those_that_begin_alike() -> None:
    def windows(text: str, **options: Any) -> list[str]:
        return texts(fixed(**options)(Document("d", text)))

    assert windows("a    bcd", size=4, overlap=2) == ["a", "bcd"] and windows(" " * 9, size=4, overlap=2) == []
    assert windows("abcd    ", size=4, overlap=2) == ["abcd"], "the end of a window is no window"
    assert windows("a b c d e f g", size=4, overlap=2, unit="tokens") == ["a b c d", "c d e f", "e f g"]
    assert windows("a b c d e f", size=4, overlap=2, unit="tokens") == ["a b c d", "c d e f"]
    assert windows("a b, c", size=4, overlap=0, unit="tokens") == ["a b, c"] and windows("", size=1, overlap=0) == []
    assert windows("é_1!? x", size=2, overlap=0, unit="tokens") == ["é_1!", "? x"]
    assert windows("abcdef", size=4, overlap=1) == ["abcd", "def"] and windows("abcd", size=4, overlap=1) == ["abcd"]


def test_windows_of_every_small_size_and_overlap_end_with_the_first_that_reaches_the_end() -> None:
    def expected(units: str, size: int, overlap: int) -> list[str]:
        starts = [*range(0, len(units), size - overlap)]
        last = next((place for place, start in enumerate(starts) if start + size >= len(units)), 0)
        return [units[start : start + size] for start in starts[: last + 1]]

    for length in range(11):
        letters = "abcdefghij"[:length]
        for size in range(1, 7):
            for overlap in range(size // 2 + 1):
                wanted = expected(letters, size, overlap)
                assert texts(fixed(size=size, overlap=overlap)(Document("d", letters))) == wanted
                tokens = fixed(size=size, overlap=overlap, unit="tokens")(Document("d", " ".join(letters)))
                assert texts(tokens) == [" ".join(each) for each in wanted]


def test_a_child_has_its_parents_heading_and_values_and_the_parent_is_divided_by_its_kind() -> None:
    text = "# One\nAlpha beta. Gamma delta.\n# Two\nshort"
    meta = {"kind": "markdown", "n": 3, "file": {"sha256": "x"}}
    made = parents(size=12, overlap=0, parent_size=40)(Document("d", text, meta=meta))
    whole = Chunk("d", 0, 30, text[:30], "One", None, {"kind": "markdown", "n": 3})
    last = Chunk("d", 31, 42, text[31:], "Two", None, {"kind": "markdown", "n": 3})
    children = [
        Chunk("d", start, end, text[start:end], "One", whole.id, whole.meta)
        for start, end in ((0, 5), (6, 17), (18, 30))
    ]
    assert made == [whole, *children, last]
    with pytest.raises(ConfigError, match=r"^overlap is 7: give 0 to 6, half of the size, 12$"):
        parents(size=12, overlap=7)
    named = open_chunker("parents:parent_size=40:overlap=0:size=12")
    assert named.text == "parents:size=12:overlap=0:parent_size=40"
    assert named.chunk(Document("d", text, meta=meta)) == made


def test_sentences_end_at_marks_quotes_and_blank_lines_but_not_at_initials_or_before_small_letters() -> None:
    def parts(text: str) -> list[str]:
        return [text[start:end] for start, end in sentences(text, 0, len(text))]

    assert parts('He said "Go." Then ... left?! (Yes.) "Ok" 。それ。」はい') == [
        'He said "Go." ', "Then ... left?! ", '(Yes.) ', '"Ok" 。', "それ。」", "はい"
    ]  # fmt: skip
    assert parts("A. B. Cee and U.S. Army, No. 5. vs. X") == ["A. B. Cee and U.S. Army, No. 5. vs. X"]
    assert parts("One\n \n\nTwo! three… four. five. Six") == ["One\n \n\n", "Two! ", "three… ", "four. five. ", "Six"]
    assert [*sentences("xx. Yy. Zz. ", 4, 11)] == [(4, 8), (8, 11)]
    assert parts("approx. Ten. At a.m. It was Dr. Who. Nodr. Who") == [
        "approx. Ten. ",
        "At a.m. ",
        "It was Dr. Who. ",
        "Nodr. ",
        "Who",
    ]


def test_a_symbol_that_comes_back_in_a_chunk_is_named_once_in_its_heading() -> None:
    def named(*paths: str) -> str:
        held = [code_chunks.Symbol(place, place + 1, tuple(path.split("."))) for place, path in enumerate(paths)]
        [made] = _joined(Document("d", "x" * len(paths)), held)
        assert made.text == "x" * len(paths)
        return made.heading

    assert named("A.x", "A.y", "A.x", "A.x.z") == "A > x, y"
    assert named(*"abcdefa") == "a, b, c, d, e, f", "six names of seven symbols"
    assert named(*"abcdefg") == "a, b, c, d, e, f, ..." and named("A", "A") == "A"
