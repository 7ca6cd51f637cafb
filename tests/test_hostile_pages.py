"""The HTML pages, read as a browser reads them: hostile text adds no element and no attribute, and stays readable."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pytest

from firsthand.message import Message, Text, ToolCall, ToolResult, assistant, system, user
from firsthand.show import answer_diff
from firsthand.show.answer_diff import DiffSide, PairBudget, Sample, page, word_difference
from firsthand.show.html_page import visible
from firsthand.trace import Event, Failure, Score
from test_leaderboard import attempt
from test_report import report, talk

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "x onfocus=alert(1) autofocus tabindex=0 ",
    "</script></style></title></textarea></pre></svg></details><script>alert(1)//",
    "<svg><style>*{background:url(//x)}</style><animate onbegin=alert(1)>",
    "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
    "<!--><iframe srcdoc='<script>alert(1)</script>'>--!><![CDATA[x]]>",
    "javascript:alert(1)//<a href=javascript:alert(1)>",
    "</style><style>@import url(//x);*{color:red}</style><base href=//x><meta http-equiv=refresh content=0>",
    "<plaintext><xmp><noscript><template><form action=//x><input name=a>",
    "{{ 7*7 }}{% for x in () %}{{ self.__init__.__globals__ }}{# #}",
    "&lt;b&gt;&amp;lt;&#60;&notit;&#x3c;script",
    "\u202ea\u2066b\u200f\u200b\u2060\u00ad\ufeff\U000e0041\u2028\x85\x00\x1b]52;c;x\x07\x9b\x7f\ud800\ufffe\ufdd0\U0001ffff",
]


def tree(html: str) -> Element:
    """The page by the HTML standard's own algorithm; what that calls an error is one."""
    parser: Any = html5lib.HTMLParser(html5lib.getTreeBuilder("etree"), strict=True, namespaceHTMLElements=False)
    parsed: Element = parser.parse(html)
    return parsed


def shape(html: str) -> list[tuple[str, tuple[str, ...]]]:
    """Every element in order, with the names of its attributes."""
    return [(str(each.tag), tuple(sorted(each.attrib))) for each in tree(html).iter()]


def texts(html: str) -> str:
    """All text and all values of attributes, as a reader or a program gets them."""
    return "\n".join("\n".join([each.text or "", each.tail or "", *each.attrib.values()]) for each in tree(html).iter())


def hostile_report(text: str) -> str:
    call = ToolCall(text, text, {text: text})
    broken = ToolCall(text, text, {}, text)
    result = Message("tool", (ToolResult("1", text, text, True),))
    foreign = Message(text, (Text(text),))  # type: ignore[arg-type]  # a stored trace may hold any role
    nodes = talk(system(text), user(text), assistant(text, call, broken), result, foreign, assistant("2"), assistant("3"),
                 parents=[None, 0, 1, 2, 3, 4, 4])  # fmt: skip
    events = tuple(Event("branch", 0.1, {"name": text, "at": at, "status": text, "text": text}) for at in (5, 6))
    extra = (Score(text, 1.0, {"why": text}), Score("f" + text, 0.0, {"scorer_failed": text}))
    traces = [
        attempt(name + text, text + str(task), task % 2.0, benchmark=text, nodes=nodes, answer=text, extra=extra, **more)
        for name in ("a", "b")
        for task, more in enumerate([{}, {"events": events}, {"stop_reason": text},
                                     {"error": Failure(text, text), "stop_reason": "error"}])
    ]  # fmt: skip
    return report(traces, title=text, command=text, machine={text: {text: text}}, run_path=text)


def hostile_diff(text: str) -> str:
    a, b = DiffSide(text, text, text + " a", text, text), DiffSide(text, text, "b " + text, text, text)
    samples = [Sample(text, text, 0, text, "worse", a, b), Sample(text, text, 1, text, "better", b, a)]
    return page(text, samples, [(text, 1), ("worse", 1)])


@pytest.mark.slow
@pytest.mark.parametrize("write", [hostile_report, hostile_diff])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_adds_no_element_and_no_attribute(write: Any, text: str) -> None:
    html = write(text)
    html.encode("utf-8")
    if write is hostile_report:
        assert shape(html) == shape(write("x" * len(text)))
    else:  # words that differ are elements of their own
        assert set(shape(html)) == set(shape(write("x")))
    assert visible(text) in texts(html)
    assert not [char for char in html if not char.isprintable() and char not in "\n\t"]
    assert html.index("Content-Security-Policy") < html.index("<title>"), "the policy comes before any text of others"


def test_the_only_script_is_ours_and_makes_no_element_of_a_text() -> None:
    script = (Path(answer_diff.__file__).parent / "report.js").read_text(encoding="utf-8")
    assert not re.search(
        r"HTML|eval|Function|document\.write|location|fetch|XMLHttp|import|createElement|setTimeout", script
    )
    html = hostile_report(HOSTILE[0])
    assert [each.text for each in tree(html).iter("script")] == [script]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in html and "unsafe" not in html.split("<title>")[0]
    assert not list(tree(hostile_diff(HOSTILE[0])).iter("script"))


def test_what_hides_is_written_out_and_what_scripts_need_stays() -> None:
    assert visible("a\U000e0041b\u00ad\u200b\ufffe\r") == r"a\U000e0041b\u00ad\u200b\ufffe\u000d"
    kept = "नमस्ते क्\u200dष 👩\u200d💻 می\u200cخواهم \u3000\u00a0\n\tok"
    assert visible(kept) == kept


@pytest.mark.slow
def test_answers_made_to_slow_the_comparison_are_compared_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = "a " * 1000, "b a " * 500
    looked: list[int] = []

    class Counted(answer_diff.BoundedMatcher):
        def find_longest_match(self, *place: Any) -> Any:
            looked.append(self._left)
            return super().find_longest_match(*place)

    monkeypatch.setattr(answer_diff, "MAX_WORD_PAIRS", 4_000_000)
    monkeypatch.setattr(answer_diff, "BoundedMatcher", Counted)
    pieces = word_difference(a, b, PairBudget())
    assert sum(left > 0 for left in looked) < 40, "unbounded, 500 searches find something"
    for side, text in (("added", a), ("removed", b)):
        assert "".join(piece.text for piece in pieces if piece.kind not in (side, "note")) == text


def test_all_samples_of_a_page_share_the_pairs_of_their_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_diff, "MAX_WORD_PAIRS", 100_000)
    monkeypatch.setattr(answer_diff, "MAX_PAGE_PAIRS", 250_000)
    monkeypatch.setattr(answer_diff, "MIN_WORD_PAIRS", 1_000)
    looked: list[int] = []

    class Counted(answer_diff.BoundedMatcher):
        def get_opcodes(self) -> Any:
            before, found = self.left, super().get_opcodes()
            looked.append(before - self.left)
            return found

    monkeypatch.setattr(answer_diff, "BoundedMatcher", Counted)

    def shown(a: str, b: str) -> Sample:
        return Sample("b", "t", 0, "?", "worse", DiffSide("a", "1", a, ""), DiffSide("b", "0", b, ""))

    html = page("t", [shown("a " * 200, "b a " * 100)] * 6 + [shown("It is 41.", "It is 42.")], [])
    assert html.count("too long to be compared to the end") == 6
    assert looked[:-1] == [100_000, 100_000, 50_000, 1_000, 1_000, 1_000]
    assert "It is <del>41</del>." in html and "It is <ins>42</ins>." in html, (
        "short answers are compared whatever is left"
    )
