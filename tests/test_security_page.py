"""The page of attacks, docs/security.md, as a text: what a merge of two branches has left there twice."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "security.md"
MARK = "**Not promised.**"
WORDS = 10
"""A run of so many words that comes twice in one part is a passage that was spliced."""


def parts() -> list[str]:
    """The paragraphs of what is not promised."""
    return [part for part in PAGE.read_text(encoding="utf-8").split("\n\n") if part.lstrip().startswith(MARK)]


def test_what_is_not_promised_is_said_once_in_each_section() -> None:
    assert len(parts()) > 20
    for part in parts():
        assert part.count(MARK) == 1, part[:200]
        words = part.split()
        runs = [" ".join(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)]
        assert not (twice := [run for run in runs if runs.count(run) > 1]), twice[0]


def test_no_part_of_what_is_not_promised_ends_within_a_sentence() -> None:
    for part in parts():
        assert part.rstrip().endswith((".", ".)")), part[-100:]
