"""The report is one safe, bounded file that shows the boards, the picture and some conversations."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import combinations

import pytest

from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.show.board import leaderboard
from firsthand.show.html_page import visible
from firsthand.show.html_report import MAX_ATTEMPTS, report_html, turns
from firsthand.show.scatter import HEIGHT, LINE, WIDTH, Rectangle, scatter
from firsthand.trace import Failure, Node, Score
from test_leaderboard import attempt, two_agents

HOSTILE = (
    "</textarea></style></title>]]><script>alert(1)</script><img src=x onerror=alert(1)>\u202etxet\x00\x1b[31m\ud800"
)
VOID = {"meta", "line", "circle", "path", "br"}


class Tags(HTMLParser):
    """Which elements there are, with which attributes, and whether they nest."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.open = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def talk(*messages, parents=None):
    parents = parents or [None, *range(len(messages) - 1)]
    return tuple(Node(parent, message) for parent, message in zip(parents, messages, strict=True))


def report(traces, **changes):
    settings = {"title": "sums with smollm2", "command": "firsthand run sums --seed 0", "machine": {"cpu": "2 cores"},
                "run_path": "runs/a b", **changes}  # fmt: skip
    return report_html(leaderboard(traces), traces=iter(traces), **settings)


def test_the_report_shows_the_boards_the_picture_and_how_to_repeat_it():
    html = report(two_agents())
    for shown in ("cot: better than direct by 0.45", "▲ better", "[0.60, 0.86]", "tokens per task", "firsthand run sums",
                  "firsthand show &#39;runs/a b&#39; TRACE", "<desc", "2 cores", "18 won, 0 lost, 22 same"):  # fmt: skip
        assert shown in html
    assert Tags(html).open == []


def test_the_file_asks_for_nothing_and_runs_nothing():
    html = report(two_agents())
    tags = Tags(html)
    assert not tags.names & {"script", "img", "link", "iframe", "object", "form", "a", "base", "foreignobject"}
    assert not {name for name in tags.attributes if name.startswith("on")} | tags.attributes & {"src", "href", "style"}
    assert "default-src 'none'" in html and "unsafe" not in html and "url(" not in html and "://" not in html


def test_the_policy_allows_exactly_the_style_that_is_there():
    import base64
    import hashlib

    html = report(two_agents())
    style = re.search(r"<style>(.*?)</style>", html, re.S).group(1)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in html


def test_hostile_text_stays_text_wherever_it_comes_from():
    call = ToolCall(HOSTILE, HOSTILE, {HOSTILE: HOSTILE})
    nodes = talk(system(HOSTILE), user(HOSTILE), assistant(HOSTILE, call),
                 Message("tool", (ToolResult("1", HOSTILE, HOSTILE),)))  # fmt: skip
    traces = [
        attempt(HOSTILE, HOSTILE, 1.0, benchmark=HOSTILE, nodes=nodes, answer=HOSTILE, extra=(Score(HOSTILE, 1.0),)),
        attempt("b" + HOSTILE, HOSTILE, 0.0, benchmark=HOSTILE, nodes=nodes, error=Failure(HOSTILE, HOSTILE),
                stop_reason="error"),
    ]  # fmt: skip
    html = report(traces, title=HOSTILE, command=HOSTILE, machine={HOSTILE: HOSTILE}, run_path=HOSTILE)
    tags = Tags(html)
    assert not tags.names & {"script", "img", "textarea"} and tags.open == []
    assert "onerror" not in tags.attributes
    assert html.encode("utf-8") and not set(html) & {"\u202e", "\x00", "\x1b"}
    assert r"\u202etxet\u0000\u001b[31m\ud800" in html


def test_huge_runs_are_bounded_and_the_report_says_what_is_left_out():
    words = "<&" * 1_000_000
    huge = talk(*(user(words) for _ in range(500)))
    traces = [attempt(f"agent{i % 40}", i, float(i % 2), nodes=huge, answer=words) for i in range(1500)]
    html = report(traces)
    assert len(html) < 12_000_000
    assert "The first 600 of 1,500" in html and MAX_ATTEMPTS == 600
    assert "more characters" in html and "more messages are left out" in html


def test_a_shared_prefix_is_shown_once_and_branches_are_named():
    nodes = talk(user("question"), assistant("one"), assistant("two"), user("after two"), parents=[None, 0, 0, 2])
    shown, left_out = turns(attempt("a", 0, 1.0, nodes=nodes))
    assert [turn.text for turn in shown] == ["question", "one", "two", "after two"] and left_out == 0
    assert [turn.fork for turn in shown] == ["", "branch 1 of 2", "branch 2 of 2", ""]
    assert [turn.depth for turn in shown] == [0, 1, 1, 1]


def test_labels_do_not_collide_and_stay_inside():
    traces = [
        attempt(f"pattern{k}", i, float(i < 20 + k // 2), tokens=(100 + 3 * k, 20)) for k in range(9) for i in range(40)
    ]
    picture = scatter(leaderboard(traces)[0])
    boxes = [Rectangle(p.label_x, p.label_y - LINE + 4, 7.2 * len(p.name) + 4, LINE) for p in picture.points]
    assert all(one.overlap(two) == 0 for one, two in combinations(boxes, 2))
    assert all(box.x > 0 and box.x + box.width < WIDTH and box.y > 0 and box.y + box.height < HEIGHT for box in boxes)


def test_the_cost_axis_is_logarithmic_only_when_it_spans_more_than_tenfold():
    near = scatter(leaderboard(two_agents())[0])
    far = scatter(leaderboard([*two_agents(), attempt("tot", 0, 1.0, tokens=(9000, 9000))])[0])
    assert not near.log and far.log and near.x_ticks[0].text == "0"
    assert [tick.text for tick in far.x_ticks][:2] == ["100", "200"]
    assert near.points[0].y < near.points[1].y, "the better score lies higher"


@pytest.mark.parametrize("tokens", [(0, 0), (100, 0)])
def test_odd_scores_and_costs_still_give_a_picture(tokens):
    html = report([attempt("judge", i, 7.0 + i % 2, tokens=tokens) for i in range(4)] + [attempt("one", 0, 9.0)])
    assert "nan" not in html.lower().replace("finance", "") and "inf" not in re.findall(r'[xyd]\d?="([^"]*)"', html)
    assert "Nothing was scored" in report([attempt("a", 0, None)]) and report([])


def test_what_steers_a_reader_is_written_out():
    assert visible("a\tb\nc\u2066\x9b") == "a\tb\nc\\u2066\\u009b"
