"""Makes small wrong changes one at a time, runs the tests that reach them, and prints which of them live.

    python bench/tests_reached.py /tmp/reached.json                                  # once: which tests run which lines
    python bench/mutants.py --reached /tmp/reached.json --room boards --lines 20 --seed 1
    python bench/mutants.py --reached /tmp/reached.json --only boards/aggregates.py:41        # all changes of one line
    python bench/mutants.py --reached /tmp/reached.json --list my_changes.toml                # changes that people wrote
    python bench/mutants.py --list bench/planted.toml                                          # with their tests
    python bench/mutants.py --reached /tmp/reached.json --lines 5 --out fates.jsonl            # every room

Changes are drawn from all lines of a room that compute something (`wrong_changes.py`), or read from a list: tables
`[[change]]` of TOML with `file` (below src/firsthand), `old` (text that occurs once), `new` and, if wanted, `wrong` (what a
user would see) and `tests` (files below tests/, or node ids). The tests are those of the default suite that run the line,
the most special first, up to --budget-s seconds of them; a line that none runs is tried against the test files that name
it, slow tests too. A test that notices a change must pass without it. A change whose tests do not end in time is counted as
`no end`, and not as caught. The exit status is 1 if one lives.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from forked_tests import Checkout, Edit, Fate
from tests_reached import Found, Reached
from wrong_changes import PACKAGE, Change, lines_of

BY_NAME = 8
"""Tests and test files taken by name for a line that no default test is known to run."""
COMPILED_CPU_S = 240.0
"""Processor time for a change of a kernel, whose callers are all compiled again."""


class Asked(NamedTuple):
    """A change to try, what a user would see, and the tests that should notice it (none: those that reach it)."""

    change: Change
    wrong: str = ""
    tests: Sequence[str] = ()


def main() -> int:
    """Draw and try changes; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reached", type=Path, help="what tests_reached.py has measured")
    parser.add_argument("--room", action="append", default=[], help="a folder below src/firsthand; repeatable")
    parser.add_argument("--lines", type=int, default=20, help="lines drawn from each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="FILE:LINE, instead of drawn lines; repeatable")
    parser.add_argument("--list", type=Path, action="append", default=[], help="changes to try; repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="changes tried at a time, each in a copy of its own")
    parser.add_argument("--budget-s", type=float, default=60.0, help="at most so much of tests for each change")
    parser.add_argument("--tests", type=int, default=250, help="at most so many tests for each change")
    parser.add_argument("--out", type=Path, help="a file that gets a line of JSON for each change")
    parser.add_argument("--show", action="store_true", help="print the changes and their first tests; run none")
    args = parser.parse_args()
    if unknown := set(args.room) - set(rooms()):
        parser.error(f"there is no room {min(unknown)!r}: they are {', '.join(rooms())}")
    wanted = [each for path in args.list for each in listed(path)]
    if not args.list:
        wanted = [Asked(each) for each in drawn(args.room or rooms(), args.lines, args.seed, args.only)]
    elif args.room:
        wanted = [each for each in wanted if each.change.file.split("/")[0] in args.room]
    if not args.reached and not all(each.tests for each in wanted):
        parser.error("give --reached FILE, which tests_reached.py writes, for changes without tests of their own")
    reached = Reached(args.reached) if args.reached else None

    def near(asked: Asked) -> Found:
        change = asked.change
        if asked.tests or reached is None:
            return Found(list(asked.tests), True)
        last = change.line + change.old.rstrip("\n").count("\n")
        found = reached.near(change.file, change.line, last, budget_s=args.budget_s, most=args.tests)
        if found.seen:
            return found
        return Found([*reached.by_name(change.file, change.line, most=BY_NAME), *found.tests], False)

    if args.show:
        for asked in wanted:
            print(described(asked.change), *near(asked).tests[:4], sep="  ")
        return 0
    checkouts: Queue[Checkout] = Queue()
    for _ in range(args.jobs):
        checkouts.put(Checkout())

    def tried(asked: Asked) -> tuple[Asked, Fate]:
        tests, seen = near(asked)
        compiled = asked.change.file.startswith("kernels/")
        cpu_s = COMPILED_CPU_S if compiled else 40.0 + args.budget_s
        edit = Edit(asked.change.file, asked.change.begin, asked.change.end, asked.change.new)
        checkout = checkouts.get()
        try:
            slow = bool(asked.tests) or not seen
            return asked, checkout.fate(edit, tests, cpu_s=cpu_s, in_place=seen and not compiled, slow=slow)
        finally:
            checkouts.put(checkout)

    fates: dict[str, Counter[str]] = defaultdict(Counter)
    with ThreadPoolExecutor(args.jobs) as pool:
        for done in as_completed([pool.submit(tried, each) for each in wanted]):
            asked, fate = done.result()
            fates[asked.change.file.split("/")[0]][fate] += 1
            print(
                f"{fate:<15} {described(asked.change)}", *([asked.wrong] if asked.wrong else []), sep="  ", flush=True
            )
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({**asked.change._asdict(), "fate": fate, "wrong": asked.wrong}) + "\n")
    while not checkouts.empty():
        checkouts.get().close()
    print_rooms(fates)
    return int(any(counts["caught"] < counts.total() for counts in fates.values()))


def rooms() -> list[str]:
    """Every room, by name."""
    return sorted(path.name for path in PACKAGE.iterdir() if any(path.glob("*.py")))


def drawn(rooms: Iterable[str], lines: int, seed: int, only: list[str]) -> Iterator[Change]:
    """One possible change of each of so many lines of each room, or every change of the given lines."""
    for room in sorted({each.split("/")[0] for each in only}) if only else rooms:
        by_line = lines_of(room)
        if only:
            yield from (each for (file, line), some in by_line.items() if f"{file}:{line}" in only for each in some)
            continue
        chance = random.Random(f"{seed} {room}")
        for place in chance.sample(sorted(by_line), min(lines, len(by_line))):
            yield chance.choice(by_line[place])


def listed(path: Path) -> Iterator[Asked]:
    """The changes of a list; one that names no text, or text that occurs twice, ends all."""
    try:
        changes = tomllib.loads(path.read_text(encoding="utf-8"))["change"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{path} is no list of changes ({error}): give TOML with tables [[change]]")
    for each in changes:
        if missing := {"file", "old", "new"} - each.keys():
            sys.exit(f"{path}: a change has no {' and no '.join(sorted(missing))}")
        if not (PACKAGE / each["file"]).is_file():
            sys.exit(f"{path}: there is no {each['file']!r} below {PACKAGE}")
        source = (PACKAGE / each["file"]).read_bytes()
        if (times := source.count(each["old"].encode())) != 1:
            sys.exit(f"{path}: {each['file']} has {times} times {each['old']!r}: give a text that occurs once")
        change = narrowed(each["file"], source, each["old"], each["new"])
        yield Asked(change, each.get("wrong", ""), [f"tests/{name}" for name in each.get("tests", [])])


def narrowed(file: str, source: bytes, old: str, new: str) -> Change:
    """The change of one text into another, without the whole lines at its begin and end that stay."""
    was, now = old.splitlines(keepends=True), new.splitlines(keepends=True)
    begin = source.index(old.encode())
    while len(was) > 1 and now and was[0] == now[0]:
        begin += len(was[0].encode())
        del was[0], now[0]
    while len(was) > 1 and now and was[-1] == now[-1]:
        del was[-1], now[-1]
    old, new = "".join(was), "".join(now)
    return Change(file, source[:begin].count(b"\n") + 1, begin, begin + len(old.encode()), old, new)


def described(change: Change) -> str:
    """A change on one line."""
    return f"{change.file}:{change.line}: {shown(change.old)}  ->  {shown(change.new)}"


def shown(text: str) -> str:
    """A text on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:67]}..."


def print_rooms(fates: dict[str, Counter[str]]) -> None:
    """The share caught of each room and of all."""
    print()
    for room, counts in [*sorted(fates.items()), ("all", sum(fates.values(), Counter[str]()))]:
        others = [f"{count} {fate}" for fate, count in sorted(counts.items()) if fate not in ("caught", "lives")]
        print(f"{room:<14} {counts['caught']} of {counts.total()} caught", *others, sep=", ")


if __name__ == "__main__":
    sys.exit(main())
