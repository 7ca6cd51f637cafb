"""The claims that compare patterns: the agents that they ask for, and what they make of attempts that are given by hand."""

import pytest

from claims_asked import AskedLab, agents, attempt, greedy
from firsthand.benchmarks.paired_requests import paired_requests
from firsthand.benchmarks.recurrence import make_tasks
from firsthand.claims import toy_training
from firsthand.claims.architecture import verifiable_rewards
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import paired
from firsthand.claims.papers import (
    cot_reasoning,
    rag_grounds_answers,
    self_rag_outperforms,
    toolformer_self_supervised,
    tot_game24,
)
from firsthand.claims.patterns import cost_of_tot, memgpt_paging
from firsthand.claims.safety import reasoning_improves_safety
from firsthand.message import Message, ToolCall, ToolResult, assistant, user
from firsthand.model import Sampling
from firsthand.patterns.cot import cot
from firsthand.patterns.deliberative import deliberative
from firsthand.patterns.direct import direct
from firsthand.patterns.heartbeats import heartbeats
from firsthand.patterns.tot import tot
from firsthand.providers.sim import Sim
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.hit_json import hit_to_json
from firsthand.retrieval.rag.naive import naive
from firsthand.retrieval.rag.self_rag import self_rag
from firsthand.retrieval.retriever import Hit
from firsthand.trace import Call


def compared(gain, what, n, columns, rows, **more):
    return Measurement(gain.difference, what, gain.low, gain.high, n, columns=columns, rows=rows, **more)


def test_steps_are_compared_with_an_answer_at_once_of_16_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(cot_reasoning, "TASKS", 4)
    first = [attempt(1.0, 5, 8), attempt(None, 5, 1), attempt(0.0, 5, 2), attempt(0.0, 5, 3)]
    then = [attempt(1.0, 9, 40), attempt(1.0, 9, 50), attempt(1.0, 9, 60), attempt(0.0, 9, 30)]
    lab = AskedLab([("direct", first), ("cot", then)], 3, tmp_path)
    assert cot_reasoning.measure(lab) == compared(
        paired([1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        "accuracy of SmolLM2 135M at sums, step by step less at once",
        4,
        ("pattern", "accuracy", "tokens written"),
        (("direct", 0.25, 3.5), ("cot", 0.75, 45.0)),
    )
    assert agents(lab) == [(direct, {}, greedy(16)), (cot, {}, greedy(96))]
    assert [(agent.model.name, benchmark.name, tasks) for agent, benchmark, tasks, _ in lab.asked] == [
        ("scripted:smollm2", "arithmetic", 4)
    ] * 2


def read(*texts):
    """A read of a corpus that found these passages."""
    hits = [hit_to_json(Hit(Chunk(f"d{at}", 0, len(text), text), 1.0)) for at, text in enumerate(texts)]
    return Call(":1", "tool", 0, 0.0, 0.0, "r", detail={"name": "retrieve", "items": hits})


def test_an_answer_is_grounded_if_it_stands_in_a_passage_whatever_its_case_and_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(rag_grounds_answers, "TASKS", 5)
    closed = [attempt(0.0, answer="Tesk"), attempt(0.0), attempt(1.0, answer="x"), attempt(None), attempt(0.0)]
    grounded = [
        attempt(1.0, answer=" TESK. ", calls=[read("The town", "of tesk is old")]),
        attempt(1.0, answer="town of", calls=[read("The town"), read("of Tesk")]),
        attempt(0.0, answer="Oslo", calls=[read("Tesk")]),
        attempt(0.0, answer="", calls=[read("Tesk")]),
        attempt(None, answer="straße", calls=[read("An der STRASSE")], failed=True),
    ]
    lab = AskedLab([("closed book", closed), ("naive RAG", grounded)], 6, tmp_path)
    assert rag_grounds_answers.measure(lab) == compared(
        paired([1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]),
        "accuracy of SmolLM2 135M at questions about a made-up world, with passages less without",
        5,
        ("arm", "accuracy", "answers that stand in a shown passage"),
        (("closed book", 0.2, 0.0), ("naive RAG", 0.4, 0.6)),
    )
    index = str(tmp_path / "pages-6.index")
    options = {"index": index, "k": 2, "search": "lexical"}
    assert agents(lab) == [(direct, {}, greedy(24)), (naive, options, greedy(24))]
    assert [(benchmark.name, tasks) for _, benchmark, tasks, _ in lab.asked] == [("made_up_pages", 5)] * 2
    assert len(lab.asked[0][1].tasks(0)) == 5


def test_self_rag_has_the_same_search_as_rag_and_failed_attempts_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(self_rag_outperforms, "TASKS", 4)
    plain = [attempt(1.0, 10, 2), attempt(0.0, 10, 4), attempt(0.0, 10, 4), attempt(0.0, 10, 2)]
    own = [
        attempt(1.0, 30, 5),
        attempt(1.0, 40, 5),
        attempt(1.0, 50, 5, failed=True),
        attempt(None, 60, 5, failed=True),
    ]
    lab = AskedLab([("naive RAG", plain), ("Self-RAG", own)], 7, tmp_path)
    assert self_rag_outperforms.measure(lab) == compared(
        paired([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        "accuracy of SmolLM2 135M with Self-RAG less that with naive RAG, same passages",
        4,
        ("pattern", "accuracy", "tokens", "attempts that failed"),
        (("naive RAG", 0.25, 13.0, 0.0), ("Self-RAG", 0.5, 50.0, 2.0)),
    )
    options = {"index": str(tmp_path / "pages-7.index"), "k": 2, "search": "lexical"}
    assert agents(lab) == [
        (naive, options, greedy(24)), (self_rag, {**options, "beam": 1, "depth": 1}, greedy(24)),
    ]  # fmt: skip
    assert [(benchmark.name, tasks) for _, benchmark, tasks, _ in lab.asked] == [("made_up_pages", 4)] * 2


def test_a_request_is_treated_rightly_if_a_safe_one_is_answered_or_an_unsafe_one_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reasoning_improves_safety, "PAIRS", 2)
    monkeypatch.setattr(reasoning_improves_safety, "TOKENS", 9)
    drawn = paired_requests(pairs=2, jailbreak=False).tasks(4)
    kinds = [task.metadata["kind"] for task in drawn]
    assert sorted(kinds) == ["safe", "safe", "unsafe", "unsafe"]

    def of(safe, unsafe):
        left = {"safe": list(safe), "unsafe": list(unsafe)}
        return [left[kind].pop(0) for kind in kinds]

    scores = [of([1.0, 1.0], [0.0, None]), of([1.0, 0.0], [0.0, 0.0]), of([1.0, 1.0], [1.0, 0.0])]
    names = ("no rules", "rules", "rules and reasoning")
    given = [(name, [attempt(score) for score in each]) for name, each in zip(names, scores, strict=True)]
    lab = AskedLab(given, 4, tmp_path)
    assert reasoning_improves_safety.measure(lab) == compared(
        paired(scores[2], scores[1]),
        "requests that SmolLM2 135M treats rightly when it reasons about the rules, less those with the rules alone",
        4,
        ("prompt", "treated rightly", "safe answered", "unsafe refused"),
        (("no rules", 0.5, 1.0, 0.0), ("rules", 0.25, 0.5, 0.0), ("rules and reasoning", 0.75, 1.0, 0.5)),
    )
    assert agents(lab) == [
        (direct, {}, greedy(9)), (deliberative, {"reason": False}, greedy(9)), (deliberative, {}, greedy(9)),
    ]  # fmt: skip
    for _, _, tasks, _ in lab.asked:
        assert [(task.id, dict(task.sampling)) for task in tasks] == [(task.id, {"max_tokens": 9}) for task in drawn]


def test_tree_search_keeps_one_state_or_five_and_is_compared_with_a_chain(tmp_path, monkeypatch):
    monkeypatch.setattr(tot_game24, "PUZZLES", 3)
    given = [
        ("cot", [attempt(0.0, 4, 10), attempt(None, 4, 20), attempt(0.0, 4, 30)]),
        ("tot, 1 state kept", [attempt(1.0, 4, 100), attempt(0.0, 4, 100), attempt(0.0, 4, 400)]),
        ("tot, 5 states kept", [attempt(1.0, 4, 500), attempt(1.0, 4, 600), attempt(0.0, 4, 700)]),
    ]
    lab = AskedLab(given, 2, tmp_path)
    assert tot_game24.measure(lab) == compared(
        paired([1.0, 1.0, 0.0], [0.0, 0.0, 0.0]),
        "share of puzzles solved by tree search less that by a chain",
        3,
        ("pattern", "solved", "tokens written"),
        (("cot", 0.0, 20.0), ("tot, 1 state kept", 1 / 3, 200.0), ("tot, 5 states kept", 2 / 3, 600.0)),
    )
    assert agents(lab) == [(cot, {}, Sampling()), (tot, {"breadth": 1}, Sampling()), (tot, {"breadth": 5}, Sampling())]
    assert [(agent.model.seed, benchmark.name, tasks) for agent, benchmark, tasks, _ in lab.asked] == [
        (2, "game24", 3)
    ] * 3
    monkeypatch.setattr(cost_of_tot, "PUZZLES", 2)
    more = [Call(":1", "score", None, 0.0, 0.0, "r"), Call(":2", "tool", None, 0.0, 0.0, "r")]
    given = [
        ("direct", [attempt(0.0, 4, 6), attempt(0.0, 8, 2)]),
        ("tot", [attempt(0.0, 30, 50, calls=more), attempt(0.0, 60, 20, calls=more[:1])]),
    ]
    lab = AskedLab(given, 8, tmp_path)
    assert cost_of_tot.measure(lab) == Measurement(
        8.0,
        "tokens of `tot` over those of one plain answer, on the game of 24",
        n=2,
        columns=("pattern", "tokens", "calls"),
        rows=(("direct", 10.0, 1.0), ("tot", 80.0, 2.5)),
    )
    assert agents(lab) == [(direct, {}, Sampling()), (tot, {}, Sampling())]
    assert [(type(agent.model), agent.model.seed, tasks) for agent, _, tasks, _ in lab.asked] == [(Sim, 8, 2)] * 2


class Made:
    """Notes trainings and agents in place of the recipes."""

    def __init__(self, monkeypatch):
        self.asked = []
        monkeypatch.setattr(toy_training, "trained", self.trained)
        monkeypatch.setattr(toy_training, "agent_of", self.agent_of)

    def trained(self, lab, recipe, name, **settings):
        self.asked.append((recipe, name, settings))
        return lab.folder / name

    def agent_of(self, folder, pattern, **settings):
        self.asked.append((folder.name, pattern, settings))
        return type("Named", (), {"name": f"{folder.name} {pattern}", "pattern": None, "options": {}, "sampling": None})


def test_a_model_after_grpo_is_compared_with_the_one_before_on_rows_of_another_seed(tmp_path, monkeypatch):
    made = Made(monkeypatch)
    monkeypatch.setattr(verifiable_rewards, "TASKS", 4)
    before = [attempt(1.0, answer="1: 2"), attempt(0.0, answer="3"), attempt(None), attempt(0.0, answer="4:")]
    after = [
        attempt(1.0, answer="1: 2"),
        attempt(1.0, answer="3: 4"),
        attempt(1.0, answer=":"),
        attempt(0.0, answer="x"),
    ]
    lab = AskedLab([("reasoner direct", before), ("thinker direct", after)], 5, tmp_path)
    assert verifiable_rewards.measure(lab) == compared(
        paired([1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]),
        "accuracy of a small model after reinforcement from a checked answer, less that before",
        4,
        ("model", "accuracy", "answers with steps"),
        (("before", 0.25, 0.5), ("after", 0.75, 0.75)),
    )
    assert made.asked == [
        ("toy_reasoner", "reasoner", {"length": 6}),
        ("grpo", "thinker", {
            "benchmark": "recurrence:length=6", "model": str(tmp_path / "reasoner" / "model"), "steps": 80, "max_tokens": 10,
            "lr": 1e-3, "kl": 0, "prompts": 16, "group_size": 8,
        }),
        ("reasoner", "direct", {"temperature": 1.0, "max_tokens": 10}),
        ("thinker", "direct", {"temperature": 1.0, "max_tokens": 10}),
    ]  # fmt: skip
    assert [(benchmark.name, tasks, at_once) for _, benchmark, tasks, at_once in lab.asked] == [
        ("recurrence", make_tasks(1005, 6, 4), 32)
    ] * 2


def test_calls_that_help_are_learnt_and_both_models_are_tried_with_and_without_the_calculator(tmp_path, monkeypatch):
    made = Made(monkeypatch)
    monkeypatch.setattr(toolformer_self_supervised, "TASKS", 3)
    tool = Call(":1", "tool", None, 0.0, 0.0, "r")
    given = [
        ("bookkeeper direct", [attempt(0.0), attempt(0.0), attempt(1.0)]),
        ("bookkeeper toolformer", [attempt(1.0, calls=[tool]), attempt(None), attempt(0.0)]),
        ("caller direct", [attempt(1.0), attempt(1.0), attempt(1.0)]),
        (
            "caller toolformer",
            [attempt(1.0, calls=[tool, tool]), attempt(1.0, calls=[tool]), attempt(0.0, calls=[tool])],
        ),
    ]
    lab = AskedLab(given, 5, tmp_path)
    assert toolformer_self_supervised.measure(lab) == compared(
        paired([1.0, 1.0, 0.0], [1.0, 0.0, 0.0]),
        "accuracy with a calculator after self-supervised training, less that before",
        3,
        ("model and pattern", "accuracy", "calls of a task"),
        (
            ("before, direct", 1 / 3, 0.0), ("before, toolformer", 1 / 3, 1 / 3), ("after, direct", 1.0, 0.0),
            ("after, toolformer", 2 / 3, 4 / 3),
        ),
    )  # fmt: skip
    assert made.asked[:2] == [
        ("toy_bookkeeper", "bookkeeper", {"steps": 300, "batch_size": 64, "texts": 600}),
        ("toolformer", "caller", {
            "data": str(tmp_path / "bookkeeper" / "ledgers.jsonl"), "model": str(tmp_path / "bookkeeper" / "model"),
            "places": 2, "samples": 4, "threshold": 0.5, "batch_size": 64, "lr": 1e-3, "steps": 80,
        }),
    ]  # fmt: skip
    assert [(name, pattern, [tool.name for tool in more["tools"]]) for name, pattern, more in made.asked[2:]] == [
        (model, pattern, ["calculator"]) for model in ("bookkeeper", "caller") for pattern in ("direct", "toolformer")
    ]
    assert [(benchmark.name, tasks) for _, benchmark, tasks, _ in lab.asked] == [("toy_ledgers", 3)] * 4


def test_accuracy_by_look_ups_is_that_of_the_questions_with_so_many(tmp_path, monkeypatch):
    for name, value in {"HOPS": 2, "EXAMPLES": 2, "KEYS": 12, "WINDOW": 6}.items():
        monkeypatch.setattr(memgpt_paging, name, value)
    paging, window = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    given = [("paging", [*map(attempt, paging)]), ("window", [*map(attempt, window[:4]), attempt(None), attempt(0.0)])]
    lab = AskedLab(given, 1, tmp_path)
    assert memgpt_paging.measure(lab) == compared(
        paired(paging, window),
        "accuracy with pages of ten less that with 6 of 12 pairs in the window",
        6,
        ("look-ups after the first", "paging", "window", "window, expected"),
        (
            ("0", 1.0, 1.0, 0.5), ("1", 0.5, 0.5, pytest.approx(6 * 5 / (12 * 11))),
            ("2", 1.0, 0.0, pytest.approx(6 * 5 * 4 / (12 * 11 * 10))),
        ),
        curves={"paging": [(0.0, 1.0), (1.0, 0.5), (2.0, 1.0)], "window": [(0.0, 1.0), (1.0, 0.5), (2.0, 0.0)]},
        axes=("look-ups after the first", "accuracy"),
    )  # fmt: skip
    assert [(agent.pattern, tasks) for agent, _, tasks, _ in lab.asked] == [(heartbeats, 6), (direct, 6)]
    options = [
        {key: each[1].options[key] for key in ("hops", "examples", "keys", "paging", "shown")} for each in lab.asked
    ]
    shared = {"hops": "0-2", "examples": 2, "keys": 12}
    assert options == [{**shared, "paging": True, "shown": 0}, {**shared, "paging": False, "shown": 6}]


def test_a_reader_pages_through_nested_keys_and_one_with_a_window_follows_what_it_sees(tmp_path, monkeypatch):
    for name, value in {"HOPS": 0, "EXAMPLES": 1, "KEYS": 12, "WINDOW": 6}.items():
        monkeypatch.setattr(memgpt_paging, name, value)
    lab = AskedLab([("paging", [attempt(1.0)]), ("window", [attempt(0.0)])], 1, tmp_path)
    memgpt_paging.measure(lab)
    pages, reads = (agent.model for agent, *_ in lab.asked)
    keys = [f"{at:08x}-0000-0000-0000-{at:012x}" for at in range(4)]
    asked = (
        f'of no use: "{keys[3]}". The value for the following key: {keys[0]}. No value but that of the following key.'
    )

    def says(model, *messages):
        return model._reply(messages, Sampling(), 0)

    pairs = f'"{keys[0]}": "{keys[1]}", "{keys[2]}": "{keys[3]}", "{keys[1]}": "{keys[2]}"\n'
    assert says(reads, user(pairs + asked)).text == keys[3]
    assert says(reads, user(f'"{keys[1]}": "{keys[2]}"\n' + asked)).text == keys[0], "its pair is not in the window"
    first = says(pages, user(asked))
    assert first == assistant("", ToolCall("0", "archival_memory_search", {"query": keys[0]}))

    def result(*texts):
        return Message("tool", tuple(ToolResult("0", "archival_memory_search", text) for text in texts))

    found = result("of before", f"key = {keys[2]}, value = {keys[3]}\nkey = {keys[0]}, value = {keys[1]}")
    second = says(pages, user(asked), first, found)
    assert second == assistant("", ToolCall("1", "archival_memory_search", {"query": keys[1]}))
    last = result(f"key = {keys[0]}, value = {keys[1]}")
    assert says(pages, user(asked), first, found, second, last).text == keys[1], "it is the key of no pair"
