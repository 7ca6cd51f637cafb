"""Prompts are those of the published protocols, character by character; protocols are found by name."""

import gzip
import json
import os
from pathlib import Path

import pytest

import firsthand
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.hellaswag import from_hub as hellaswag_from_hub
from firsthand.benchmarks.hellaswag import read_item as hellaswag_item
from firsthand.benchmarks.protocols.protocol import Item, Protocol, fill, make_task
from firsthand.cli import main
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.scorers.choice import acc, acc_bytes, acc_mutual_info, acc_norm, mc1
from firsthand.task import Task

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not (SHARED / "olmes").is_dir(), reason="the full data is not on this machine")

OLMES = {
    "arc_challenge_test_mc": "arc_challenge@olmes-mc",
    "arc_challenge_test_rc": "arc_challenge@olmes-rc",
    "arc_easy_test_rc": "arc_easy@olmes-rc",
    "boolq_val_rc": "boolq@olmes-rc",
    "csqa_val_rc": "commonsense_qa@olmes-rc",
    "hellaswag_mc": "hellaswag@olmes-mc",
    "hellaswag_rc": "hellaswag@olmes-rc",
    "openbookqa_test_rc": "openbookqa@olmes-rc",
    "piqa_val_rc": "piqa@olmes-rc",
    "socialiqa_val_rc": "social_iqa@olmes-rc",
    "winogrande_val_rc": "winogrande@olmes-rc",
}


@pytest.fixture(autouse=True)
def a_clean_place(monkeypatch, tmp_path):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def requests(name):
    """The golden requests of OLMES: document -> its requests in order, those without the question from 1,000,000 on."""
    found = {}
    with gzip.open(SHARED / "olmes" / f"{name}_5shot.requests.jsonl.gz", "rt") as file:
        for each in map(json.loads, file):
            found.setdefault(each["doc_id"], []).append(each)
    return {doc: sorted(each, key=lambda request: request["idx"]) for doc, each in found.items()}


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", OLMES)
def test_every_request_of_olmes_is_rendered_to_the_byte(name):
    golden = requests(name)
    made = catalog.benchmark(f"{OLMES[name]}:data={SHARED}")
    tasks = made.tasks(0)
    assert made.name == OLMES[name] and len(tasks) == sum(doc < 1_000_000 for doc in golden) >= 500
    for index, task in enumerate(tasks):
        asked = [(each["request"]["context"], each["request"]["continuation"]) for each in golden[index]]
        assert list(task.scored) == asked
        assert golden[index][0]["label"] == task.secret["gold"]
        if alone := golden.get(index + 1_000_000):
            expected = [(each["request"]["context"], each["request"]["continuation"]) for each in alone]
            assert [(task.baseline, text) for _, text in task.scored] == expected


def test_the_default_protocol_has_the_bare_name_and_others_their_own():
    listed = catalog.protocols("arc_easy")
    assert (
        list(listed) == ["lm-eval-0shot", "smollm2", "olmes-rc"] and "lm-evaluation-harness" in listed["lm-eval-0shot"]
    )
    assert catalog.benchmark("arc_easy@lm-eval-0shot").name == catalog.benchmark("arc_easy").name == "arc_easy"
    made = catalog.benchmark("arc_easy@olmes-rc:data=packaged")
    assert made.name == "arc_easy@olmes-rc" == catalog.benchmark("arc_easy:protocol=olmes-rc").name
    assert made.options["protocol"] == "olmes-rc" and "5-shot (olmes)" in made.protocol
    assert made.tasks(0)[0].scored[0][0].count("Question: ") == 6


def test_an_unknown_protocol_is_refused_with_the_nearest_one():
    with pytest.raises(UnknownName, match="no protocol of arc_easy 'olmes_rc'; did you mean 'olmes-rc'"):
        catalog.benchmark("arc_easy@olmes_rc")
    with pytest.raises(ConfigError, match="arithmetic has no protocols: leave @x out"):
        catalog.benchmark("arithmetic@x")


def test_a_path_with_an_at_sign_is_a_path(tmp_path):
    folder = tmp_path / "a@b"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from firsthand import Benchmark\ndef mine() -> Benchmark:\n    return Benchmark('mine', lambda seed: [], ())\n"
    )
    assert catalog.benchmark(f"{folder}/mine.py").name == catalog.benchmark(f"{folder}/mine.py:mine").name == "mine"


def test_every_benchmark_says_what_its_protocols_reproduce():
    for name in catalog.names("benchmark"):
        for protocol, reproduces in catalog.protocols(name).items():
            assert len(reproduces) > 8, (name, protocol)


def test_templates_take_fields_and_nothing_else():
    assert fill("{a} {{b}} {a}", {"a": "{b}"}) == "{b} {b} {b}"
    assert fill(r"\boxed{{{a}}} \frac{1}{2}", {"a": "3"}) == r"\boxed{3} \frac{1}{2}"
    with pytest.raises(ConfigError, match=r"names \{questin\}; did you mean \{question\}"):
        fill("{questin}", {"question": "q"})
    assert fill("{a.__class__}{a[0]}", {"a": "x"}) == "{a.__class__}{a[0]}"


def test_hellaswag_is_cleaned_as_the_harness_does():
    row = {
        "activity_label": "Food", "ctx_a": "[header] How to boil [title] Take a pot. [step] Boil.", "ctx_b": "the WATER",
        "endings": ["boils. [substeps] Yes.", " b", "c", "d"], "label": "1",
    }  # fmt: skip
    assert hellaswag_from_hub(row) == {
        "query": "Food: How to boil. Take a pot. Boil. The water",
        "choices": ["boils. Yes.", "b", "c", "d"],
        "gold": 1,
    }
    shared = hellaswag_from_hub({**row, "source_id": "wikihow~1"})
    assert hellaswag_item(shared, "0", "row 0").metadata == {"cluster": "wikihow~1"}


CARD = {  # file, its row, what SmolLM2's own task file asks of it
    "hellaswag": (
        "hellaswag_validation.jsonl",
        {"query": "Food: Boil. The water", "choices": ["boils.", "b", "c", "d"], "gold": 1},
        [("Food: Boil. The water ", " boils."), ("Food: Boil. The water ", " b")],
    ),
    "piqa": (
        "piqa_validation.jsonl",
        {"query": "Goal: boil water\nAnswer:", "choices": ["heat it", "cool it"], "gold": 0},
        [("Question: boil water\nAnswer:", " heat it"), ("Question: boil water\nAnswer:", " cool it")],
    ),
    "winogrande": (
        "winogrande_validation.jsonl",
        {"sentence": "So _ won.", "option1": "Ann", "option2": "Bo", "answer": "1"},
        [("So ", "Ann won."), ("So ", "Bo won.")],
    ),
    "openbookqa": (
        "openbookqa_test.jsonl",
        {"query": "Question: The sun is\nAnswer:", "choices": ["hot", "cold"], "gold": 0},
        [("The sun is", " hot"), ("The sun is", " cold")],
    ),
    "commonsense_qa": (
        "commonsense_qa_validation.jsonl",
        {"query": "Question: Where is it?\nAnswer:", "choices": ["here", "there"], "gold": 0},
        [("Where is it?", " here"), ("Where is it?", " there")],
    ),
}


@pytest.mark.parametrize("name", CARD)
def test_the_protocols_of_smollm2_ask_what_its_card_was_measured_with(name, tmp_path):
    file, row, asked = CARD[name]
    (tmp_path / file).write_text(json.dumps(row) + "\n")
    benchmark = catalog.benchmark(f"{name}@smollm2:data={tmp_path}")
    assert list(benchmark.tasks(0)[0].scored[:2]) == asked
    assert benchmark.scorers[0] is acc_norm


def attempt(task, logprobs):
    """The scores of `direct` on a model whose log-probs are written down."""
    model = Scripted(["B"], score=lambda prompt, text: logprobs[prompt, text])
    scorers = (acc, acc_norm, acc_bytes, acc_mutual_info, mc1)
    made = Benchmark("made", lambda seed: [task], scorers)
    trace = firsthand.run_sync(rollout(Agent("direct", model, direct), task, benchmark=made))
    assert trace.error is None
    return {score.name: score.value for score in trace.scores}


def test_each_metric_chooses_by_its_own_rule():
    item = Item("a", {"question": "q"}, ("bb", "cccccccc", "éééé", "d"), 1)
    protocol = Protocol("made here", query="q", baseline="A:")
    asked = {" bb": -3.0, " cccccccc": -8.0, " éééé": -6.0, " d": -9.0}
    alone = {" bb": -1.0, " cccccccc": -3.5, " éééé": -2.0, " d": -5.0}
    logprobs = {("q", text): value for text, value in asked.items()} | {("A:", text): v for text, v in alone.items()}
    by = {
        "acc": 0,
        "acc_norm": 1,
        "acc_bytes": 2,
        "acc_mutual_info": 0,
    }  # -1.5 -1 -1.5 -9; -1.5 -1 -.75 -9; -2 -4.5 -4 -4
    for gold in range(4):
        task = make_task(Item("a", item.fields, item.choices, gold), protocol)
        found = attempt(task, logprobs)
        assert {name: found[name] == 1 for name in by} == {name: chosen == gold for name, chosen in by.items()}


def test_letters_and_endings_are_scored_where_they_stand():
    letters = make_task(
        Item("a", {"question": "q"}, ("x", "y"), 1),
        Protocol("made here", query="{question}\n{options}Answer:", continuation=" {letter}"),
    )
    before = "q\nA. x\nB. y\nAnswer:"
    assert letters.scored == ((before, " A"), (before, " B")) and letters.choices == (" x", " y")
    assert attempt(letters, {(before, " A"): -2.0, (before, " B"): -1.0})["acc"] == 1
    partial = make_task(
        Item("a", {"question": "q", "before": "So ", "after": "won."}, ("Ann", "Bo"), 1),
        Protocol("made here", query="{before}{choice}", continuation=" {after}"),
    )
    assert partial.context is None
    assert attempt(partial, {("So Ann", " won."): -2.0, ("So Bo", " won."): -1.0})["acc"] == 1
    assert attempt(partial, {("So Ann", " won."): -1.0, ("So Bo", " won."): -2.0})["acc"] == 0


def test_a_task_survives_its_record():
    task = make_task(
        Item("a", {"question": "q"}, ("x", "y"), 1), Protocol("here", continuation=" {letter}", baseline="")
    )
    written = make_task(
        Item("a", {"question": "q"}, secret={"answer": "1"}), Protocol("here", continuation=None, stop=("Q",))
    )
    for each in (task, written):
        assert Task.from_json(json.loads(json.dumps(each.to_json()))) == each
    old = {name: task.to_json()[name] for name in ("id", "prompt", "choices", "context", "hint", "metadata", "secret")}
    assert Task.from_json(old).requests == ()


def test_examples_that_are_missing_are_named():
    with pytest.raises(ConfigError, match="shows 2 examples"):
        make_task(Item("a", {"question": "q"}, ("x", "y")), Protocol("none", shots=2, examples="olmes"))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}, "a gap '_'"),
        ({"sentence": "a _", "option1": "a", "option2": "b", "answer": "3"}, "an answer 1 or 2"),
        ({"sentence": "a _", "option1": "a", "answer": "1"}, "'option2'"),
    ],
)
def test_a_broken_row_of_winogrande_is_named(tmp_path, broken, says):
    (tmp_path / "winogrande_validation.jsonl").write_text(json.dumps(broken) + "\n")
    with pytest.raises(DataError, match=says) as caught:
        catalog.benchmark(f"winogrande:data={tmp_path}")
    assert "winogrande_validation.jsonl, line 1" in str(caught.value)


@needs_data
@pytest.mark.slow
def test_questions_about_one_passage_are_a_cluster_in_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tasks = catalog.benchmark(f"boolq:data={SHARED}").tasks(0)[:150]
    passages = {}
    for task in tasks:
        passages.setdefault(task.cluster, []).append(task)
    assert 1 < len(passages) < len(tasks)
    assert all(task.context.startswith(title) for title, each in passages.items() for task in each)
    words = [
        "run",
        f"boolq:data={SHARED}",
        "--model",
        "scripted:echo",
        "--pattern",
        "direct",
        "--limit",
        "150",
        "--json",
    ]
    assert main(words) == 0
    (board,) = json.loads(capsys.readouterr().out)["boards"]
    score = board["rows"][0]["score"]
    assert score["clusters"] == len(passages) and score["inflation"] > 0
    assert any(f"fall into {len(passages)} clusters" in caveat for caveat in board["caveats"])
