"""Answers are edited where claims end: numbers alone are claims, and the rest of the text stays as it is."""

from __future__ import annotations

import re
import time
from random import Random
from typing import Any

import pytest

from firsthand.retrieval.answers import held_words
from firsthand.retrieval.answers.citations import HitPlace
from firsthand.retrieval.answers.claims import CheckedClaims, check_claims, cited_by
from firsthand.retrieval.answers.passage_words import placed_words
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.retriever import Hit

MILL = "The mill was built in 1871. It burned down in 1902. It has 12 rooms and cost $4,500."


def checked(text: str, *passages: str, **options: Any) -> CheckedClaims:
    hits = [Hit(Chunk(f"d{n}", 0, len(each), each), 1.0) for n, each in enumerate(passages or (MILL,))]
    return check_claims(text, hits, [HitPlace("x", f"d{n}", 1, ()) for n in range(len(hits))], **options)


@pytest.mark.parametrize("how", ["mark", "drop", "keep"])
@pytest.mark.parametrize(
    ("reply", "quote"),
    [
        ("1871 [1]", "The mill was built in 1871."),
        ("12. [1]", "It has 12 rooms and cost $4,500."),
        ("$4,500 [1]", "It has 12 rooms and cost $4,500."),
        ("**1902** [1]", "It burned down in 1902."),
        ("- 1902 [1]", "It burned down in 1902."),
        ("| 1871 | 1871 | [1]", "The mill was built in 1871."),
    ],
)
def test_a_number_alone_is_a_claim(reply: str, quote: str, how: Any) -> None:
    made = checked(reply, unsupported=how)
    assert made.text == reply and [each.quote for each in made.citations] == [quote]
    wrong = checked(re.sub(r"\d[\d,]*(?!\])", "77", reply), unsupported=how)
    assert wrong.citations == () and len(wrong.unsupported) == 1 and ("77" in wrong.text) is (how != "drop")


def test_the_numbers_of_items_are_no_claims_wherever_they_stand() -> None:
    for text in (
        "1. The mill was built in 1871. [1]\n1.2. It burned down in 1902. [2]",
        "**1.** The mill was built in 1871. [1]\n> 2) It has 12 rooms. [2]",
        "A. The mill was built in 1871. [1]\n(b) It burned down in 1902. [2]",
        "I. The mill was built in 1871. [1]\nXVII. It burned down in 1902. [2]",
        "12. The mill was built in 1871. [1] 13. It burned down in 1902. [2]",
    ):
        made = checked(re.sub(r"\[\d\]", "[1]", text), unsupported="drop")
        assert (
            made.unsupported == ()
            and len(made.citations) == 2
            and re.sub(r"\d\]", "", made.text) == re.sub(r"\d\]", "", text)
        )
    assert checked("1871. The mill is old. [1]", unsupported="mark").unsupported == ("1871.",), "four digits are a year"
    assert checked("B. [1]").unsupported == ("B.",) and checked("$12. It has 12 rooms. [1]").unsupported == ("$12.",)
    first = checked("1. [1] The mill was built in 1871.")
    assert first.text == "1. The mill was built in 1871. [1]", "a reference behind the item's number is the item's"


def test_the_last_signs_of_a_line_stay_with_it() -> None:
    assert checked("**The mill was built in 1871. [1]** 🙂").text == "**The mill was built in 1871. [1]** 🙂"
    assert checked("The mill was built in 1871. [1]\n\n---\n\nIt burned down in 1902. [1]").text == (
        "The mill was built in 1871. [1]\n\n---\n\nIt burned down in 1902. [2]"
    )
    assert checked("Ghosts! [1] **\n---\n}", unsupported="drop").text == ""
    assert checked("🙂").text == "" and checked("🙂", unsupported="keep").text == "🙂"


def test_a_table_keeps_its_rule_and_its_rows_and_a_list_its_indentation() -> None:
    table = "| Year | Mill |\n|---|---|\n| 1871 | built |\n| 1871 | built |"
    assert checked(table, unsupported="keep").text == table
    assert checked(table).text.count("| 1871 | built | [unsupported]") == 2 and "\n|---|---|\n" in checked(table).text
    cited = "| The mill | built |\n|---|---|\n| 1871 | 12 | [1]"
    assert checked(cited.replace("t |\n", "t | [1]\n", 1), unsupported="drop").text.endswith(
        "[1]\n|---|---|\n| 1871 | 12 | [1]"
    )
    nested = "- The mill was built in 1871. [1]\n    - It has 12 rooms. [2]\n\t- It cost $4,500. [2]"
    assert checked(nested.replace("[2]", "[1]")).text == nested
    assert checked(" The mill was built in 1871. [1]").text == "The mill was built in 1871. [1]"
    told = checked("The mill was built in 1871. [1]\n**The mill was built in 1871. [1] 12** rooms.\n")
    assert told.text.endswith("rooms. [unsupported]")
    again = checked("It burned down in 1902. [1] It burned down in 1902. [1]**", unsupported="mark")
    assert again.text == "It burned down in 1902. [1]**", "signs behind a repeated claim stay"
    dropped = checked("  - Ghosts. It burned down in 1902. [1]", unsupported="drop")
    assert dropped.text == "It burned down in 1902. [1]"
    assert checked("价格是12。[1]它是红的。[1]", "价格是12。").text == "价格是12。 [1] 它是红的。 [unsupported]"


CODE = "def f(a):\n    if a[0]:\n        return a[1]\n\n\n    return [1]"


@pytest.mark.parametrize("fences", [("```", "```"), ("~~~ python", "~~~~"), ("```py", ""), ("  ````", "  ````")])
def test_fenced_code_is_one_claim_that_stands_in_a_passage_as_it_is(fences: tuple[str, str]) -> None:
    block = f"{fences[0]}\n{CODE}" + (f"\n{fences[1]}" if fences[1] else "")
    made = checked(f"The mill was built in 1871. [1]\n\n{block}", MILL, f"Run this:\n{CODE}\nand wait.")
    assert made.text == f"The mill was built in 1871. [1]\n\n{block}\n[2]" and made.unsupported == ()
    assert made.citations[1].quote == CODE and made.citations[1].document == "d1"
    other = block.replace("return a", "return b")
    for how, shown in (("mark", f"{other.lstrip()}\n[unsupported]"), ("keep", other.lstrip()), ("drop", "")):
        found = checked(other, MILL, CODE, unsupported=how)
        assert (found.text, found.forged) == (shown, 0) and found.unsupported == (CODE.replace("return a", "return b"),)


def test_a_fence_is_closed_by_one_as_long_of_its_own_sign_without_a_word() -> None:
    inner = "run this first\n```\n~~~~~\n````js\nand then that"
    made = checked(f"````text\n{inner}\n`````\nGhosts.", f"So {inner} now.")
    assert made.text == f"````text\n{inner}\n`````\n[1]\nGhosts. [unsupported]" and made.citations[0].quote == inner


def test_an_answer_that_is_fenced_whole_is_checked_as_prose() -> None:
    for fence in ("```", "```markdown"):
        reply = f"{fence}\nThe mill was built in 1871. [1]\nGhosts. [1]\n```\nIt burned down in 1902. [1]"
        assert checked(reply).text == (
            "The mill was built in 1871. [1]\nGhosts. [unsupported]\nIt burned down in 1902. [2]"
        )
        assert checked(reply, unsupported="keep").text.startswith(
            f"{fence}\nThe mill was built in 1871. [1]\nGhosts.\n```"
        )
    assert checked("```python\nThe mill was built in 1871. [1]\n```").citations == ()


def test_an_index_within_code_is_no_reference() -> None:
    made = checked("The mill has `a[1]` and `f(x)[9]` in 1871 `[1]`.", unsupported="keep")
    assert made.text.startswith("The mill has `a[1]` and `f(x)[9]` in 1871") and made.forged == 0
    assert checked("The `mill` [1] was built `in [1]` 1871.").text == "The `mill` was built `in` 1871. [1]"


def test_each_sentence_of_a_segment_is_cited() -> None:
    assert cited_by("The mill was built in 1871. It burned down in 1902.", 1) == (
        "The mill was built in 1871. [1] It burned down in 1902. [1]"
    )
    assert cited_by("1. Dr. Who came.\n---\n1871\n12.", 3) == "1. Dr. Who came. [3]\n---\n1871 [3]\n12. [3]"
    made = checked(cited_by("The mill was built in 1871. It burned down in 1902! Ghosts live there.", 1))
    assert made.unsupported == ("Ghosts live there.",) and len(made.citations) == 2


def test_a_line_of_numbers_or_fences_takes_linear_time() -> None:
    begun = time.process_time()
    for piece in ("1. ", "1. [1] ", "```\n", "~~~\nx\n", "`a[0]` ", "Dr. ", "**"):
        checked(piece * (40_000 // len(piece)))
    assert time.process_time() - begun < 3


PIECES = [
    "The mill was built in 1871.",
    "It burned.",
    " ",
    "\n",
    "[1]",
    "[9]",
    " [1]",
    "1.",
    "2) ",
    "- ",
    "| a | 5 |",
    "|---|",
    "}",
    "  ",
    "**",
    "12",
    "Dr. ",
    "U.S. ",
    "$4,500",
    "...",
    "?",
    "J. R. R. Tolkien",
    "价格。",
    "```\n",
    "x = a[0]",
    "\t",
    "\n\n\n",
    "(",
    "a.m. ",
]


def test_with_keep_no_character_but_references_and_blanks_is_lost() -> None:
    random = Random(7)
    for _ in range(3_000):
        text = "".join(random.choice(PIECES) for _ in range(random.randint(1, 12)))
        made = checked(text, unsupported="keep").text
        plain, kept = ("".join(re.sub(r"\[\d\]", "", each).split()) for each in (text, made))
        assert plain == kept, text


def test_a_passage_is_read_once_for_all_the_claims_that_cite_it(monkeypatch: pytest.MonkeyPatch) -> None:
    passage = " ".join(f"The mill number {n} was built in {1800 + n}." for n in range(50))
    read: list[str] = []
    monkeypatch.setattr(held_words, "placed_words", lambda text: (read.append(text), placed_words(text))[1])
    made = checked(" ".join(f"The mill number {n} was built in {1800 + n}. [1]" for n in range(50)), passage)
    assert made.unsupported == () and len(made.citations) == 50
    assert read.count(passage) == 1 and len(read) == 1 + 50 + 50, "the passage, its sentences and the claims, each once"


def test_the_code_of_a_segment_is_cited_behind_its_fence_alone() -> None:
    passage = "Run it so:\nx = foo(1)\ny = bar(x)\nThe mill burned in 1902."
    text = "Run it so:\n```python\nx = foo(1)\ny = bar(x)\n```\nThe mill burned in 1902."
    cited = cited_by(text, 1)
    assert cited == text.replace("so:", "so: [1]").replace("1902.", "1902. [1]")
    made = checked(cited, passage)
    assert made.text == text.replace("so:", "so: [1]").replace("```\nThe", "```\n[2]\nThe") + " [1]"
    assert made.unsupported == () and made.forged == 0
    assert cited_by("~~~\n1902\n", 1) == "~~~\n1902\n", "a fence that nothing closes goes on to the end"


def test_a_cell_with_references_of_its_own_is_a_claim_and_keeps_its_number() -> None:
    row = "| Built | 1871 [1] | Burned | 1902 [1] |"
    made = checked(row)
    assert made.text == row.replace("1902 [1]", "1902 [2]") and len(made.citations) == 2
    wrong = "| 1871 [1] | ghosts [1] | 1902 [1] | snow, rain |"
    for how, cells in (
        ("mark", "| 1871 [1] | ghosts [unsupported] | 1902 | snow, rain | [unsupported]"),
        ("keep", "| 1871 [1] | ghosts | 1902 | snow, rain |"),
        ("drop", "| 1871 [1] | | | |"),
    ):
        made = checked(wrong, unsupported=how)
        assert made.text.startswith(cells) and made.unsupported == ("| ghosts", "| 1902 | snow, rain |"), how
    assert checked("| 1871 [1] | ghosts [1] | 1902 [1] |", unsupported="drop").text == "| 1871 [1] |  | 1902 [2] |"
    assert checked("| ghosts [1] | rain [1] |", unsupported="drop").text == ""
    assert checked("| The mill | 1871 | [1]").text == "| The mill | 1871 | [1]", "one reference is the row's"
    assert checked("| Built | 1871 [1] [7] |").text == "| Built | 1871 [1] |"
    assert checked("The mill [1] | was built in 1871 [1] |").text.endswith("| [1]"), "no row of a table"
