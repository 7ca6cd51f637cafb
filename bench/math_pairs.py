"""Counts wrong verdicts on the pairs of tests/data/math_pairs.toml: ours, and math-verify's where it is installed.

pip install math-verify && python bench/math_pairs.py [--show]
"""

from __future__ import annotations

import importlib
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from firsthand.scorers.symbolic import same_answer

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "math_pairs.toml"


def math_verify() -> Callable[[str, str], bool] | None:
    """Return math-verify's verdict on two answers in LaTeX; None if it is not installed."""
    try:
        package = importlib.import_module("math_verify")
    except ImportError:
        return None

    def verdict(answer: str, reference: str) -> bool:
        # Its documented use: the reference as LaTeX between dollars, the answer as a box.
        gold = package.parse(f"${reference}$" if "$" not in reference else reference)
        return bool(package.verify(gold, package.parse(f"\\boxed{{{answer}}}")))

    return verdict


def main() -> None:
    """Print a row per program."""
    programs: dict[str, Callable[[str, str], bool] | None] = {"firsthand": same_answer, "math-verify": math_verify()}
    topics = tomllib.loads(PAIRS.read_text())
    pairs = [
        (topic, kind == "same", *pair) for topic, kinds in topics.items() for kind in kinds for pair in kinds[kind]
    ]
    right = sum(same for _, same, _, _ in pairs)
    print(f"{len(pairs)} pairs, {right} right answers, {len(pairs) - right} wrong ones")
    for name, verdict in programs.items():
        if verdict is None:
            print(f"{name}: not installed")
            continue
        began = time.perf_counter()
        wrong = [(*pair,) for pair in pairs if bool(verdict(pair[2], pair[3])) != pair[1]]
        rejects = sum(same for _, same, _, _ in wrong)
        spent = time.perf_counter() - began
        print(f"{name}: {rejects} right answers rejected, {len(wrong) - rejects} wrong ones accepted, {spent:.1f} s")
        for topic, same, answer, reference in wrong if "--show" in sys.argv else []:
            print(f"  {topic}: {answer!r} for {reference!r} {'rejected' if same else 'accepted'}")


if __name__ == "__main__":
    main()
