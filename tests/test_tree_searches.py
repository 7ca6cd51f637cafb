"""Tree of Thoughts by its functions: each request with its settings, each note with its place, values and choices."""

import math
from dataclasses import dataclass, field
from random import Random

import pytest

from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.model import Likelihood
from firsthand.patterns.parts.thoughts import LABELS, ThoughtRequest
from firsthand.patterns.tot import MAX_THOUGHTS, Search, ThoughtState, choose, expected, tot
from firsthand.patterns.tot_dfs import Walk, tot_dfs
from firsthand.sampling import Sampling
from opened_context import Opened, asks, branch


@dataclass(frozen=True)
class Tree:
    """States are paths of letters: `children` follow a state, `worth` is what a reply says of it; `!` ends one."""

    children: dict = field(default_factory=dict)
    worth: dict = field(default_factory=dict)
    steps: int = 2
    hopeless: float = 0.5
    samples: int = 1
    parts: int = 1
    labels = LABELS

    def propose(self, state):
        return ThoughtRequest(f"propose {state}", ("STOP",), self.samples)

    def proposed(self, state, replies):
        return [state + name for reply in replies for name in reply.split()]

    def sample(self, state):
        return ThoughtRequest(f"sample {state}", ("\n",))

    def sampled(self, state, reply):
        return state + reply

    def value(self, state):
        return tuple(ThoughtRequest(f"value {state[-1:]}{part or ''}") for part in range(self.parts))

    def valued(self, state, replies):
        return sum(float(reply) for each in replies for reply in each)

    def vote(self, states):
        return ThoughtRequest(f"vote {' '.join(states)}")

    def voted(self, states, replies):
        return [sum(reply == each for reply in replies) for each in states]

    def is_done(self, state):
        return state.endswith("!")

    def answer(self, state):
        return f"<{state}>"


def searched(tree, says=None, score=None, judgements=1, evaluate="value", **agent):
    def reply(messages, sampling, index):
        kind, _, about = messages[-1].text.partition(" ")
        if says is not None and (said := says(kind, about, index)) is not None:
            return said
        return tree.children.get(about, "") if kind == "propose" else str(tree.worth.get(about, 0))

    opened = Opened(reply, score=score, **agent)
    return opened, Search(tree, opened.ctx, judgements, evaluate)


def told(kind, make):
    with pytest.raises(kind) as refused:
        make()
    return str(refused.value)


def test_a_state_is_expanded_by_a_list_or_by_samples():
    tree = Tree({"": "a b", "a": "x"})
    opened, search = searched(
        tree, lambda kind, about, index: f"s{index}" if kind == "sample" else None, sampling=Sampling(stop=("END",))
    )
    assert opened.run(lambda ctx: search.expand(ThoughtState("", 9), "propose", 3)) == [
        ThoughtState("a", 1),
        ThoughtState("b", 1),
    ]
    assert opened.run(lambda ctx: search.expand(ThoughtState("q"), "sample", 3)) == [
        ThoughtState("qs0", 3), ThoughtState("qs1", 4), ThoughtState("qs2", 5),
    ]  # fmt: skip
    assert opened.run(lambda ctx: search.expand(ThoughtState("q!", 7), "sample", 3)) == [ThoughtState("q!", 7)]
    assert opened.asked == [
        (["user: propose "], {"stop": ("END", "STOP")}), (["user: sample q"], {"stop": ("END", "\n"), "n": 3}),
    ]  # fmt: skip
    many, wide = searched(Tree({"": " ".join(map(str, range(120)))}, samples=2))
    states = many.run(lambda ctx: wide.expand(ThoughtState(""), "propose", 1))
    assert len(states) == MAX_THOUGHTS == 100 and {each.at for each in states} == {2} and many.asked[0][1]["n"] == 2


def test_states_are_worth_the_sum_of_their_verdicts_and_no_request_is_made_twice():
    opened, search = searched(Tree(worth={"a": 2, "b": 3, "c": 5, "a1": 10, "b1": 20, "c1": 40}, parts=2), judgements=3)
    assert opened.run(lambda ctx: search.values(["xa", "b"])) == [3 * 12, 3 * 23]
    assert opened.run(lambda ctx: search.values(["b", "ya", "c"])) == [69, 36, 135]
    assert opened.asked == [(["user: " + f"value {each}"], {"n": 3}) for each in ("a", "a1", "b", "b1", "c", "c1")]
    assert opened.run(lambda ctx: search.judge([ThoughtState("a"), ThoughtState("b"), ThoughtState("a")])) == [
        36,
        69,
        0.0,
    ]
    assert opened.notes() == []
    votes = iter(["b", "a", "b", "c"])
    opened, search = searched(Tree(), lambda kind, about, index: next(votes), judgements=4, evaluate="vote")
    states = [ThoughtState(each) for each in ("a", "b", "a", "d")]
    assert opened.run(lambda ctx: search.judge(states)) == [1, 2, 0.0, 0]
    assert opened.asked == [(["user: vote a b d"], {"n": 4})] and opened.notes() == [("vote", {"votes": [1, 2, 0]})]


def test_a_verdict_is_expected_by_its_likelihood():
    chances = {"sure": 0.1, "likely": 0.2, "impossible": 0.1}
    opened, search = searched(Tree(parts=2), score=lambda p, c: math.log(chances[c]), evaluate="score")
    worth = (20 * 0.1 + 1 * 0.2 + 0.001 * 0.1) / 0.4
    assert opened.run(lambda ctx: search.judge([ThoughtState("a")])) == [pytest.approx(2 * worth)]
    assert opened.asked == [([f"user: value {each}"], ("sure", "likely", "impossible")) for each in ("a", "a1")]
    given = [Likelihood("x", -1000.0, 1, False), Likelihood("y", -1000.0 + math.log(3), 1, False)]
    assert expected(given, {"x": 4.0, "y": 8.0}) == pytest.approx(7.0)


def test_states_are_chosen_by_value_or_drawn():
    assert choose([1, 5, 5, 2], 2, "greedy", Random(0)) == [1, 2] and choose([1, 2], 5, "greedy", Random(0)) == [1, 0]
    assert choose([0, 3, 1], 4, "sample", Random(7)) == Random(7).choices(range(3), weights=[0, 3, 1], k=4)
    assert choose([0.0, 0.0], 1, "sample", Random(7)) == [0]


def test_a_note_has_the_last_line_of_a_state():
    opened, search = searched(Tree())
    search.note("1.2", ThoughtState("one\ntwo" + "x" * 250 + "\n\n", 4), "kept", 0.5, answer="A")
    search.note("n", ThoughtState("  "), "pruned")
    assert opened.notes() == [
        branch("1.2", "kept", 4, "two" + "x" * 197, 0.5, answer="A"),
        branch("n", "pruned", None, ""),
    ]


def test_the_best_states_survive_each_step():
    tree = Tree({"": "a b c", "b": "x y", "c": "z!"}, {"a": 1, "b": 2, "c": 3, "x": 9, "y": 4, "!": 7})

    def says(messages, sampling, index):
        kind, _, about = messages[-1].text.partition(" ")
        return tree.children.get(about, "") if kind == "propose" else str(tree.worth[about])

    opened = Opened(says)
    assert (
        opened.run(lambda ctx: tot(asks(), ctx, breadth=2, judgements=1, temperature=0.3, thoughts=lambda task: tree))
        == "<bx>"
    )
    warm, proposal = {"temperature": 0.3}, {"temperature": 0.3, "stop": ("STOP",)}
    assert opened.asked == [
        (["user: propose "], proposal), *(([f"user: value {each}"], warm) for each in "abc"),
        (["user: propose c"], proposal), (["user: propose b"], proposal),
        *(([f"user: value {each}"], warm) for each in "!xy"),
    ]  # fmt: skip
    assert [(d["name"], d["status"], d["score"], d["text"]) for _, d in opened.notes()] == [
        ("1.0", "pruned", 1.0, "a"), ("1.1", "kept", 2.0, "b"), ("1.2", "kept", 3.0, "c"),
        ("2.0", "kept", 7.0, "cz!"), ("2.1", "kept", 9.0, "bx"), ("2.2", "pruned", 4.0, "by"),
        ("answer.0", "done", None, "bx"), ("answer.1", "done", None, "cz!"),
    ]  # fmt: skip
    assert [data.get("answer") for _, data in opened.notes()][-3:] == [None, "<bx>", "<cz!>"]
    none = Opened([" "])
    assert none.run(lambda ctx: tot(asks(), ctx, thoughts=lambda task: Tree())) == "<>" and len(none.asked) == 1
    drawn = Opened(says, seed=11)
    drawn.run(
        lambda ctx: tot(
            asks(),
            ctx,
            breadth=3,
            judgements=1,
            select="sample",
            thoughts=lambda task: Tree(tree.children, tree.worth, 1),
        )
    )
    kept = set(Random(derive_seed(11, "", 1)).choices(range(3), weights=[1, 2, 3], k=3))
    assert {int(d["name"][2:]) for _, d in drawn.notes() if d["status"] == "kept"} == kept
    voted = Opened(lambda m, s, i: "q")
    assert (
        voted.run(
            lambda ctx: tot(
                asks(),
                ctx,
                generate="sample",
                evaluate="vote",
                samples=2,
                judgements=3,
                thoughts=lambda t: Tree(steps=1),
            )
        )
        == "<q>"
    )
    assert [(talk, settings["n"]) for talk, settings in voted.asked] == [(["user: sample "], 2), (["user: vote q"], 3)]
    for given in ({"breadth": 0}, {"samples": 0}, {"judgements": 0}):
        [name] = given
        assert (
            told(ConfigError, lambda given=given: Opened().run(lambda ctx: tot(asks(), ctx, **given)))
            == f"{name} is 0: give 1 or more"
        )


def test_a_walk_visits_the_best_first_and_backs_up():
    tree = Tree({"": "a b c d", "a": "x y", "b": "z"}, {"a": 2, "x": 0.5, "y": 0.4, "b": 1, "z": 3, "c": 9})

    def walk(visits=99, per_state=3, threshold=0.5):
        opened, search = searched(tree)
        made = Walk(search, visits, per_state, threshold)
        opened.run(lambda ctx: made.visit(ThoughtState(""), 0))
        return opened, [(depth, state.text) for depth, state in made.visited]

    opened, visited = walk()
    assert visited == [(1, "a"), (2, "ax"), (2, "ay"), (1, "b"), (2, "bz"), (1, "c")]
    assert [(d["name"], d["status"], d["score"], d["answer"], d["at"]) for _, d in opened.notes()] == [
        ("1.1", "kept", 2.0, "<a>", 1), ("2.2", "kept", 0.5, "<ax>", 5), ("2.3", "pruned", 0.4, "<ay>", 5),
        ("1.4", "kept", 1.0, "<b>", 1), ("2.5", "kept", 3.0, "<bz>", 13), ("1.6", "kept", 9.0, "<c>", 1),
    ]  # fmt: skip
    assert [talk[-1] for talk, _ in opened.asked] == [
        "user: propose ", "user: value a", "user: propose a", "user: value x", "user: value y", "user: value b",
        "user: propose b",
        "user: value z", "user: value c", "user: propose c",
    ]  # fmt: skip
    assert walk(visits=2)[1] == [(1, "a"), (2, "ax")] and walk(per_state=1)[1] == [(1, "a"), (2, "ax")]
    assert walk(threshold=2.0)[1] == [(1, "a"), (2, "ax"), (2, "ay"), (1, "b"), (1, "c")]
    assert [d["status"] for _, d in walk(threshold=None)[0].notes()] == ["kept"] * 6
    again, search = searched(Tree({"a": "x", "": "a a"}, {"a": 1, "x": 1}))
    twice = Walk(search, 9, 3, None)
    again.run(lambda ctx: twice.visit(ThoughtState(""), 0))
    assert len(twice.visited) == 4 and len(again.asked) == 4, "equal requests are made once"


def test_the_states_of_several_lists_hang_below_the_last_of_them():
    lists = {"": ["a", "b", "c"], "a": ["x", "", "y"]}  # by reply
    opened, search = searched(
        Tree({}, dict.fromkeys("abcxy", 1), samples=3),
        lambda kind, about, index: lists.get(about, [""] * 3)[index] if kind == "propose" else None,
    )
    walk = Walk(search, 9, 4, None)
    opened.run(lambda ctx: walk.visit(ThoughtState(""), 0))
    # node 0 asks, 1 to 3 are its lists; 4 and 5 value a; 6 asks again, 7 to 9 are its lists
    assert walk.visited == [
        (1, ThoughtState("a", 3)), (2, ThoughtState("ax", 9)), (2, ThoughtState("ay", 9)), (1, ThoughtState("b", 3)),
        (1, ThoughtState("c", 3)),
    ]  # fmt: skip
    assert [(data["name"], data["at"], data["text"]) for _, data in opened.notes()] == [
        ("1.1", 3, "a"), ("2.2", 9, "ax"), ("2.3", 9, "ay"), ("1.4", 3, "b"), ("1.5", 3, "c"),
    ]  # fmt: skip
    assert [asked for asked in opened.asked if "propose" in asked[0][0]] == [
        ([f"user: propose {state}"], {"stop": ("STOP",), "n": 3}) for state in ("", "a", "b", "c")
    ]


def test_depth_first_answers_with_the_deepest_state():
    tree = Tree({"": "a b", "b": "c"}, {"a": 0.4, "b": 0.5, "c": 0.3})

    def found(**given):
        def says(messages, sampling, index):
            kind, _, about = messages[-1].text.partition(" ")
            return tree.children.get(about, "") if kind == "propose" else str(tree.worth[about])

        opened = Opened(says)
        return opened.run(
            lambda ctx: tot_dfs(asks(), ctx, thoughts=lambda task: tree, temperature=0.2, **given)
        ), opened

    answer, opened = found(judgements=2)
    assert answer == "<bc>" and opened.notes()[-1] == branch("answer.2", "done", 11, "bc", answer="<bc>")
    assert opened.asked[0][1]["temperature"] == 0.2 and opened.asked[1] == (
        ["user: value a"],
        {"temperature": 0.2, "n": 2},
    )
    assert found(threshold=0.6)[0] == "<a>", "the first of equals"
    assert found(threshold=0.6, prune=False)[0] == "<bc>" and found(visits=1)[0] == "<a>"
    empty = Opened([" "])
    assert empty.run(lambda ctx: tot_dfs(asks(), ctx, thoughts=lambda task: Tree())) == "<>"
    assert empty.notes() == [branch("answer.0", "done", None, "", answer="<>")]
    for name in ("visits", "per_state", "judgements"):
        assert (
            told(ConfigError, lambda name=name: Opened().run(lambda ctx: tot_dfs(asks(), ctx, **{name: 0})))
            == f"{name} is 0: give 1 or more"
        )
