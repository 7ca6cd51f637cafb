"""Tasks of lm-evaluation-harness: the same metrics as its own evaluator gives, to the digit, on the same model."""

import asyncio
import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.bridges.lm_eval.document_scores import _turned, answers
from firsthand.bridges.lm_eval.document_tasks import _read, _sampling, as_marker
from firsthand.bridges.lm_eval.task_files import code_in, names_in
from firsthand.bridges.lm_eval.task_loading import known_metrics, load_tasks
from firsthand.bridges.lm_eval.task_yaml import read_yaml
from firsthand.errors import ConfigError, DataError, MissingExtra
from firsthand.message import Message, Text
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.perturbations.perturbed_benchmark import perturbed
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollouts
from firsthand.runs.store import create
from firsthand.show.board import leaderboard
from firsthand.stats.figure_stats import figure_interval
from firsthand.system.described_code import code_digest
from firsthand.task import Task
from firsthand.trace import Trace

HAS_HARNESS = bool(__import__("importlib.util", fromlist=["util"]).find_spec("lm_eval"))
needs_harness = pytest.mark.skipif(not HAS_HARNESS, reason="needs pip install 'firsthand[lm-eval]'")

CITIES = [("France", "Paris"), ("Peru", "Lima"), ("Kenya", "Nairobi"), ("Japan", "Tokyo"), ("Chad", "N'Djamena"),
          ("Fiji", "Suva"), ("Cuba", "Havana"), ("Mali", "Bamako")]  # fmt: skip


def rows() -> list[dict]:
    names = [city for _, city in CITIES]
    return [
        {"country": country, "city": city, "choices": [names[i], names[(i + 1) % 8], names[(i + 3) % 8]], "gold": 0}
        for i, (country, city) in enumerate(CITIES)
    ]


COMMON = """
dataset_path: json
dataset_kwargs:
  data_files: {{train: {folder}/train.jsonl, test: {folder}/test.jsonl}}
training_split: train
test_split: test
fewshot_split: train
"""
YAML = {
    "choose": """
task: choose
output_type: multiple_choice
description: "Capitals.\\n\\n"
doc_to_text: "What is the capital of {{country}}?\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
num_fewshot: 2
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
""",
    "which": """
task: which
output_type: multiple_choice
doc_to_text: gold
doc_to_choice: '{{ ["In " ~ choices[0], "In " ~ choices[1]] }}'
doc_to_target: "lies the seat of government of {{country}}."
metric_list:
  - {metric: f1, aggregation: f1, higher_is_better: true}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "complete": """
task: complete
output_type: loglikelihood
doc_to_text: "The capital of {{country}} is"
doc_to_target: " {{city}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "rolling": """
task: rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{city}} is the capital of {{country}}."
num_fewshot: 0
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
""",
    "write": """
task: write
output_type: generate_until
doc_to_text: "Q: What is the capital of {{country}}?\\nA:"
doc_to_target: "{{city}}"
num_fewshot: 3
fewshot_config: {sampler: first_n}
generation_kwargs: {until: ["\\n", "Q:"], max_gen_toks: 12, do_sample: false}
filter_list:
  - name: strict
    filter:
      - {function: regex, regex_pattern: "is ([A-Z][a-z']+)\\\\."}
      - {function: take_first}
  - name: last-word
    filter:
      - {function: regex, regex_pattern: "([A-Z]\\\\S+)", group_select: -1}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
  - {metric: bleu, aggregation: bleu, higher_is_better: true}
""",
    "vote": """
task: vote
output_type: generate_until
repeats: 3
doc_to_text: "Q: What is the capital of {{country}}?\\nA:"
doc_to_target: "{{city}}"
generation_kwargs: {until: ["\\n"], do_sample: true, temperature: 0.7}
filter_list:
  - name: maj
    filter:
      - {function: regex, regex_pattern: "([A-Z]\\\\S+)", group_select: -1}
      - {function: majority_vote}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
}
GROUP = """
group: geography
task:
  - choose
  - complete
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Task files over local JSON lines, in a place of their own."""
    place = tmp_path_factory.mktemp("harness")
    write(place / "test.jsonl", rows())
    write(place / "train.jsonl", [{**row, "country": f"old {row['country']}"} for row in rows()])
    for name, text in YAML.items():
        (place / f"{name}.yaml").write_text(text + COMMON.format(folder=place))
    (place / "geography.yaml").write_text(GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(place / "hf"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        yield place


def write(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def chance(before: str, text: str) -> float:
    """The log-prob of a text: a hash of it and of what stands before it."""
    digest = hashlib.sha256(f"{before}\x00{text}".encode()).digest()
    return math.log((int.from_bytes(digest[:6], "big") + 0.5) / 2**48) * (1 + len(text) / 7)


def said(before: str, time: int = 0) -> str:
    """What is written after a prompt: a country's capital, or another one, by hash."""
    country = before.rpartition("capital of ")[2].partition("?")[0]
    pick = hashlib.sha256(f"{before}{time}".encode()).digest()[0] % 3
    city = dict(CITIES).get(country, "nowhere") if pick else "Rome"
    return [f" I think it is {city}.", f" The city is {city}", f" {city}."][pick]


def model() -> Scripted:
    """Ours: it scores and writes by those two. Which epoch it is in, it can tell by the seed alone."""
    return Scripted(lambda messages, sampling, index: said(messages[-1].text), score=chance)


def harness_lm(times: bool = False):
    """Theirs: an LM of the harness that scores and writes by those two."""
    from lm_eval.api.model import LM

    class HashLM(LM):
        def loglikelihood(self, requests, **kwargs):
            found = [chance(*request.args[:2]) for request in requests]
            return [(each, each > math.log(0.5)) for each in found]

        def loglikelihood_rolling(self, requests, **kwargs):
            return [chance("", request.args[0]) for request in requests]

        def generate_until(self, requests, **kwargs):
            asked: dict[str, int] = {}
            out = []
            for request in requests:
                before = request.args[0]
                asked[before] = asked.get(before, -1) + 1
                out.append(said(before, asked[before] if times else 0))
            return out

    return HashLM()


def theirs(
    name: Path | str, *, include: Path | None = None, shots: int | None = None, seed: int = 1234, **options
) -> dict:
    """The same without what the harness tells about the machine, which takes seconds."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_defaults=False, include_path=include).load(str(name))
    for task in loaded["tasks"].values():
        if shots is not None or task.config.num_fewshot is None:
            task.set_config("num_fewshot", shots or 0)
        task.set_fewshot_seed(seed)
    return evaluate(options.pop("lm", None) or harness_lm(), loaded, bootstrap_iters=0, **options)


def ours(benchmark: Benchmark, model: Scripted | None = None, pattern=direct, epochs: int = 1) -> list[Trace]:
    """Our attempts, in the order of the tasks."""

    async def attempt() -> list[Trace]:
        agent = Agent("direct", model or globals()["model"](), pattern)
        places = [Place(agent, benchmark, task, epoch) for task in benchmark.tasks(0) for epoch in range(epochs)]
        found = {trace.place: trace async for trace in rollouts(places)}
        return [found[place.id] for place in places]

    return asyncio.run(attempt())


def metrics(benchmark: Benchmark, traces: list[Trace]) -> dict[str, float]:
    """Our metrics: means of scores, and figures in place of those that are no means."""
    board = leaderboard(traces, figures={benchmark.name: benchmark.figures})[0]
    row = board.rows[0]
    return {board.metric: row.score.value} | {name: each.value for name, each in row.secondary.items()}


def same(mine: dict[str, float], results: dict) -> None:
    """Each metric of theirs is among ours, equal to the digit."""
    found = {key: value for key, value in results.items() if "," in key and "_stderr" not in key}
    assert found
    for key, value in found.items():
        assert mine[key.removesuffix(",none")] == pytest.approx(value, rel=1e-15, abs=1e-15), key


@needs_harness
@pytest.mark.slow
@pytest.mark.parametrize("name", ["choose", "which", "complete", "rolling", "write"])
def test_every_output_type_gives_the_metrics_that_the_harness_gives(name: str, folder: Path) -> None:
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/{name}.yaml")
    results = theirs(folder / f"{name}.yaml")
    traces = ours(benchmark)
    assert [trace.error for trace in traces] == [None] * 8
    same(metrics(benchmark, traces), results["results"][name])
    for trace, task in zip(traces, benchmark.tasks(0), strict=True):  # and document by document
        samples = [each for each in results["samples"][name] if f"{name}-{each['doc_id']:04d}" == task.id]
        for sample in samples:
            for metric in sample["metrics"]:
                key = metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"
                if isinstance(sample[metric], int | float):
                    assert trace.score(key).value == sample[metric], (task.id, key)


@needs_harness
def test_other_metrics_or_filters_of_a_task_are_another_scorer(folder: Path) -> None:
    def digest(text: str) -> str:
        (folder / "write.yaml").write_text(text)
        return code_digest(catalog.benchmark(f"lm_eval:task={folder}/write.yaml").scorers[0])

    begun = (folder / "write.yaml").read_text()
    assert "ignore_case: true" in begun
    assert (
        digest(begun)
        == digest("# as before\n" + begun)
        != digest(begun.replace("ignore_case: true", "ignore_case: false"))
    )


@needs_harness
@pytest.mark.slow
def test_the_door_of_the_harness_s_command_line_gives_the_same(folder: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    for name, options in {"choose": {}, "write": {"num_fewshot": 2}}.items():
        file, manager = str(folder / f"{name}.yaml"), TaskManager(include_defaults=False)
        results = simple_evaluate(harness_lm(), tasks=[file], task_manager=manager, bootstrap_iters=0, **options)
        given = "".join(f":{key}={value}" for key, value in options.items())
        benchmark = catalog.benchmark(f"lm_eval:task={file}{given}")
        same(metrics(benchmark, ours(benchmark)), results["results"][name])


@needs_harness
@pytest.mark.slow
def test_prompts_are_the_harness_s_own_with_other_shots_a_limit_a_seed_and_a_system_instruction(folder: Path) -> None:
    options = "num_fewshot=1:limit=3:seed=7:system_instruction=Be brief."
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/choose.yaml:{options}")
    how = {"shots": 1, "limit": 3, "seed": 7, "system_instruction": "Be brief."}
    samples = theirs(folder / "choose.yaml", **how)["samples"]["choose"]
    asked = [[list(pair) for pair in task.scored] for task in benchmark.tasks(0)]
    assert asked == [[list(pair) for pair in each["arguments"][:3]] for each in samples] and len(asked) == 3
    assert asked[0][0][0].startswith("Be brief.") and "capital of old " in asked[0][0][0]
    other = catalog.benchmark(f"lm_eval:task={folder}/choose.yaml:num_fewshot=1:limit=3:seed=8")
    assert other.name == "lm_eval:choose:num_fewshot=1:seed=8" != benchmark.name  # one run may hold both
    assert [task.scored for task in other.tasks(0)] != [task.scored for task in benchmark.tasks(0)]


@needs_harness
@pytest.mark.slow
def test_a_chat_template_gives_messages_and_the_turns_that_the_harness_renders(folder: Path) -> None:
    from lm_eval.api.model import TemplateLM

    rendered: list[list[dict]] = []

    class Chat(type(harness_lm())):  # what the harness would have its template render
        tokenizer_name = "none"

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            rendered.append(chat_history)
            return json.dumps(chat_history)

        def chat_template(self, name):
            return ""

    assert issubclass(TemplateLM, object)
    options = "apply_chat_template=true:fewshot_as_multiturn=true:system_instruction=Be brief."
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/write.yaml:{options}")
    how = {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": "Be brief."}
    theirs(folder / "write.yaml", lm=Chat(), **how)
    scripted = model()
    ours(benchmark, scripted)
    asked = [[{"role": m.role, "content": m.text} for m in each.prompt] for each in scripted.asked]
    assert asked == rendered and [turn["role"] for turn in asked[0]][:3] == ["system", "user", "assistant"]
    chosen = catalog.benchmark(f"lm_eval:task={folder}/choose.yaml:apply_chat_template=true")
    scripted = model()
    traces = ours(chosen, scripted)
    spoken = next(each for each in scripted.asked if not isinstance(each.prompt, str))
    assert spoken.continuations[0] == "Paris" and spoken.prompt[0].role == "system"
    assert all(trace.score("acc") and not trace.scores[0].failed for trace in traces)


@needs_harness
@pytest.mark.slow
def test_a_group_gives_its_aggregate_and_its_tasks(folder: Path) -> None:
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/geography.yaml:limit=5")
    results = theirs("geography", include=folder, limit=5)
    mine = metrics(benchmark, ours(benchmark))
    assert len(benchmark.tasks(0)) == 10 and {task.stratum for task in benchmark.tasks(0)} == {"choose", "complete"}
    assert {task.stratum for task in catalog.benchmark(f"lm_eval:task={folder}/choose.yaml:limit=5").tasks(0)} == {None}
    same({key.removeprefix("geography "): value for key, value in mine.items()}, results["groups"]["geography"])
    same({key.removeprefix("choose "): value for key, value in mine.items()}, results["results"]["choose"])
    same({key.removeprefix("complete "): value for key, value in mine.items()}, results["results"]["complete"])


@needs_harness
@pytest.mark.slow
def test_repeats_are_epochs_and_a_majority_filter_sees_all_of_them(folder: Path) -> None:
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/vote.yaml")
    assert "run it with --epochs 3" in benchmark.protocol
    times: dict[str, int] = {}

    def reply(messages, sampling, index):
        before = messages[-1].text
        times[before] = times.get(before, -1) + 1
        return said(before, times[before])

    traces = ours(benchmark, Scripted(reply), epochs=3)
    assert {call.detail["sampling"]["temperature"] for trace in traces for call in trace.calls} == {0.7}
    results = theirs(folder / "vote.yaml", lm=harness_lm(times=True))["results"]["vote"]
    same(metrics(benchmark, traces), results)
    assert 0 < results["exact_match,maj"] < 1


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, {"stop": (), "max_tokens": 256, "temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.7}, {"temperature": 0.7}),
        ({"do_sample": True, "temperature": 0.0}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"temperature": None}, {"temperature": 0.0}),
        ({"until": "x"}, {"stop": ("x",)}),
        ({"until": ["a", "", None, 3]}, {"stop": ("a", "3")}),
        ({"max_gen_toks": 7, "max_tokens": 9}, {"max_tokens": 7}),
        ({"max_gen_toks": None, "max_new_tokens": 8, "max_tokens": 9}, {"max_tokens": 8}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"top_p": 0.5, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2, "num_beams": 1},
         {"top_p": 0.5, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2}),
    ],
)  # fmt: skip
def test_generation_settings_are_read_by_the_harness_s_rules(settings: dict, found: dict) -> None:
    plain = {"stop": (), "max_tokens": 256, "temperature": 0.0}
    assert _sampling(settings) == plain | found
    with pytest.raises(DataError, match="beam search with 2 beams"):
        _sampling({**settings, "num_beams": 2})


def test_a_conversation_ends_with_what_a_user_says_and_has_no_roles_but_three() -> None:
    def read(*roles: str) -> tuple:
        return _read(as_marker([{"role": role, "content": f"{role} {place}"} for place, role in enumerate(roles)]))

    before, last = read("system", "user", "assistant", "user")
    assert [message.role for message in before] == ["system", "user", "assistant"] and last == "user 3"
    assert read("user") == ((), "user 0") and _read("plain text") == _read(None) == ((), None)
    for roles in (("user", "assistant"), ("system",), ("tool", "user"), ("user", "tool", "user")):
        with pytest.raises(DataError, match="a user message was expected"):
            read(*roles)


@needs_harness
def test_where_less_is_better_agents_are_ranked_by_a_reciprocal(folder: Path) -> None:
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/rolling.yaml:limit=2")
    for trace in ours(benchmark):
        first, *others = [(score.name, score.value) for score in trace.scores]
        byte_perplexity = dict(others)["byte_perplexity"]
        assert first == ("1/byte_perplexity", pytest.approx(1 / byte_perplexity)) and byte_perplexity > 1
        assert {name for name, _ in others} == {"word_perplexity", "byte_perplexity", "bits_per_byte"}
        assert [score.is_harm for score in trace.scores] == [False, True, True, True]
    assert (_turned("word_perplexity"), _turned("brier_score")) == ("1/word_perplexity", "1/(1+brier_score)")


@needs_harness
def test_responses_come_in_the_order_of_their_epochs_whatever_order_attempts_ended_in(folder: Path) -> None:
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/vote.yaml:limit=3")
    replies = iter(["Paris", "Rome", "Oslo", "Rome", "Lima", "Oslo", "Rome", "Oslo", "Mombasa"])
    traces = ours(benchmark, Scripted(lambda *_: f" It is {next(replies)}"), epochs=3)
    for order in (traces, traces[::-1], traces[1::2] + traces[::2]):
        [majority] = benchmark.figures(order)
        assert figure_interval(majority).value == pytest.approx(1 / 3)  # of a tie the first epoch's counts


@needs_harness
def test_other_patterns_answer_in_their_own_way_and_are_judged_by_the_same_rules(folder: Path) -> None:
    choosing = catalog.benchmark(f"lm_eval:task={folder}/choose.yaml")
    replies = Scripted(lambda messages, sampling, index: "It is clear. The answer is A.")
    plain = replace(choosing, tasks=lambda seed: [replace(task, baseline=None) for task in choosing.tasks(0)])
    traces = ours(plain, replies, cot)
    assert all(trace.answer == "A" for trace in traces)
    for letter, place in (
        ("A", 0),
        ("C", 2),
    ):  # the letter that was said has all of the probability, and alone is greedy
        [first] = ours(
            replace(plain, tasks=lambda seed: plain.tasks(seed)[:1]), Scripted([f"The answer is {letter}."]), cot
        )
        expected = [(0.0, True) if index == place else (-math.inf, False) for index in range(3)]
        assert answers(plain.tasks(0)[0], first) == expected
    completing = catalog.benchmark(f"lm_eval:task={folder}/complete.yaml")
    scores = ours(completing, Scripted(lambda messages, sampling, index: "Paris"), cot)[0].scores
    assert scores[0].failed and "run it with the pattern direct" in (scores[0].failure or "")


@needs_harness
def test_perturbed_copies_are_scored_as_their_documents(folder: Path) -> None:
    for name in ("choose", "write"):
        plain = catalog.benchmark(f"lm_eval:task={folder}/{name}.yaml:limit=3")
        benchmark = perturbed(plain, ("lowercase", "spacing"))
        traces = ours(benchmark)
        assert [trace.task_id.partition("~")[2] for trace in traces] == ["", "lowercase", "spacing"] * 3
        assert all(trace.scores and not any(score.failed for score in trace.scores) for trace in traces)
        assert [trace.scores for trace in traces[::3]] == [trace.scores for trace in ours(plain)]
    spoken = [replace(trace, answer="It is Paris.") for trace in traces[:3]]
    found = [
        benchmark.scorers[0](task, trace)[0].value for task, trace in zip(benchmark.tasks(0), spoken, strict=False)
    ]
    assert found == [1.0, 1.0, 1.0], "each is the one about France"
    with pytest.raises(DataError, match="other-0000 is not a document"):
        benchmark.scorers[0](replace(benchmark.tasks(0)[1], id="other-0000", metadata={}), traces[1])


@pytest.mark.slow
@needs_harness
def test_a_run_is_scored_again_from_disk(folder: Path, tmp_path: Path) -> None:
    benchmark = catalog.benchmark(f"lm_eval:task={folder}/write.yaml")
    traces = ours(benchmark)
    run = create(tmp_path, {}, "again")
    run.add_tasks(benchmark.name, benchmark.tasks(0))
    for trace in traces:
        run.append(trace.scored(()))
    again = catalog.benchmark(f"lm_eval:task={folder}/write.yaml")
    kept = {task.id: task for _, task in run.tasks().items()}
    assert list(kept.values()) == list(again.tasks(0))
    for trace, before in zip(run.traces(), traces, strict=True):
        assert again.scorers[0](kept[trace.task_id], trace) == before.scores
    run.close()


@needs_harness
@pytest.mark.slow
def test_python_in_a_task_file_runs_only_with_trust(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').write_text('')\n"
        "def text(doc):\n    return 'Capital of ' + doc['country'] + ':'\n"
        "def results(doc, results):\n    return {'starts': float(results[0].strip().startswith('I'))}\n"
    )
    file = tmp_path / "own.yaml"
    file.write_text(
        YAML["write"].partition("filter_list")[0].replace("task: write", "task: own").partition("doc_to_text")[0]
        + "doc_to_text: !function own.text\ndoc_to_target: city\nprocess_results: !function own.results\n"
        + "metric_list: [{metric: starts, aggregation: mean, higher_is_better: true}]\n"
        + COMMON.format(folder=folder)
    )
    with pytest.raises(ConfigError, match=r"own\.yaml runs code of its author.*!function own\.text.*trust=true"):
        catalog.benchmark(f"lm_eval:task={file}")
    hidden = tmp_path / "hidden.yaml"
    hidden.write_text("task: hidden\ninclude: own.yaml\n")
    with pytest.raises(ConfigError, match="runs code"):
        catalog.benchmark(f"lm_eval:task={hidden}")
    grouped = tmp_path / "many.yaml"
    grouped.write_text("group: many\ntask: [own]\n")
    with pytest.raises(ConfigError, match="runs code"):
        catalog.benchmark(f"lm_eval:task={grouped}")
    assert not (tmp_path / "ran").exists()
    benchmark = catalog.benchmark(f"lm_eval:task={file}:trust=true:data={folder}")
    traces = ours(benchmark)
    assert benchmark.tasks(0)[0].context.endswith("Capital of France:") and (tmp_path / "ran").exists()
    same(metrics(benchmark, traces), theirs(file)["results"]["own"])


@needs_harness
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("doc_to_text: \"{{ ''.__class__.__mro__[1].__subclasses__() }}\"\n", "SecurityError"),
        ('doc_to_text: "{{ capital }}"\n', "capital"),
        ('doc_to_text: "{{ country"\n', "TemplateSyntaxError"),
        ("doc_to_text: country\noutput_type: dance\n", "dance"),
        ("doc_to_text: country\ntest_split: nowhere\n", "nowhere"),
        ("doc_to_text: country\nunsafe_code: true\n", "runs model-written code"),
        ("doc_to_text: country\nunknown_key: 1\n", "unknown_key"),
        ("doc_to_text: country\ngeneration_kwargs: {num_beams: 4}\n", "beam search"),
        ("doc_to_text: country\ndataset_path: pandas\n", "runs code of its author"),
        ("doc_to_text: country\nmetric_list: [{metric: x, hf_evaluate: true}]\n", "runs code of its author"),
    ],
)
def test_a_bad_task_file_is_one_sentence(text: str, message: str, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    base = "task: bad\noutput_type: generate_until\ndoc_to_target: city\n" + COMMON.format(folder=folder)
    keys = {line.partition(":")[0] for line in text.splitlines()}
    kept = [line for line in base.splitlines() if line.partition(":")[0] not in keys]
    file.write_text("\n".join(kept) + "\n" + text)
    with pytest.raises((ConfigError, DataError)) as caught:
        catalog.benchmark(f"lm_eval:task={file}:data={folder}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"- a\n- b\n", "holds a list"),
        (b"", "holds a NoneType"),
        (b"task: [a\n", "is not YAML"),
        (b"task: !!python/object/apply:os.system ['true']\n", "a value of the type !!python/object"),
        (b"\xff\xfe\x00\xd8", "is not YAML"),
        (b"task: x\n" + b"#" * (1 << 20), "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_task_is_refused_before_the_harness_sees_it(raw: bytes, message: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "x.yaml").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_yaml(tmp_path / "x.yaml")


@needs_harness
def test_a_strangers_metric_is_not_imported_without_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text("open('RAN', 'w')\n")
    (tmp_path / "d.jsonl").write_text('{"q": "1", "a": "1"}\n')
    task = {
        "task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "d.jsonl")}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "./evil", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (tmp_path / "t.yaml").write_text(json.dumps(task))
    with pytest.raises(ConfigError, match=r"metric: \./evil, which is none of lm-eval's own"):
        load_tasks(str(tmp_path / "t.yaml"), "", False)
    assert not (tmp_path / "RAN").exists()
    assert {"acc", "exact_match", "bleu", "perplexity"} <= known_metrics()


def test_code_is_found_through_aliases_and_circles_of_includes(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "a.yaml").write_text("task: a\ninclude: [b.yaml]\nx: &x [1, 2]\ny: [*x, *x]\nz: &z [*z]\n")
    (tmp_path / "b.yaml").write_text("include: a.yaml\nfilter_list: [{filter: [{fn: !function m.f}]}]\n")
    assert code_in(tmp_path / "a.yaml", ()) == ["!function m.f (b.yaml)"]
    (tmp_path / "c.yaml").write_text("task: c\ninclude: missing.yaml\n")
    with pytest.raises(DataError, match=r"missing\.yaml cannot be read"):
        code_in(tmp_path / "c.yaml", ())


@needs_harness
def test_a_name_that_there_is_not_has_its_nearest_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="was given no task"):
        catalog.benchmark("lm_eval")
    with pytest.raises(ConfigError, match="needs apply_chat_template"):
        catalog.benchmark(f"lm_eval:task={folder}/write.yaml:fewshot_as_multiturn=true")
    with pytest.raises(DataError, match=r"none\.yaml cannot be read"):
        catalog.benchmark(f"lm_eval:task={folder}/none.yaml")


@needs_harness
@pytest.mark.parametrize("is_told", [True, False])
def test_a_task_of_the_hub_that_cannot_be_reached_is_told_without_retries(
    is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1" if is_told else "")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    file = tmp_path / "far.yaml"
    file.write_text(
        "task: far\ndataset_path: nobody/no-such-data\noutput_type: multiple_choice\ntest_split: test\n"
        "doc_to_text: q\ndoc_to_choice: [a, b]\ndoc_to_target: 0\n"
    )
    with pytest.raises(
        DataError, match=r"the data of '.*far\.yaml' is not in the cache .* hub cannot be reached from here"
    ):
        catalog.benchmark(f"lm_eval:task={file}")


@pytest.mark.slow
def test_without_the_harness_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = sys.modules['lm_eval.tasks'] = None\n"
        "from firsthand import catalog\n"
        "from firsthand.errors import MissingExtra\n"
        "try: catalog.benchmark('lm_eval:task=arc_easy')\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'firsthand[lm-eval]'" in done.stdout, done.stderr
    assert issubclass(MissingExtra, Exception)


def test_a_conversation_opens_every_attempt_and_survives_the_store() -> None:
    shown = (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("2+2?"),)),
        Message("assistant", (Text("4"),)),
    )
    task = Task("a", "3+3?", conversation=shown, requests=((None, " 6"),), choices=(" 6",))
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert "conversation" not in Task("a", "b").to_json()  # older runs resume: their tasks are as they were
    for pattern in (direct, cot):
        scripted = Scripted(lambda messages, sampling, index: "The answer is A.")
        ours(Benchmark("one", lambda seed: [task], ()), scripted, pattern)
        assert [message.text for message in scripted.asked[0].prompt[:3]] == ["Be brief.", "2+2?", "4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1" + ":59" * 2_000, "more than 1000 digits"),
        ("a: 1" + ":59" * 2_000 + ".5", "more than 1000 digits"),
        ("a: " + "9" * 2_000, "more than 1000 digits"),
    ],
)  # fmt: skip
def test_a_number_that_takes_the_square_of_its_length_is_not_read(tmp_path: Path, text: str, said: str) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(DataError, match=said):
        read_yaml(tmp_path / "x.yaml")


def test_merges_and_numbers_of_real_task_files_are_read(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "x.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 1:30}\nc: 1.5e+3\nd: 0x1f\ntask: [u, {task: [v]}]\n")
    assert read_yaml(tmp_path / "x.yaml")["b"] == {"x": 1, "y": 90}
    assert names_in(tmp_path / "x.yaml") == ["u", "v"]
