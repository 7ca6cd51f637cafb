"""The claim about the smallest models of patterns: the form of each pattern's replies, and when it is kept."""

from claims_asked import AskedLab, agents, greedy
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import Lab
from firsthand.claims.patterns import smallest_models
from firsthand.claims.scripted_costs import pattern_cost
from firsthand.message import user
from firsthand.patterns.cot import cot
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.react import react
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.tot import tot
from firsthand.stats.intervals import proportion_interval
from firsthand.trace import Call, Node, Trace


def conversation(*turns):
    """A trace of turns: kind of call, error, the prompt and the replies to it."""
    nodes, calls = [], []
    for kind, error, asked, *replies in turns:
        nodes.append(Node(None, user(asked)))
        at = len(nodes) - 1
        places = tuple(range(at + 1, at + 1 + len(replies)))
        nodes += [Node(at, user(reply)) for reply in replies]
        calls.append(Call(f":{at}", kind, at, 0.0, 0.0, "r", nodes=places, error=error))
    return Trace("1", "b", "1", {"name": "a"}, 0, 0, "", 0.0, tuple(nodes), tuple(calls))


def test_each_pattern_has_a_form_of_its_own_for_the_replies_to_its_prompts():
    checks = smallest_models._checks()
    assert list(checks) == ["react", "cot", "reflexion", "orchestrate", "tot"]
    made = {
        "react": [
            (conversation(("generate", None, "q", "r"), ("tool", None, "t")), [True]),
            (conversation(("generate", None, "q", "r"), ("tool", "no tool", "t")), [False]),
            (conversation(("tool", "no tool", "t"), ("tool", None, "t")), [True]),
            (conversation(("generate", None, "q")), [False]),
        ],
        "cot": [
            (conversation(
                ("generate", None, "think step by step", "so The Answer IS 3", "it is 3"),
                ("generate", None, "q", "answer is"),
                ("tool", None, "step by step", "answer is"), ("generate", None, "step by step", "answer: is"),
            ), [True, False, False]),
        ],
        "reflexion": [
            (conversation(("generate", None, "Check the answer step by step: right or wrong", "It is WRONG.", "right!",
                           "rightly", "correct", "incorrect", "no")), [True, True, False, True, True, False]),
            (conversation(("generate", None, "right and wrong", "right"), ("generate", None, "step by step", "right"),
                          ("generate", None, "Reply with one word, right or wrong, and nothing else.", "right")), []),
        ],
        "orchestrate": [
            (conversation(("generate", None, "Write a numbered list.", "1. a\n2. b", "1. a", "1. a\n2. b\n3. c", "")),
             [True, False, True, False]),
        ],
        "tot": [
            (conversation(("generate", None, "Judgement: ?", "sure", "It is likely.", "impossible", "unsure", "perhaps")),
             [True, True, True, False, False]),
        ],
    }  # fmt: skip
    for name, cases in made.items():
        assert [checks[name](trace) for trace, _ in cases] == [wanted for _, wanted in cases], name
    bare = Trace("1", "b", "1", {"name": "a"}, 0, 0, "", 0.0, (), (Call(":0", "generate", None, 0.0, 0.0, "r"),))
    assert [checks[name](bare) for name in checks] == [[False], [], [], [], []]


def test_the_willing_writer_gives_a_verdict_at_once(tmp_path):
    found = pattern_cost(Lab(0, tmp_path), "reflexion", {"trials": 3})
    assert [row[2] for row in found.rows] == [1.0, 2.0], "an answer, and its judgement"


def test_a_pattern_is_kept_if_half_of_its_replies_have_the_form(tmp_path, monkeypatch):
    monkeypatch.setattr(smallest_models, "TASKS", 2)
    monkeypatch.setattr(smallest_models, "TOKENS", 77)
    acted, idle = conversation(("tool", None, "t")), conversation(("generate", None, "q", "r"))
    half = conversation(("generate", None, "step by step", "the answer is 3", "no"))
    third = conversation(("generate", None, "Check the answer step by step", "right", "no", "no"))
    lists = conversation(("generate", None, "numbered list", "1. a\n2. b"))
    given = [("react", [acted, idle]), ("cot", [half, idle]), ("reflexion", [third, idle]), ("orchestrate", [lists, lists]),
             ("tot", [idle, idle])]  # fmt: skip
    lab = AskedLab(given, 1, tmp_path)
    assert smallest_models.measure(lab) == Measurement(
        3,
        "of the five patterns with a smallest model, those whose form SmolLM2 135M keeps in half of the replies or more",
        n=2,
        columns=("pattern", "replies in form", "low", "high", "replies"),
        rows=(
            ("react", 0.5, *proportion_interval(1, 2), 2.0), ("cot", 0.5, *proportion_interval(1, 2), 2.0),
            ("reflexion", 1 / 3, *proportion_interval(1, 3), 3.0), ("orchestrate", 1.0, *proportion_interval(2, 2), 2.0),
            ("tot", 0.0, *proportion_interval(0, 1), 0.0),
        ),
    )  # fmt: skip
    tree = {"breadth": 1, "samples": 1, "judgements": 1, "generate": "sample"}
    assert agents(lab) == [
        (react, {"max_steps": 2}, greedy(77)), (cot, {}, greedy(77)), (reflexion, {"trials": 2}, greedy(77)),
        (orchestrate, {"workers": 2}, greedy(77)), (tot, tree, greedy(77)),
    ]  # fmt: skip
    assert {tuple(tool.name for tool in agent.tools) for agent, *_ in lab.asked} == {("calculator",)}
    assert [(benchmark.name, tasks) for _, benchmark, tasks, _ in lab.asked] == [("arithmetic", 2)] * 5
