"""Readers of what models and strangers write take time in the length of the text; quadratic ones held every attempt up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from firsthand.arena.vote_files import style_count
from firsthand.memories.keeping.fenced_items import LEAD, origins_of
from firsthand.message import user
from firsthand.patterns.parts.hand_overs import hand_over
from firsthand.scorers.concerns.refusal_rule import _GOES_ON
from firsthand.worlds.database.database_world import _SQL
from firsthand.worlds.database.mysql_dialect import for_sqlite
from firsthand.worlds.json_calls import unfenced
from firsthand.worlds.knowledge.graph_world import _CALL, _FINAL
from firsthand.worlds.knowledge.triples import _triple
from firsthand.worlds.shell.shell_world import _CODE

LONG = 400_000
NAMED = 'untrusted from="memory '
HOSTILE: dict[str, tuple[Callable[[str], object], str, str]] = {
    "a shell block of spaces": (_CODE.findall, "```\n", " "),
    "a statement of line ends": (_SQL.search, "```sql\n", "\n"),
    "an open text in SQL": (for_sqlite, "SELECT '", "\\'"),
    "texts in SQL that end in a backslash": (for_sqlite, "SELECT '\\", "'\\"),
    "an open text in double quotes": (for_sqlite, 'SELECT "', '\\"'),
    "texts in double quotes that end in a backslash": (for_sqlite, 'SELECT "\\', '"\\'),
    "a fence of spaces": (unfenced, "```json", " "),
    "a call of spaces": (_CALL.fullmatch, "f(", " "),
    "a final answer of spaces": (_FINAL.fullmatch, "final answer", " "),
    "a triple of spaces": (_triple, "a b x", " "),
    "origins without an end": (lambda text: origins_of([user(text)]), f"{LEAD}\n{NAMED}", "origin: "),
    "a hand-over after line ends": (lambda text: hand_over(text, ["a", "b"]), "I think", "\n"),
    "a hand-over to line ends": (lambda text: hand_over(text, ["a", "b"]), "Hand over to", "\n"),
    "many hand-overs": (lambda text: hand_over(text, ["a", "b"]), "", "so I, hand over to the \n"),
    "leads of a hand-over": (lambda text: hand_over(text, ["a", "b"]), "", "so, and "),
    "a refusal of line ends": (_GOES_ON.search, "", "\n"),
    "a vote of line ends": (lambda text: style_count(text, "lists"), "", "\n"),
}


@pytest.mark.timeout(30)  # each took minutes to years
@pytest.mark.parametrize("name", HOSTILE)
def test_a_long_text_of_one_kind_is_read(name: str) -> None:
    read, start, pump = HOSTILE[name]
    read(start + pump * (LONG // len(pump)) + "x")


def test_what_is_around_a_block_or_a_call_is_left_out() -> None:
    assert (
        unfenced(' ```json\n {"a": 1} \n``` ') == '{"a": 1}'
        and unfenced("``````") == ""
        and unfenced("`````") == "`````"
    )
    assert unfenced("```json```") == "" and unfenced("```json x") == "```json x"
    assert for_sqlite("SELECT 'it\\'s' -- x") == "SELECT 'it''s'  " and for_sqlite("SELECT 'open") == "SELECT 'open"
    text = f'{LEAD}\n{NAMED}1; origin: a.org, b.org" x{NAMED}2; origin: " {NAMED}3"'
    assert origins_of([user(text)]) == ["a.org", "b.org"]
    assert style_count("- a\n\n\n  * b\n12) c\n-d\n 3. e", "lists") == 4


def test_a_triple_ends_with_or_without_a_full_stop() -> None:
    for line in ("<a> <b> <c> .", "<a> <b> <c>.", "<a>  <b>\t<c>"):
        found = _triple(line)
        assert found is not None and (found.subject, found.relation, found.object) == ("a", "b", "c")
    assert _triple("a b .") is not None and _triple("a b c d") is None and _triple("a b") is None
