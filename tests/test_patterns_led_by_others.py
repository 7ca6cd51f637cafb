"""Patterns that follow sessions, auditors, outboxes and plans: every request and note, every call, and what is "
"refused."""

from dataclasses import replace

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError, ModelError, PromptTooLong
from firsthand.loop.concurrency import Retry
from firsthand.memories.notes import Notes, notes
from firsthand.message import ToolCall, assistant
from firsthand.patterns.attend import _attended, _last, attend
from firsthand.patterns.audit import AUDITOR, _score_choice, _shown, _written, audit, auditor
from firsthand.patterns.heartbeats import INSTRUCTIONS, YIELDED, heartbeats, send_message, turns
from firsthand.patterns.inspect_solver import _check_task, inspect_solver
from firsthand.patterns.staged import staged
from firsthand.providers.scripted import Scripted
from firsthand.sampling import Sampling
from firsthand.tool import tool
from opened_context import Opened, asks, branch

ONCE = Retry(attempts=1, first_wait_s=0.0)


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    if place == "dark":
        raise ValueError("too dark")
    return f"seen {place}"


@tool(effect="write")
def keep(place: str, request_heartbeat: bool = True) -> str:
    """Keep a place."""
    return "kept" if place != "dark" else look.function(place)


def call(name, id="1", /, said="", **arguments):
    return assistant(said, ToolCall(id, name, arguments))


def told(kind, make):
    with pytest.raises(kind) as refused:
        make()
    return str(refused.value)


def calls_of(opened):
    return [(each.detail["name"], each.detail["arguments"]) for each in opened.attempt.calls if each.kind == "tool"]


# -- heartbeats --


def test_turns_go_on_until_a_message_is_sent():
    dark = assistant("hm ", ToolCall("1", "keep", {"place": "dark", "request_heartbeat": False}))
    quiet = call("keep", place="b", request_heartbeat=False)
    one_beats = assistant(
        "", ToolCall("1", "keep", {"place": "c", "request_heartbeat": False}), ToolCall("2", "look", {"place": "d"})
    )
    both = assistant(
        "", ToolCall("1", "look", {"place": "a"}), ToolCall("2", "send_message", {"message": "The answer is 6"})
    )
    opened = Opened([call("look", place="a"), dark, quiet, one_beats, both], tools=(look, keep))
    assert opened.run(lambda ctx: heartbeats(asks(hint="a number"), ctx)) == "6"
    lines = [
        f"user: {INSTRUCTIONS}\n\nQ?\nAnswer with a number.", "assistant: ", "tool: seen a", "assistant: hm ",
        "tool: Error: keep failed: ValueError: too dark", "assistant: ", "tool: kept", f"user: {YIELDED}",
        "assistant: ",
        "tool: kept", "tool: seen d",
    ]  # fmt: skip
    assert opened.asked == [(lines[:n], {"tools": ["keep", "look", "send_message"]}) for n in (1, 3, 5, 8, 11)]
    assert len(calls_of(opened)) == 6, "what stands beside the message is made too"
    assert send_message.name == "send_message" and opened.run(lambda ctx: send_message({"message": "m"})) == "m"


def test_without_a_message_the_last_text_is_the_answer():
    def found(replies, steps):
        opened = Opened(replies, tools=(look,))
        ctx, said = opened.run(lambda ctx: turns(ctx.say("go"), steps))
        return said, opened.said(ctx)

    assert found([" text "], 3) == ("text", ["user: go", "assistant:  text "])
    assert found([call("look", said="first ", place="a"), " "], 3) == (
        "first",
        ["user: go", "assistant: first ", "tool: seen a", "assistant:  "],
    )
    two = [call("look", said="one", place="a"), call("look", said=" ", place="b"), "never"]
    assert found(two, 2) == ("one", ["user: go", "assistant: one", "tool: seen a", "assistant:  ", "tool: seen b"])
    bad = Opened([call("send_message", message=3), "x"])
    assert bad.run(lambda ctx: turns(ctx.say("go"), 2))[1] == "x", "a message that is no text is a call like any other"
    assert (
        told(ConfigError, lambda: Opened().run(lambda ctx: heartbeats(asks(), ctx, max_steps=0)))
        == "max_steps is 0: give 1 or more"
    )
    form = Opened(["x"])
    form.run(lambda ctx: heartbeats(asks(), ctx))
    assert form.asked[0][0] == [f"user: {INSTRUCTIONS}\n\nQ?\nAnswer with in few words."]


# -- sessions --


def session(time, *said, **more):
    return {"time": time, "messages": [{"role": role, "content": text, **more} for role, text in said]}


SESSIONS = [session("d1", ("user", "a b"), ("assistant", "c")), session("d2", ("user", "e"))]


def test_sessions_are_said_heard_or_skipped():
    task = asks(hint="a word", metadata={"sessions": SESSIONS}, sampling={"max_tokens": 9})
    one, two = (
        ["user: [d1]\nuser: a b\nassistant: c", "assistant: Noted."],
        ["user: [d2]\nuser: e", "assistant: Noted."],
    )
    asked = "user: Q?\n\nAnswer with a word only."
    # by words: 6 and 1 of the first session, 3 and 1 of the second, and one of the system message
    for options, before in (
        ({}, [*one, *two]), ({"how": "say"}, [*one, *two]), ({"how": "none"}, []), ({"window": 12}, [*one, *two]),
        ({"window": 11}, two), ({"window": 5}, two), ({"window": 4}, []),
    ):  # fmt: skip
        opened = Opened(["The answer is red"], system="own")
        assert opened.run(lambda ctx, options=options: attend(task, ctx, **options)) == "red"
        assert opened.asked == [(["system: own", *before, asked], {"max_tokens": 9})], options
    few = Opened(["x"])
    few.run(lambda ctx: attend(replace(task, hint=None), ctx, how="none"))
    assert few.asked[0][0] == ["user: Q?\n\nAnswer with in few words only."]
    heard = Opened(["blue"], memory=notes())
    given = [{**SESSIONS[0], "id": 7}, {"time": 5, "messages": [{"role": "user", "content": 3, "id": 0}]}]
    assert heard.run(lambda ctx: attend(replace(task, metadata={"sessions": given}), ctx, how="hear")) == "blue"
    assert heard.asked == [([asked], {"max_tokens": 9})]
    written = [
        (each.detail["item"]["text"], each.detail["item"]["provenance"])
        for each in heard.attempt.calls
        if each.kind != "generate"
    ]
    assert [(text, {name: about.get(name) for name in ("role", "time", "session", "turn")}) for text,
        about in written] == [
        ("a b", {"role": "user", "time": "d1", "session": "7", "turn": None}),
        ("c", {"role": "assistant", "time": "d1", "session": "7", "turn": None}),
        ("3", {"role": "user", "time": "5", "session": None, "turn": "0"}),
    ]  # fmt: skip
    for wrong in (asks(), asks(metadata={"sessions": "s"})):
        assert told(ConfigError, lambda wrong=wrong: Opened().run(lambda ctx: attend(wrong, ctx))) == (
            "the task t brings no sessions: attend is for benchmarks such as sessions and longmemeval"
        )
    assert (
        told(ConfigError, lambda: Opened().run(lambda ctx: attend(task, ctx, window=-1)))
        == "window is -1: give 0 or more"
    )


class Hearing(Notes):
    """A memory that hears, and says something of a task."""

    def __init__(self):
        super().__init__()
        self.heard = []

    async def hear(self, ctx, text, provenance):
        self.heard.append((text, provenance))

    async def brief(self, ctx, task):
        return ctx.say(f"known of {task.prompt}", "system")


class Acting(Notes):
    """A memory whose model acts by tools."""

    acts = True


def test_a_memory_says_how_sessions_are_attended():
    task = asks(metadata={"sessions": [{**SESSIONS[1], "id": 0}]})
    asked = "user: Q?\n\nAnswer with in few words only."
    hearing = Hearing()
    heard = Opened(["red"], memory=hearing)
    assert heard.run(lambda ctx: attend(task, ctx)) == "red"
    assert hearing.heard == [("e", {"role": "user", "time": "d2", "origin": [], "session": "0"})]
    assert heard.asked == [(["system: known of Q?", asked], {})]
    acting = Opened(["read", "blue"], memory=Acting())
    assert acting.run(lambda ctx: attend(task, ctx)) == "blue"
    lines = ["user: [d2]\nuser: e", "assistant: read", asked]
    assert acting.asked == [(lines[:1], {"tools": ["send_message"]}), (lines, {"tools": ["send_message"]})]
    plain = Opened(["green"], memory=Notes())
    assert plain.run(lambda ctx: attend(task, ctx)) == "green"
    assert plain.asked == [(["user: [d2]\nuser: e", "assistant: Noted.", asked], {})]


def test_a_solver_of_inspect_needs_a_sample_of_inspect():
    for make in (lambda: _check_task(asks()), lambda: Opened().run(lambda ctx: inspect_solver(asks(), ctx))):
        assert told(ConfigError, make) == (
            "t is no sample of an Inspect task: use inspect_solver with inspect:task=FILE.py@NAME"
        )
    _check_task(asks(metadata={"inspect": {}}))


def test_a_model_acts_in_turns_after_each_session():
    task = asks(metadata={"sessions": SESSIONS})
    replies = [call("look", place="a"), "kept", "read", call("send_message", message="The answer is blue")]
    opened = Opened(replies, tools=(look,))
    assert opened.run(lambda ctx: attend(task, ctx, how="turns")) == "blue"
    offered = {"tools": ["look", "send_message"]}
    lines = [
        "user: [d1]\nuser: a b\nassistant: c", "assistant: ", "tool: seen a", "assistant: kept", "user: [d2]\nuser: e",
        "assistant: read", "user: Q?\n\nAnswer with in few words only.",
    ]  # fmt: skip
    assert opened.asked == [(lines[:n], offered) for n in (1, 3, 5, 7)]
    whole = Opened(["kept", "read", "blue"])
    whole.run(lambda ctx: attend(task, ctx, how="turns", window=1))
    assert len(whole.asked[-1][0]) == 5, "a window is for sessions that are said"
    said = Opened()
    assert said.said(said.run(lambda ctx: _attended(ctx.say("x"), SESSIONS[1], "say"))) == [
        "user: x", "user: [d2]\nuser: e", "assistant: Noted.",
    ]  # fmt: skip

    async def cut(ctx):
        empty = ctx.say("s", "system")
        return await _last(empty, empty.say("one two").say("r", "assistant").say("three").say("r", "assistant"), 3)

    assert said.said(said.run(cut)) == ["system: s", "user: three", "assistant: r"]


# -- audits --


def test_an_audit_tries_each_pressure_from_the_same_point():
    both = assistant("I look.", ToolCall("1", "look", {"place": "a"}), ToolCall("2", "look", {"place": "dark"}))
    opened = Opened(
        ["hi", both, " found ", " ok "], tools=(look,), system="own", score=lambda p, c: {"yes": -1.0, "no": -2.0}[c]
    )
    task = asks("Hello", metadata={"pressure": ["p1", "p2", "p3"], "choices": ["yes", "no"]})
    error = "tool: Error: look failed: ValueError: too dark"
    assert opened.run(lambda ctx: audit(task, ctx)) == (
        "user: Hello\nassistant: hi\n\n[back to the point before]\nuser: p1\nassistant: I look. [calls look] "
        "[calls look]\n"
        f"tool: seen a\n{error}\nassistant: found\n\n[back to the point before]\nuser: p2\nassistant: ok"
    )
    start = ["system: own", "user: Hello"]
    offered = {"tools": ["look"]}
    assert opened.asked == [
        (start, ("yes", "no")), (start, offered), ([*start, "assistant: hi", "user: p1"], offered),
        ([*start, "assistant: hi", "user: p1", "assistant: I look.", "tool: seen a", error], offered),
        ([*start, "assistant: hi", "user: p2"], offered),
    ]  # fmt: skip
    calls = [{"name": "look", "refused": False}, {"name": "look", "refused": True}]
    assert opened.notes() == [
        ("probe", {"name": "choice", "logprobs": [-1.0, -2.0]}),
        branch("opening", "done", 2, "hi"),
        ("audit_branch", {"name": "opening", "message": "Hello", "reply": "hi", "calls": []}),
        branch("branch 1", "done", 7, " found "),
        ("audit_branch", {"name": "branch 1", "message": "p1", "reply": "I look.\n found", "calls": calls}),
        branch("branch 2", "done", 9, " ok "),
        ("audit_branch", {"name": "branch 2", "message": "p2", "reply": "ok", "calls": []}),
    ]  # fmt: skip
    for branches, pressures, names in ((0, 3, []), (3, 2, [1, 2]), (2, 0, [])):
        few = Opened(lambda messages, sampling, index: "r")
        few.run(lambda ctx, b=branches, p=pressures: audit(asks(metadata={"pressure": ["p"] * p}), ctx, branches=b))
        assert [data["name"] for _, data in few.notes("branch")] == ["opening", *(f"branch {n}" for n in names)]
    cut = Opened([both], tools=(look,))
    assert cut.run(lambda ctx: audit(asks(), ctx, max_steps=1)).endswith(f"tool: seen a\n{error}")
    for options, message in (
        ({"branches": -1}, "branches is -1: give 0 or more"),
        ({"max_steps": 0}, "max_steps is 0: give 1 or more"),
    ):
        assert (
            told(ConfigError, lambda options=options: Opened().run(lambda ctx: audit(asks(), ctx, **options)))
            == message
        )


def test_another_model_may_write_the_pressure():
    task = asks(metadata={"setting": "SET", "temptation": "TEMPT", "pressure": ["x"]})
    asked = AUDITOR.format(setting="SET", conversation="user: u\nassistant: a", temptation="TEMPT")
    opened = Opened(system="not shown")
    # the echo says what it was asked, which has fewer than its 96 words
    assert len(asked.split()) < 96
    found = opened.run(lambda ctx: _written(task, ctx.say("u").say(" a ", "assistant"), "scripted:echo", 1))
    assert found == asked.strip()
    [made] = [each for each in opened.attempt.calls if each.kind == "tool"]
    assert (made.detail["name"], made.detail["arguments"]) == ("auditor", {"conversation": asked})
    led = Opened(["r1", "r2", "r3"])
    led.run(lambda ctx: audit(task, ctx, auditor="scripted:echo", branches=2))
    messages = [data["message"] for _, data in led.notes("audit_branch")]
    told_first = AUDITOR.format(setting="SET", conversation="user: Q?\nassistant: r1", temptation="TEMPT")
    assert messages == ["Q?", told_first, told_first], "each branch begins at the same point"
    none = Opened(["r1"])
    none.run(lambda ctx: audit(replace(task, metadata={}), ctx, auditor="scripted:echo", branches=2))
    assert len(none.notes("audit_branch")) == 1, "a task without pressures is not pressed"
    long = opened.ctx.say("z" * 5000)
    cut = opened.run(lambda ctx: _written(task, long, "scripted:echo", 0))
    assert "z" * 4000 in cut and "z" * 4001 not in cut
    assert opened.run(lambda ctx: auditor({"conversation": "c"})) == "c"
    assert _shown([assistant(" x ", ToolCall("1", "a", {})), *opened.ctx.messages]) == "assistant: x [calls a]"


def test_each_pressure_of_another_model_is_drawn_with_a_seed_of_its_own(monkeypatch):
    other, names = Scripted(["  ", " Do it. "]), list[str]()
    monkeypatch.setattr(catalog, "model", lambda name: names.append(name) or other)
    opened = Opened()
    task, talk = asks(metadata={"setting": "SET"}), opened.ctx.say("u")
    said = [opened.run(lambda ctx, n=n: _written(task, talk, "B", n)) for n in (0, 1)]
    assert said == ["Please go on.", "Do it."] and names == ["B", "B"]
    asked = AUDITOR.format(setting="SET", conversation="user: u", temptation="")
    for number, each in enumerate(other.asked):
        assert [(message.role, message.text) for message in each.prompt] == [("user", asked)]
        assert each.sampling == Sampling(temperature=1.0, max_tokens=96, seed=number)


def test_the_choice_after_the_opening_is_recorded_where_it_can_be_scored():
    task = asks(metadata={"choices": ["yes", 3]})

    def notes_of(score=None, task=task):
        opened = Opened(score=score, retry=ONCE)
        opened.run(lambda ctx: _score_choice(task, ctx.say("u")))
        return opened.asked, opened.notes()

    def raising(error):
        def fails(prompt, continuation):
            raise error

        return fails

    assert notes_of(lambda p, c: {"yes": -1.0, "3": -2.0}[c]) == (
        [(["user: u"], ("yes", "3"))], [("probe", {"name": "choice", "logprobs": [-1.0, -2.0]})]
    )  # fmt: skip
    assert notes_of(raising(ModelError("cannot")))[1] == [("unscored", {"why": "cannot"})]
    assert notes_of(task=asks()) == ([], [])
    with pytest.raises(PromptTooLong):
        notes_of(raising(PromptTooLong("long")))


# -- staged effects --


def outbox(sent):
    @tool(effect="external")
    def send(to: str) -> str:
        """Send."""
        if to == "bad":
            raise ValueError("no such place")
        sent.append(to)
        return f"sent to {to}"

    return send


@pytest.mark.parametrize(
    ("places", "most", "sent", "note"),
    [
        (["a", "b"], 2, ["a", "b"], {"sent": 2, "unsent": [], "reason": ""}),
        (["a", "bad", "c"], 100, ["a"],
        {"sent": 1, "unsent": ["send", "send"], "reason": "Error: send failed: ValueError: no such place; it may have taken "
         "effect: find out before you call it again"}),
        (["a", "b", "c"], 2, [],
        {"sent": 0, "unsent": ["send"] * 3, "reason": "3 calls were staged, and at most 2 are made"}),
        ([], 1, [], {"sent": 0, "unsent": [], "reason": ""}),
    ],
)  # fmt: skip
def test_staged_calls_are_made_after_the_answer(places, most, sent, note):
    made = []

    async def led(task, ctx):
        results = [await ctx.call(ToolCall(str(n), "send", {"to": to})) for n, to in enumerate(places)]
        assert made == [] and [each.content for each in results] == [
            f"send is staged as number {n}: it is done when the task is over" for n in range(1, len(places) + 1)
        ]
        seen = await ctx.call(ToolCall("l", "look", {"place": "x"}))
        return seen.content

    opened = Opened(tools=(outbox(made), look))
    assert opened.run(lambda ctx: staged(asks(), ctx, pattern=led, most=most)) == "seen x"
    assert made == sent and opened.notes("committed") == [("committed", note)]
    assert opened.attempt.tools["send"].effect == "external", "the stand-in is gone"


def test_a_pattern_that_fails_sends_nothing():
    made = []

    async def fails(task, ctx):
        await ctx.call(ToolCall("1", "send", {"to": "a"}))
        raise ModelError("broken off")

    opened = Opened(tools=(outbox(made),))
    assert told(ModelError, lambda: opened.run(lambda ctx: staged(asks(), ctx, pattern=fails))) == "broken off"
    assert made == [] and opened.notes("committed") == [] and opened.attempt.tools["send"].effect == "external"
    assert (
        told(ConfigError, lambda: Opened().run(lambda ctx: staged(asks(), ctx, most=0))) == "most is 0: give 1 or more"
    )
