"""The line under a running evaluation: score so far with its interval, tokens/s, errors, cost."""

from firsthand.model import Usage
from firsthand.show.live_totals import EVERY_S, LiveTotals
from firsthand.trace import Call, Failure, Score, Trace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempt(task: str, score: float | None, *, agent: str = "cot", tokens: int = 30, usd: float = 0.0) -> Trace:
    call = Call("0", "generate", None, 0.0, 1.0, "r", usage=Usage(10, 0, tokens, usd))
    return Trace(
        "i", "sums", task, {"name": agent}, 0, 0, "2026-11-25T00:00:00", 1.0,
        calls=(call,),
        scores=() if score is None else (Score("exact", score),),
        error=Failure("ModelError", "down") if score is None else None,
    )  # fmt: skip


def test_the_line_has_score_interval_speed_errors_and_cost() -> None:
    clock = Clock()
    totals = LiveTotals(clock)
    clock.now += 2
    assert totals.add(attempt("1", 1.0)) == "cot 1.00 [0.21, 1.00], 15 tokens/s"
    clock.now += 1
    assert totals.add(attempt("2", 0.0, usd=0.25)) == "cot 0.50 [0.09, 0.91], 20 tokens/s, $0.25"
    clock.now += 1
    assert totals.add(attempt("3", None)) == "cot 0.33 [0.06, 0.79], 22 tokens/s, 1 error, $0.25"
    clock.now += 1
    assert (
        totals.add(attempt("1", None, agent="react", tokens=0))
        == "react 0.00 [0.00, 0.79], 18 tokens/s, 2 errors, $0.25"
    )


def test_attempts_at_one_task_are_averaged_first() -> None:
    clock = Clock()
    totals = LiveTotals(clock)
    for task, score in (("1", 1.0), ("1", 1.0), ("1", 1.0), ("2", 0.0)):
        clock.now += 1
        line = totals.add(attempt(task, score, tokens=0))
    assert line.startswith("cot 0.50 ") and "tokens/s" not in line, "no speed where nothing was generated"


def test_the_line_is_made_anew_only_now_and_then_and_loses_nothing() -> None:
    clock = Clock()
    totals = LiveTotals(clock)
    first = totals.add(attempt("0", 1.0, tokens=0))
    assert all(totals.add(attempt(f"{n}", 0.0, tokens=0)) == first for n in range(1, 50))
    clock.now += EVERY_S * 1.01
    assert totals.add(attempt("50", 0.0, tokens=0)).startswith("cot 0.02 ")
    clock.now += EVERY_S * 0.99
    assert totals.add(attempt("51", 1.0, tokens=0)).startswith("cot 0.02 ")
