"""The thoughts, boards and verdicts of the game of 24 and of mini crosswords."""

from typing import Any

import pytest

from firsthand.benchmarks.crosswords import (
    CrosswordThoughts,
    best_letters,
    best_words,
    board_in,
    board_of,
    game,
    letters,
    place,
    share_of_letters,
    share_of_words,
    words,
    words_of,
)
from firsthand.benchmarks.game24 import Game24Thoughts, is_solution, numbers_left, solved_by_any
from firsthand.task import Task
from firsthand.trace import Event, Trace


def attempt(answer: str | None = None, task: str = "t", **more: Any) -> Trace:
    return Trace("id", "b", task, {"name": "a"}, 0, 0, "", 0.0, answer=answer, **more)


def test_the_thoughts_of_the_game_of_24_ask_value_and_answer():
    thoughts = Game24Thoughts("4 6 8 8")
    step = "8 - 6 = 2 (left: 2 4 8)\n"
    assert numbers_left(step) == "2 4 8" and numbers_left("4 6 8 8") == "4 6 8 8"
    assert "2 4 8" in thoughts.propose(step).prompt and "4 6 8 8" in thoughts.propose("").prompt
    assert thoughts.propose("x (left: 24)\n").prompt.endswith("Steps:x (left: 24)\n")
    assert thoughts.proposed(step, ["a\n\nb", "c"]) == [f"{step}a\n", f"{step}b\n", f"{step}c\n"]
    assert thoughts.sampled(step, " a \n") == f"{step}a\n" and thoughts.sample(step).stop == ("\n",)
    four = step * 4
    assert thoughts.value(four) == () and len(thoughts.value(step * 3)) == 1
    assert "(8 - 6) = 24" in thoughts.value(f"{step * 3}Answer: (8 - 6) = 24\n")[0].prompt
    assert thoughts.valued("", [["It is\nsure", "likely"], ["impossible", "sure"]]) == pytest.approx(41.001)
    assert (
        thoughts.is_done("Answer: 1")
        and not thoughts.is_done(step)
        and thoughts.answer(f"{step}Answer: 1 + 2\n") == "1 + 2"
    )
    assert is_solution("x\nAnswer: (4 + 8) * (8 - 6) = 24", "4 6 8 8") and not is_solution(
        "(4 + 8) * (8 - 6) = 24\nno", "4 6 8 8"
    )
    assert not is_solution("", "4 6 8 8") and not is_solution("(4 + 8) * 2", "4 6 8 8")
    task = Task("t", "x", secret={"numbers": "4 6 8 8"})
    found = [Event("branch", 0.0, {"status": status, "answer": "(4 + 8) * (8 - 6)"}) for status in ("done", "open")]
    assert solved_by_any(task, attempt("no", events=tuple(found[:1]))).value == 1
    assert solved_by_any(task, attempt("no", events=tuple(found[1:]))).value == 0


def test_a_crossword_counts_words_letters_and_the_best_board_seen():
    truth, half = "ABCDEFGHIJKLMNOPQRSTUVWXY", "ABCDE" + "_" * 20
    assert words_of(truth)[1] == "FGHIJ" and words_of(truth)[6] == "BGLQV"
    assert share_of_words(half, truth) == 0.1 and share_of_letters(half, truth) == 0.2
    rows = "\n".join(" ".join(truth[5 * n : 5 * n + 5].lower()) for n in range(5))
    assert board_in(f"a b c d e\nnoise\n{rows}\nend") == truth and board_in("a b c d e") == half
    task = Task("t", "x", secret={"board": truth})
    assert [score(task, attempt(rows)).value for score in (words, letters, game)] == [1.0, 1.0, 1.0]
    assert [score(task, attempt(None)).value for score in (words, letters, game)] == [0.0, 0.0, 0.0]
    events = (
        Event("branch", 0.0, {"answer": rows}),
        Event("branch", 0.0, {"status": "x"}),
        Event("other", 0.0, {"answer": rows}),
    )
    assert best_words(task, attempt("a b c d e", events=events)).value == 1.0
    assert best_letters(task, attempt("a b c d e", events=events[1:])).value == 0.2
    assert (
        place("_" * 25, "v2. motor") == "_M____O____T____O____R___"
        and board_of("h1. abcde\nv1. afkpu\n")[:6] == "ABCDEF"
    )
    clues = tuple(f"clue {n}" for n in range(10))
    thoughts = CrosswordThoughts(clues)
    replies = ["h1. ABCDE (low)\nv1. afkpu (certain)\nh2. zzzzz (high)\nx", "h1. abcde (certain)\nv9. abcde (low)"]
    assert thoughts.proposed("", replies) == ["h1. abcde\n", "v1. afkpu\n", "h2. zzzzz\n"]
    assert thoughts.proposed("v1. afkpu\n", replies) == ["v1. afkpu\nh1. abcde\n", "v1. afkpu\nv1. afkpu\n"]
    assert thoughts.sampled("v1. afkpu\n", "h2. zzzzz (high)") == "v1. afkpu\n"
    asked = thoughts.value("h1. abcde\nh2. fghij\n")
    assert len(asked) == 7 and "clue 0: a b c d e" in asked[0].prompt and "clue 5: a f _ _ _" in asked[2].prompt
    assert thoughts.valued("", [["sure", "maybe"], ["impossible", "hm"]]) == 1.0 + 0.5 - 20.0
    shown = thoughts.shown("h1. abcde\n")
    assert shown.startswith("Current Board:\nABCDE\n_____\n") and "Filled:\nh1. clue 0: ABCDE\n\nChanged:" in shown
    assert "\nUnfilled:\nh2. clue 1: _____\n" in shown and "v1. clue 5: A____\n" in shown
    assert thoughts.propose("").samples == 8 and not thoughts.is_done("h1. abcde\n")
    full = "".join(f"h{n + 1}. {truth[5 * n : 5 * n + 5].lower()}\n" for n in range(5))
    assert thoughts.is_done(full) and thoughts.answer(full).split("\n")[4] == "U V W X Y"
