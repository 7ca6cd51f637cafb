"""Chunkers: their properties on any text, and what each is for."""

import random
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firsthand.errors import ConfigError, UnknownName
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.chunking.chunkers import CHUNKERS, open_chunker
from firsthand.retrieval.chunking.text_spans import FILE_META
from firsthand.retrieval.document import Document
from thorough import repetitions

SMALL = (
    "recursive:size=20:overlap=6",
    "recursive:size=20:overlap=0",
    "sentences:size=30:overlap=15",
    "markdown:size=24:overlap=8",
    "fixed:size=12:overlap=5",
    "fixed:size=12:overlap=0",
    "fixed:size=5:overlap=2:unit=tokens",
    "code:size=30",
    "auto:size=24:overlap=8",
    "parents:size=10:overlap=3:parent_size=40",
    "semantic:size=30:percentile=50",
)
PARTS = st.sampled_from(
    ["word", "a", "Dr. No. ", "the end. ", "Wait! ", "\n", "\n\n", "# Head\n", "## Sub\n", "```\n", "| a | b |\n",
     "|---|---|\n", "===\n", "---\n", " ", "\t", "    ", "def f():\n", "class A:\n", "{\n", "}\n", "…", "。", "日本語",
     "\u2028", "\x85", "\u00a0", "e\u0301", "\U0001f600", "x" * 50, "\r", "@dec\n", "~~~", "- item\n", "\ud800"]
)  # fmt: skip
TEXTS = st.lists(PARTS | st.text(max_size=5), max_size=40).map("".join)


def hashed(texts: Sequence[str]) -> np.ndarray:
    """Vectors that depend on the words alone."""
    rows = []
    for text in texts:
        row = np.zeros(16, np.float32)
        for word in text.split():
            row[sum(word.encode("utf-8", "surrogatepass")) % 16] += 1
        rows.append(row / max(float(np.linalg.norm(row)), 1e-9))
    return np.array(rows, np.float32)


def chunked(text: str, chunker: str, **meta: str) -> list[Chunk]:
    return open_chunker(chunker, hashed).chunk(Document("d", text, meta=meta))


def bound_of(chunker: str) -> int:
    """The most characters of a chunk."""
    options = dict(part.split("=") for part in chunker.split(":")[1:])
    if options.get("unit") == "tokens":
        return 10**9
    return int(options.get("parent_size", options["size"]))


def expect_sound(text: str, chunks: Sequence[Chunk], chunker: str) -> None:
    """The properties of every chunker."""
    covered = 0
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end] and chunk.document == "d"
        assert chunk.text.strip() == chunk.text != ""
        assert chunk.end - chunk.start <= bound_of(chunker)
        assert not text[covered : chunk.start].strip()
        covered = max(covered, chunk.end)
    assert not text[covered:].strip()
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)
    assert len({c.id for c in chunks}) == len(chunks)
    if not chunker.startswith("parents"):
        assert all(one.start < two.start and one.end < two.end for one, two in pairwise(chunks))


@pytest.mark.slow
@pytest.mark.parametrize("chunker", SMALL)
@given(text=TEXTS, kind=st.sampled_from(["markdown", "code", "text"]), language=st.sampled_from(["python", "c", ""]))
@example(text="a" * 100, kind="text", language="")
@example(text="\u2028word\n\nwordwordword", kind="markdown", language="")
@example(text="w" * 20 + " " * 8 + "abcdefghijklmnop", kind="text", language="")
@example(text="word " * 30, kind="code", language="python")
@example(text="x. " * 30 + "y" * 70 + " z", kind="markdown", language="")
@settings(max_examples=60)
def test_spans_are_in_order_cover_all_but_white_space_and_hold_the_size(
    chunker: str, text: str, kind: str, language: str
) -> None:
    chunks = chunked(text, chunker, kind=kind, language=language)
    expect_sound(text, chunks, chunker)
    assert chunks == chunked(text, chunker, kind=kind, language=language)


HOSTILE = {
    "a word": "a" * 1_000_000,
    "words": "ab " * 330_000,
    "lines": "x\n" * 500_000,
    "dots": "." * 1_000_000,
    "marks": "!?" * 500_000 + "x",
    "quotes": '."' * 400_000,
    "headings": "# a\n" * 60_000,
    "tables": "|a|\n|-|\n" * 60_000,
    "fences": "```\n" * 100_000,
    "blank lines": "\n \n" * 300_000,
    "braces": "{" * 1_000_000,
    "spaces": " " * 1_000_000 + "x",
    "deep": "".join(" " * (n % 300) + "def f():\n" for n in range(6_000)),
    "calls": "a b c d e f(" * 80_000,
    "links": "# " + "[" * 500_000,
    "parentheses": "(" * 300_000,
    "pointers": ("a" + "*&" * 190 + "\n") * 2_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "chunker", ["recursive", "sentences", "markdown", "fixed", "fixed:unit=tokens", "code", "parents"]
)
def test_long_texts_of_one_kind_take_linear_time(name: str, chunker: str) -> None:
    text = HOSTILE[name][: repetitions(400_000, 100_000)]  # in quadratic time each of these would take an hour
    expect_sound(text, chunked(text, open_chunker(chunker).text, language="python"), open_chunker(chunker).text)


@pytest.mark.slow
def test_a_word_of_a_megabyte_is_cut_at_the_size() -> None:
    for chunker in (
        "recursive:size=800:overlap=100",
        "sentences:size=800:overlap=100",
        "markdown:size=800:overlap=100",
        "code:size=1200",
    ):
        text = "a" * 1_000_000
        expect_sound(text, chunked(text, chunker), chunker)


def test_recursive_ends_at_paragraphs_and_overlaps_at_a_sentence() -> None:
    text = "First one. Second one here.\n\nThird paragraph stands alone. And more words."
    chunks = chunked(text, "recursive:size=60:overlap=20")
    assert [c.text for c in chunks] == [
        "First one. Second one here.", "Second one here.\n\nThird paragraph stands alone.", "stands alone. And more words."
    ]  # fmt: skip
    plain = chunked(text, "recursive:size=60:overlap=0")
    assert [c.text for c in plain] == ["First one. Second one here.", "Third paragraph stands alone. And more words."]


def test_an_overlap_repeats_the_end_of_the_chunk_before() -> None:
    text = " ".join(f"word{n}" for n in range(200))
    chunks = chunked(text, "recursive:size=100:overlap=30")
    for one, two in pairwise(chunks):
        assert 0 < one.end - two.start <= 30
        assert text[two.start - 1] == " "
    word = "x" * 500
    assert {one.end - two.start for one, two in pairwise(chunked(word, "recursive:size=100:overlap=30"))} == {30}


def test_sentences_are_whole_and_abbreviations_do_not_end_them() -> None:
    text = "Dr. Smith met Mrs. Jones, e.g. at noon. It was 3.5 km away! Was it far? Prof. B. Miller said no."
    chunks = chunked(text, "sentences:size=45:overlap=0")
    assert [c.text for c in chunks] == [
        "Dr. Smith met Mrs. Jones, e.g. at noon.", "It was 3.5 km away! Was it far?", "Prof. B. Miller said no."
    ]  # fmt: skip
    chinese = chunked("第一句。第二句！第三句？", "sentences:size=4:overlap=0")
    assert [c.text for c in chinese] == ["第一句。", "第二句！", "第三句？"]


def test_sentences_overlap_by_whole_sentences() -> None:
    text = "One two. Three four. Five six. Seven eight."
    chunks = chunked(text, "sentences:size=32:overlap=12")
    assert chunks[0].text == "One two. Three four."
    assert chunks[1].text.startswith("Three four. Five six.")


MARKDOWN = """\
Before any heading.

# Top

Intro text.

## Install `it`

```bash
# not a heading
pip install it

echo done
```

Text after code.

Usage
-----

| a | b |
|---|---|
| 1 | 2 |

## [Linked](http://x.example) part ##
### Deep
Last words.
"""


def test_markdown_keeps_headings_beside_the_chunks() -> None:
    chunks = chunked(MARKDOWN, "markdown:size=200:overlap=0")
    assert [(c.heading, c.text.split("\n")[0]) for c in chunks] == [
        ("", "Before any heading."),
        ("Top", "# Top"),
        ("Top > Install it", "## Install `it`"),
        ("Top > Usage", "Usage"),
        ("Top > Linked part > Deep", "## [Linked](http://x.example) part ##"),
    ]
    assert chunks[2].indexed_text.startswith("Top > Install it\n## Install")


def test_code_blocks_and_tables_stay_whole() -> None:
    code = "```\n" + "\n\n".join(f"line {n}" for n in range(6)) + "\n```\n"
    table = "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 6
    text = f"Some words before it.\n\n{code}\nBetween them.\n\n{table}\nAfter."
    chunks = chunked(text, "markdown:size=90:overlap=20")
    assert any(code.strip() in c.text for c in chunks)
    assert any(table.strip() in c.text for c in chunks)
    longer = chunked("```\n" + "a line of code\n" * 20 + "```", "markdown:size=60:overlap=0")
    assert all(c.text.startswith(("```", "a line")) and c.text.endswith(("```", "code")) for c in longer)


def test_an_overlap_does_not_reach_into_code() -> None:
    text = "Words at first.\n\n```\nx = 1. And y\n```\n\nWords that follow here."
    chunks = chunked(text, "markdown:size=50:overlap=25")
    assert any(c.text == "Words that follow here." for c in chunks)


PYTHON = '''\
"""Doc."""
import os


@cache
def first(a):
    """One."""
    return a


class Thing(Base):
    """Two."""

    limit = 3

    def method(self):
        return self.limit + 1000000

    async def other(self):
        return "a string with def inside()"


VALUE = 3
'''


def test_python_is_divided_by_its_symbols() -> None:
    chunks = chunked(PYTHON, "code:size=90", language="python")
    headings = [c.heading for c in chunks]
    assert headings == ["first", "Thing", "Thing > method", "Thing > other", ""]
    method = next(c for c in chunks if c.heading == "Thing > method")
    assert method.text.startswith("def method") and "1000000" in method.text and "other" not in method.text
    assert any(c.text.startswith("@cache\ndef first") or "@cache\ndef first" in c.text for c in chunks)


def test_code_that_does_not_parse_is_divided_by_its_lines() -> None:
    broken = PYTHON.replace("return a\n", "return a)\n")
    assert any(c.heading == "Thing > method" for c in chunked(broken, "code:size=90", language="python"))


C = """\
#include <stdio.h>

/* Adds. */
static int add(int a, int b)
{
    if (a > 0) {
        return a + b;
    }
    return b;
}

struct point {
    int x;
};

int main(void) { return add(1, 2); }
"""


def test_braces_and_definition_words_divide_other_languages() -> None:
    found = {c.heading: c.text for c in chunked(C, "code:size=110", language="c")}
    assert (
        "add" in found
        and found["add"].startswith("/* Adds. */\nstatic int add")
        and found["add"].endswith("return b;\n}")
    )
    assert any("main" in heading for heading in found)
    java = (
        "public class Shop {\n  private int n;\n\n  public void sell(int k) {\n    n -= k;\n  }\n\n"
        "  int left() {\n    return n;\n  }\n}\n"
    )
    assert [c.heading for c in chunked(java, "code:size=60", language="java")] == ["Shop", "Shop > sell", "Shop > left"]


def test_a_line_of_pointers_does_not_take_exponential_time() -> None:
    text = ("a" + "*&" * 190 + "\n") * 20 + ("a<b " * 90 + "\n") * 20
    expect_sound(text, chunked(text, "code:size=1200", language="c"), "code:size=1200")


def test_small_symbols_share_a_chunk_and_its_heading_names_them() -> None:
    text = "def a():\n    pass\n\n\ndef b():\n    pass\n"
    (chunk,) = chunked(text, "code:size=100", language="python")
    assert chunk.heading == "a, b"


def test_fixed_windows_step_by_size_less_overlap() -> None:
    text = "abcdefghij" * 3
    assert [(c.start, c.end) for c in chunked(text, "fixed:size=12:overlap=4")] == [
        (0, 12),
        (8, 20),
        (16, 28),
        (24, 30),
    ]
    words = "a b c d e f g"
    assert [c.text for c in chunked(words, "fixed:size=3:overlap=1:unit=tokens")] == ["a b c", "c d e", "e f g"]
    assert [c.text for c in chunked("one, two", "fixed:size=2:overlap=0:unit=tokens")] == ["one,", "two"]


def test_semantic_breaks_where_the_subject_changes() -> None:
    subject = {"cats": [f"Cats purr {how}." for how in ("softly", "loudly", "again", "still")],
               "stocks": [f"Stocks fell {how}." for how in ("hard", "more", "again", "still")]}  # fmt: skip
    text = " ".join(sentence for sentences in subject.values() for sentence in sentences)

    def embed(texts: Sequence[str]) -> np.ndarray:
        rows = np.array([[each.count("Cats"), each.count("Stocks")] for each in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    document = Document("d", text)
    chunks = open_chunker("semantic:size=200:percentile=80", embed).chunk(document)
    assert [c.text for c in chunks] == [" ".join(subject["cats"]), " ".join(subject["stocks"])]
    assert len(open_chunker("semantic:size=40:percentile=80", embed).chunk(document)) == 4
    with pytest.raises(ConfigError, match="give it an embedder"):
        open_chunker("semantic")


def test_parents_hold_their_children_and_are_named_by_them() -> None:
    text = "\n\n".join(f"Paragraph {n} has some words in it." for n in range(12))
    chunks = chunked(text, "parents:size=50:overlap=10:parent_size=160")
    by_id = {c.id: c for c in chunks}
    children = [c for c in chunks if c.parent]
    parents = {c.parent for c in children}
    assert len(parents) > 1 and parents <= by_id.keys()
    for child in children:
        parent = by_id[child.parent or ""]
        assert parent.start <= child.start and child.end <= parent.end and parent.parent is None
        assert chunks.index(parent) < chunks.index(child)
    (alone,) = chunked("Short.", "parents:size=50:overlap=10:parent_size=160")
    assert alone.parent is None


def test_auto_takes_the_chunker_of_the_kind() -> None:
    assert [c.heading for c in chunked("# A\nx\n# B\ny", "auto", kind="markdown")] == ["A", "B"]
    assert [c.heading for c in chunked("# A\nx\n# B\ny", "auto", kind="text")] == [""]
    assert [c.heading for c in chunked("def a():\n  pass", "auto", kind="code", language="python")] == ["a"]


def test_chunks_have_the_documents_values_without_its_file() -> None:
    document = Document("d", "text", meta={"year": 1999, FILE_META: {"sha256": "0"}})
    (chunk,) = open_chunker("recursive").chunk(document)
    assert chunk.meta == {"year": 1999}


def test_a_chunker_is_named_by_a_text_with_every_option() -> None:
    assert open_chunker().text == "auto:size=800:overlap=100"
    assert open_chunker("recursive:overlap=50").text == "recursive:size=800:overlap=50"
    assert open_chunker("semantic:percentile=87.5", hashed).text == "semantic:size=1200:percentile=87.5"
    for name in CHUNKERS:
        text = open_chunker(name, hashed).text
        assert open_chunker(text, hashed).text == text


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("recursiv", UnknownName, "did you mean 'recursive'"),
        ("recursive:sise=3", ConfigError, "did you mean 'size'"),
        ("recursive:size=0", ConfigError, "give 1 or more"),
        ("recursive:size=100:overlap=51", ConfigError, "give 0 to 50"),
        ("fixed:unit=lines", ConfigError, "characters, tokens"),
        ("parents:parent_size=500", ConfigError, "at least 800"),
        ("semantic:percentile=100", ConfigError, "between 0 and 100"),
        ("semantic:embed=x", ConfigError, "leave it out"),
        ("auto(recursive)", ConfigError, "parentheses"),
    ],
)
def test_other_texts_name_no_chunker(text: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=re.escape(told)):
        open_chunker(text, hashed)


def test_random_markdown_of_real_pages_is_sound() -> None:
    seed = random.Random(7)
    lines = MARKDOWN.split("\n")
    for _ in range(200):
        text = "\n".join(seed.choice(lines) for _ in range(seed.randrange(60)))
        expect_sound(text, chunked(text, "markdown:size=60:overlap=20"), "markdown:size=60")
