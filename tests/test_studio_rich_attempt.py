"""An attempt that holds every kind of thing, as its page and its spans show it."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path

from firsthand.message import Message, Reasoning, Sampled, Text, ToolCall, ToolResult, assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.studio.attempt_spans import first_spans_json
from firsthand.trace import Call, Event, Node, Score, Trace
from studio_page_outline import asked
from studio_small_home import entered

HERE = "/runs/RICH/attempts/p"


def rich() -> Trace:
    """An attempt with reasoning, a tool, tokens with their alternatives, a vote, notes on branches and a budget."""
    logprobs = (math.log(0.6), math.log(0.25))
    top = [[("He", logprobs[0]), ("She", math.log(0.3))], [("llo", logprobs[1]), ("y", math.log(0.7))]]
    nodes = (
        Node(None, user("Ask")),
        Node(0, Message("assistant", (Reasoning("Hm", {}), ToolCall("1", "look", {"q": 1})))),
        Node(1, Message("tool", (ToolResult("1", "look", "Found", True, "the web"),))),
        Node(2, Message("assistant", (Text("Hello"),), Sampled((1, 2), logprobs))),
        Node(2, assistant("Other")),
    )
    calls = (
        Call(":0", "generate", 0, 0.0, 1.0, "r", usage=Usage(1000, 400, 30, 0.5), nodes=(1,)),
        Call(":1", "tool", 1, 1.0, 0.5, "r", detail={"name": "look", "arguments": {"q": 1}, "is_error": True}),
        Call("0.1:0", "generate", 2, 1.5, 0.25, "r", usage=Usage(500, 0, 2, 0.0), nodes=(4,)),
        Call(
            "0.2:0",
            "generate",
            2,
            1.5,
            0.5,
            "r",
            usage=Usage(500, 0, 2, 0.0),
            nodes=(3,),
            detail={"top_logprobs": [top]},
        ),
    )
    events = (
        Event("branch", 1.75, {"name": "0.1", "status": "pruned", "at": 4}), Event("branch", 1.75, {"name": "0.2",
        "status": "kept", "at": 3}),
        Event("vote", 2.0, {"counts": {"Hello": 3, "Other": 1}}),
    )  # fmt: skip
    agent = {"name": "tree", "model": "m", "limits": {"tokens": 4000, "calls": 8}}
    return Trace("x", "quiz", "t", agent, 1, 0, "", 2.0, nodes=nodes, calls=calls, events=events, answer="Hello",
                 scores=(Score("exact", 1.0), Score("note.good", 0.5, {"text": "Fine"}), Score("step", 0.25,
                 node=3)), place="p")  # fmt: skip


def test_an_attempt_shows_its_votes_fates_budget_tools_and_coloured_tokens(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "rich") as run:
        run.append(rich())
    top = (
        "Runs(/) / RICH(/runs/RICH) / quiz / t tree, epoch 1, 2.0 s, 2.0k tokens (2.0k in, 400 of them cached, "
        "34 out), $0.50, done "
        "answer Hello scores 1 exact votes 3 Hello1 Other branches 1 pruned, 1 kept ✗ 0.1 pruned(HERE?leaf=4#m4) ● 0.2 "
        "kept(HERE?leaf=3#m3) budget 2.0k of 4.0k tokens, 4 of 8 calls note.good 0.5 Fine *conversation(HERE) "
        "tree(HERE?view=tree) "
        "raw(HERE?view=raw) 2 branches: this is one of them; a message where the attempt forked names those beside it. "
    )
    said = (
        "user #0 continue from here(/playground?run=RICH&attempt=p&at=0) Ask assistant #1 continue from "
        'here(/playground?run=RICH&attempt=p&at=1) reasoning Hm → look { "q": 1 } tool #2 continue from '
        "here(/playground?run=RICH&attempt=p&at=2) ← look untrusted, from the web Found "
    )
    kept = (
        "assistant #3 2 tokens, mean log-prob -0.95 continue from here(/playground?run=RICH&attempt=p&at=3) ● "
        "0.2 kept branch "
        "*1(HERE?leaf=3) 2(HERE?leaf=4) Hello (picture)"
    )
    names = {run.id: "RICH"}
    with entered(tmp_path) as client:
        for key, says in {
            "": top + "Colour tokens by *nothing(HERE) log-prob(HERE?colour=logprob) entropy(HERE?colour=entropy) "
            + said + kept,
            "?colour=entropy&leaf=3": top + "Colour tokens by nothing(HERE?leaf=3) log-prob(HERE?colour=logprob&leaf=3) "
            "*entropy(HERE?colour=entropy&leaf=3) certain> .1 nats> .5> 1> 2 " + said + kept,
            "?leaf=4": top + said + "assistant #4 continue from here(/playground?run=RICH&attempt=p&at=4) ✗ 0.1 "
            "pruned branch "
            "1(HERE?leaf=3) *2(HERE?leaf=4) Other",
        }.items():  # fmt: skip
            assert asked(client, HERE + key, names) == (says.replace("HERE", HERE), 200), key
        for ref, says in {
            "call:1": 'look kind tool effect :1 began 1.000 s took 0.500 s Data { "name": "look", "arguments": { "q": 1 }, '
            '"is_error": true }',
            "call:3": "generate kind generate effect 0.2:0 began 1.500 s took 0.500 s prompt tokens 500 answer "
            "tokens 2 3 messages of "
            "the prompt were in the one before. assistant #3, answered Hello",
            "event:2": 'vote at 2.000 s Data { "counts": { "Hello": 3, "Other": 1 } }',
        }.items():  # fmt: skip
            assert asked(client, f"+{HERE}/span?ref={ref}", names) == (says, 200), ref
        place = f"/runs/{run.id}/attempts/p"
        page = html.unescape(client.get(f"{place}?colour=logprob").text)
        shades = re.findall(
            r'<span class="(t\d)" title="log-prob ([-.\d]+), entropy ([.\d]+) nats; '
            r'(.*?)">(\w+)</span>',
            page,
        )
        assert shades == [
            ("t1", "-0.511", "0.90", '"He" 0.600, "She" 0.300', "He"), ("t2", "-1.386", "0.75", '"llo" 0.250, '
            '"y" 0.700', "llo"),
        ]  # fmt: skip
        by_entropy = client.get(f"{place}?colour=entropy").text
        assert re.findall(r'class="(t\d)" title', by_entropy) == ["t2", "t2"]
        bars = re.findall(
            r'<rect class="p(\d)" x="(\d+)" y="(\d+)" width="3" height="(\d+)"><title>token (\d): '
            r"([-.\d]+)",
            page,
        )
        assert bars == [("1", "0", "9", "7", "1", "-0.511"), ("2", "4", "6", "10", "2", "-1.386")]
        tree = client.get(f"{place}?view=tree").text
        first = re.findall(r'data-first="([^"]*)"', tree)[0]
        assert json.loads(html.unescape(first)) == json.loads(json.dumps(first_spans_json(rich().to_json(), 100)))
