"""Table headings, help, errors and docs use the field's words: no old form is left, and each new one has its line in the
glossary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import firsthand

ROOT = Path(firsthand.__file__).parent
DOCS = Path(__file__).parent.parent / "docs"
OLD = {
    r"\*\*cannot tell\*\*|--cannot-tell|^cannot tell$|verdict.{0,20}cannot tell": "inconclusive",
    r"against (the )?first\b": "vs. baseline",
    r"\bsees$|smallest difference seen": "minimum detectable effect",
    r"\bdearest\b": "most expensive",
    r"\bstairs\b": "Pareto frontier",
    r"keys and values of [\d{]": "KV cache",
    r"\battempts at once\b|at once: attempts": "max concurrent attempts",
    r"\b(all|the) [^.]{0,30}calls are used up": "call budget exhausted",
    r"\d ?\}? % CI|\d % power": "95% CI, 80% power",
    r"too few to tell|blind (to|below)": "underpowered",
    r"map of the house|\bthe house\b": "architecture",
    r"how fast\b.{0,10}$": "performance",
}
"""A regular expression of the old form -> the words in use."""
TERMS = (
    "inconclusive", "baseline", "minimum detectable effect", "Pareto frontier", "KV cache", "max concurrent attempts",
    "call budget", "confidence interval (CI)", "underpowered", "transcript", "reproduce", "power",
)  # fmt: skip


PARTS = (
    "cannot tell", "cannot-tell", "against first", "against the first", "sees", "smallest difference seen", "dearest",
    "stairs", "keys and values of", "attempts at once", "at once: attempts", "calls are used up", "% ci", "% power",
    "too few to tell", "blind to", "blind below", "map of the house", "the house", "how fast",
)  # fmt: skip
"""One of these is in each text with an old form: files without them are not parsed, which would take seconds."""
_JOINT = re.compile(r"""["']\s*[frbFRB]{0,2}["']""")


def may_hold_an_old_form(source: str) -> bool:
    """True if a string of the source, joined where it is written in parts, may have an old form."""
    joined = _JOINT.sub("", source).lower()
    return any(part in joined for part in PARTS)


def texts() -> Iterator[tuple[str, str]]:
    """The strings of the package that may have an old form, and every line of the docs, with its place."""
    for path in sorted(ROOT.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if may_hold_an_old_form(source) else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    for path in (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))):
        if path.name not in ("design.md", "security.md"):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield f"{path.name}:{number}", line


def test_an_old_form_is_nowhere() -> None:
    patterns = {words: re.compile(old, re.IGNORECASE) for old, words in OLD.items()}
    found = [
        f"{place}: {text.strip()[:100]}: write {words!r}"
        for place, text in texts()
        for words, pattern in patterns.items()
        if pattern.search(text)
    ]
    assert found == []


def test_every_old_form_is_looked_for_where_it_may_be() -> None:
    examples = (
        "cannot tell", "against first", "a vs against the first", "the smallest difference seen", "it sees", "dearest",
        "stairs", "keys and values of 2", "attempts at once", "at once: attempts", "all model calls are used up", "95 % CI",
        "80 % power", "too few to tell", "blind to", "blind below", "the house", "how fast it is",
    )  # fmt: skip
    for example in examples:
        assert any(re.search(old, example, re.IGNORECASE) for old in OLD), example
        first, second = example[: len(example) // 2], example[len(example) // 2 :]
        assert may_hold_an_old_form(f'x = ("{first}"\n    f"{second}")'), example
    assert not may_hold_an_old_form('x = "cannot" + y("tell")')


def test_the_glossary_has_one_line_for_each_word() -> None:
    lines = (DOCS / "glossary.md").read_text(encoding="utf-8").splitlines()
    heads = [match[1] for line in lines if (match := re.match(r"- \*\*(.+?)\*\*: \S", line))]
    assert [term for term in TERMS if term not in heads] == []
    assert sorted(heads, key=str.lower) == heads and len(set(heads)) == len(heads)


def test_an_amount_is_not_joined_to_a_plural_where_it_may_be_one() -> None:
    """`{n} tasks` in what is printed: `plurals.count_of` writes both."""
    joined = re.compile(r"\{[^{}]*\}[\"']? (tasks|attempts|agents|clusters|calls)\b(?! (in a row|at a time|each))")
    rooms = ("show", "commands", "stats", "runs", "experiment")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:110]}"
        for room in rooms
        for path in sorted((ROOT / room).rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if joined.search(line)
    ]
    assert [each for each in found if not any(known in each for known in SEVERAL)] == []


SEVERAL = (
    "shared} clusters", "{len(traces)} attempts: name one", "decide with 80% power", "{n} tasks: give one",
    "names {count} attempts", "num_traces} attempts: --limit", "{len(PATTERNS)} agents", "both measured on", "one agent on",
    "num_planned:,} attempts were planned",
)  # fmt: skip
"""What is there only where it is more than one."""
