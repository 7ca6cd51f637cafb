"""The report is one safe, bounded file that shows the boards, the picture and some conversations."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from itertools import combinations

import pytest

from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.show.board import leaderboard
from firsthand.show.html_page import visible
from firsthand.show.html_report import MAX_ATTEMPTS, report_html, turns
from firsthand.show.scatter import BOTTOM, HEIGHT, LEFT, LINE, RIGHT, TOP, WIDTH, Rectangle, scatter
from firsthand.task import Task
from firsthand.trace import Failure, Node, Score
from test_leaderboard import attempt, two_agents

HOSTILE = (
    "</textarea></style></title>]]><script>alert(1)</script><img src=x onerror=alert(1)>\u202etxet\x00\x1b[31m\ud800"
)
VOID = {"meta", "line", "circle", "path", "br", "input"}


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


def test_the_file_asks_for_nothing_and_runs_only_its_own_script():
    html = report(two_agents())
    tags = Tags(html)
    assert html.count("<script") == 1
    assert not tags.names & {"img", "link", "iframe", "object", "form", "a", "base", "foreignobject"}
    assert not {name for name in tags.attributes if name.startswith("on")} | tags.attributes & {"src", "href", "style"}
    assert "default-src 'none'" in html and "unsafe" not in html and "url(" not in html and "://" not in html


def test_the_policy_allows_exactly_the_style_and_the_script_that_are_there():
    import base64
    import hashlib

    html = report(two_agents())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1)
    for what in ("style", "script"):
        text = re.search(rf"<{what}>(.*?)</{what}>", html, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"; {what}-src 'sha256-{digest}'" in policy


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
    assert not tags.names & {"img", "textarea"} and html.count("<script") == 1 and tags.open == []
    assert "onerror" not in tags.attributes
    assert html.encode("utf-8") and not set(html) & {"\u202e", "\x00", "\x1b"}
    assert r"\u202etxet\u0000\u001b[31m\ud800" in html


@pytest.mark.slow
def test_huge_runs_are_bounded_and_the_report_says_what_is_left_out():
    words = "<&" * 1_000_000
    huge = talk(*(user(words) for _ in range(500)))
    traces = [attempt(f"agent{i % 40}", i, float(i % 2), nodes=huge, answer=words) for i in range(1500)]
    html = report(traces)
    assert len(html) < 14_000_000
    assert "600 of 1,500: the first ones" in html and MAX_ATTEMPTS == 600
    assert "more characters" in html and "more messages are left out" in html
    assert html.count("No transcript here") > 400


def test_each_sample_has_question_expected_answer_and_transcript():
    task = Task("t1", "What is 6 * 7?", secret={"answer": "42"})
    traces = [attempt("cot", "t1", 0.0, nodes=talk(user("What is 6 * 7?"), assistant("It is 41.")), answer="41")]
    html = report(traces, task=lambda benchmark, task_id: task if task_id == "t1" else None)
    (row,) = re.findall(r"<details class=\"row.*?</details>", html, re.S)
    for shown in (
        "<dt>question</dt><dd><bdi>What is 6 * 7?",
        "<dt>expected</dt><dd><bdi>42",
        "It is 41.",
        'data-expected="42"',
    ):
        assert shown in row
    assert 'class="row wrong"' in row and 'data-score="0.0"' in row
    protected = Task("t1", "What is 6 * 7?", secret={"answer": "42"}, metadata={"protected": "its authors ask so"})
    assert (
        "42"
        not in re.findall(r"<details class=\"row.*?</details>", report(traces, task=lambda *key: protected), re.S)[0]
    )


@pytest.mark.slow
def test_the_first_of_each_kind_is_shown_wherever_it_comes():
    traces = [attempt("a", i, 1.0) for i in range(MAX_ATTEMPTS + 10)] + [attempt("a", 5000 + i, 0.0) for i in range(3)]
    html = report(traces)
    assert html.count('<details class="row') == MAX_ATTEMPTS + 1 and html.count('class="row wrong"') == 1


def test_the_foot_says_what_was_measured():
    facts = {"firsthand": "0.7.0", "commit": "abc123", "seed": "3", "model m": "f00d", "protocol of sums": "0-shot"}
    html = report(two_agents(), facts=facts)
    for name, value in facts.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in html


DRIVER = """
const out = [], visible = () => [...document.querySelectorAll("details.row")].filter((row) => !row.hidden);
const names = () => visible().map((row) => row.dataset.agent + row.dataset.score).join(" ");
const set = (element, value) => {
  element.value = value;
  element.dispatchEvent(new Event(element.localName == "input" ? "input" : "change"));
};
const search = document.querySelector(".controls input"), [agent, , outcome] = document.querySelectorAll(".controls select");
out.push(document.querySelector(".controls").hidden, names());
const head = document.querySelector("button[data-key=score]");
head.click(); out.push(names(), head.getAttribute("aria-sort"));
head.click(); out.push(names());
head.click(); out.push(names());
set(agent, "b"); out.push(names(), document.querySelector("output").textContent);
set(agent, ""); set(outcome, "right"); out.push(names());
set(outcome, ""); set(search, "ELEPHANT"); out.push(names());
document.title = JSON.stringify(out);
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_table_is_sorted_filtered_and_searched_in_a_browser(tmp_path):
    traces = [
        attempt("a", 0, 0.5, nodes=talk(user("an elephant"))),
        *(attempt(agent, task, score) for agent, task, score in (("b", 0, 1.0), ("a", 1, 0.0), ("b", 1, 0.25))),
    ]
    html = report(traces)
    assert "'none'" in html
    driven = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    file = tmp_path / "report.html"
    file.write_text(driven.replace("</body>", f"<script>{DRIVER}</script></body>"), encoding="utf-8")
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        f"--user-data-dir={tmp_path / 'profile'}",
        file.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    title = unescape(re.search(r"<title>(.*?)</title>", dom, re.S).group(1))
    assert json.loads(title) == [
        False, "a0.5 b1.0 a0.0 b0.25",
        "a0.0 b0.25 a0.5 b1.0", "ascending",
        "b1.0 a0.5 b0.25 a0.0",
        "a0.5 b1.0 a0.0 b0.25",
        "b1.0 b0.25", "2 of 4",
        "b1.0",
        "a0.5",
    ]  # fmt: skip
    # With the policy in place our own script runs, and one that is not ours does not.
    file.write_text(html.replace("</body>", "<script>document.title = 'stolen'</script></body>"), encoding="utf-8")
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert "stolen</title>" not in dom and re.search(r'<div class="controls">', dom)


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


@pytest.mark.parametrize(("most", "is_log"), [(1000, False), (1001, True), (999, False)])
def test_the_cost_axis_turns_logarithmic_at_ten_times_the_cheapest_and_never_from_nothing(most, is_log):
    costs = {"cheap": 100, "dear": most}
    traces = [attempt(name, i, float(i % 2), tokens=(cost, 0)) for name, cost in costs.items() for i in range(4)]
    picture = scatter(leaderboard(traces)[0])
    cheap, dear = sorted(picture.points, key=lambda point: point.x)
    assert picture.log == is_log and cheap.name == "cheap"
    share = {True: math.log, False: lambda ratio: ratio}[is_log]
    low, high = (100 / 1.5, most * 2.5) if is_log else (0.0, most * 1.25)
    for point, cost in ((cheap, 100), (dear, most)):
        along = share(cost / low) / share(high / low) if is_log else cost / high
        assert point.x == pytest.approx(LEFT + along * (WIDTH - LEFT - RIGHT))
    assert not scatter(leaderboard([*traces, attempt("free", 0, 1.0, tokens=(0, 0))])[0]).log


@pytest.mark.parametrize(
    ("values", "first", "last"),
    [((1.0, 1.0), 0, 1), ((0.0, 1.0), 0, 1), ((0.0, 0.0), 0, 0.6), ((7.0, 9.0), None, None), ((-1.0, 1.0), None, None)],
)
def test_the_score_axis_is_nought_to_one_for_shares_and_else_holds_every_score(values, first, last):
    traces = [attempt(name, i, value) for name, value in zip("ab", values, strict=True) for i in range(8)]
    picture = scatter(leaderboard(traces)[0])
    marks = [float(tick.text) for tick in picture.y_ticks]
    assert marks == sorted(marks) and len(marks) > 2
    assert all(TOP <= y <= HEIGHT - BOTTOM for point in picture.points for y in (point.y, point.top, point.bottom))
    if first is not None:
        assert marks[0] == first and marks[-1] <= 1 and (marks[-1] == 1 or last < 1)
    else:
        low, high = min(values), max(values)
        assert marks[0] <= low + (high - low) / 2 and 0 not in marks[:1]


def test_the_frontier_is_steps_level_until_the_next_agent_and_then_up():
    costs = {"a": (100, 5), "b": (200, 10), "c": (400, 18), "worse": (500, 9)}
    traces = [
        attempt(name, i, float(i < right), tokens=(cost, 0)) for name, (cost, right) in costs.items() for i in range(20)
    ]
    board = leaderboard(traces)[0]
    picture = scatter(board)
    spots = {point.name: (point.x, point.y) for point in picture.points}
    (ax, ay), (bx, by), (cx, cy) = (spots[name] for name in board.frontier)
    assert board.frontier == ("a", "b", "c")
    assert picture.frontier == ((ax, ay), (bx, ay), (bx, by), (cx, by), (cx, cy), (WIDTH - RIGHT, cy))
    assert scatter(leaderboard([trace for trace in traces if trace.agent_name == "a"])[0]).frontier == ()


@pytest.mark.parametrize("tokens", [(0, 0), (100, 0)])
def test_odd_scores_and_costs_still_give_a_picture(tokens):
    html = report([attempt("judge", i, 7.0 + i % 2, tokens=tokens) for i in range(4)] + [attempt("one", 0, 9.0)])
    assert "nan" not in html.lower().replace("finance", "") and "inf" not in re.findall(r'[xyd]\d?="([^"]*)"', html)
    assert "Nothing was scored" in report([attempt("a", 0, None)]) and report([])


def test_what_steers_a_reader_is_written_out():
    assert visible("a\tb\nc\u2066\x9b") == "a\tb\nc\\u2066\\u009b"
