"""Lost in the middle, key-value retrieval and needles: the published prompts, the right places, and shared beginnings."""

import ast
import gzip
import json
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.kv_retrieval import draw, kv_retrieval
from firsthand.benchmarks.long_context.haystack import NOISE
from firsthand.benchmarks.long_context.lengths import LazyTasks, meter
from firsthand.benchmarks.lost_in_middle import lost_in_middle
from firsthand.benchmarks.needles import needles
from firsthand.errors import ConfigError, DataError
from firsthand.experiment.experiment import Experiment
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.scorers.contained import best_subspan_em, contains_value, string_match_all
from firsthand.task import Task
from firsthand.trace import Trace

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not (SHARED / "longctx").is_dir(), reason="the full data is not on this machine")


@pytest.fixture(autouse=True)
def no_data_of_the_machine(monkeypatch):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)


def judged(scorer, answer, *references):
    task = Task("t", "?", secret={"answers": list(references)})
    return scorer(task, Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer)).value


def test_the_first_line_is_judged_in_squads_words():
    assert judged(best_subspan_em, " The Wilhelm-Conrad  Röntgen!\nelse", "wilhelmconrad röntgen") == 1
    assert judged(best_subspan_em, "nobody\nRöntgen", "Röntgen") == 0  # what is copied below says nothing
    assert judged(best_subspan_em, "It was in May of 2018.", "June 2018", "May of 2018") == 1
    assert judged(best_subspan_em, None, "x") == judged(best_subspan_em, "", "x") == 0
    assert (
        judged(contains_value, "ABC-12 it is", "abc-12", "other") == 1
        and judged(contains_value, "other", "a", "other") == 0
    )
    assert judged(string_match_all, "1 and 2", "1", "3") == 0.5
    with pytest.raises(DataError, match="no reference answer"):
        judged(string_match_all, "x")


# -- lost in the middle --


def row(question, documents, gold):
    ctxs = [{"title": f"Title {n}", "text": f"Text {n} of {question}.", "isgold": n == gold} for n in range(documents)]
    return {"question": question, "answers": ["an answer"], "ctxs": ctxs}


def write(folder, name, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / name, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in rows)


@pytest.fixture
def folder(tmp_path):
    """The authors' folder with ten documents, gold first; and the oracle file."""
    rows = [row(f"who did {n}", 10, 0) for n in range(3)]
    write(tmp_path / "qa_data" / "10_total_documents", "nq-open-10_total_documents_gold_at_0.jsonl.gz", rows)
    write(tmp_path / "qa_data", "nq-open-oracle.jsonl.gz", [row("who did it", 1, 0)])
    return str(tmp_path)


def test_the_right_document_stands_at_each_position_of_the_paper(folder):
    tasks = lost_in_middle(documents=10, data=folder).tasks(0)
    assert [task.metadata["position"] for task in tasks[:3]] == [9, 4, 0] and len(tasks) == 9
    for task in tasks:
        place = task.metadata["position"]
        assert f"\nDocument [{place + 1}](Title: Title 0) Text 0 of" in task.context
        listed = re.findall(r"^Document \[(\d+)\]\(Title: Title (\d)\)", task.context, re.MULTILINE)
        assert [int(n) for n, _ in listed] == list(range(1, 11)) and len({title for _, title in listed}) == 10
        assert [t for _, t in listed if t != "0"] == list("123456789")  # the others keep their order
        assert task.prompt == task.context and task.sampling["max_tokens"] == 100 and task.cluster.startswith("nq-")
    assert tasks[2].context == (
        "Write a high-quality answer for the given question using only the provided search results (some of which might be "
        "irrelevant).\n\n"
        + "\n".join(f"Document [{n + 1}](Title: Title {n}) Text {n} of who did 0." for n in range(10))
        + "\n\nQuestion: who did 0\nAnswer:"
    )


def test_a_file_of_the_position_is_taken_as_it_is(folder, tmp_path):
    write(tmp_path / "qa_data" / "10_total_documents", "nq-open-10_total_documents_gold_at_4.jsonl.gz",
          [row("another", 10, 4)] + [row(f"who did {n}", 10, 4) for n in (1, 2)])  # fmt: skip
    tasks = lost_in_middle(documents=10, positions="0,4", questions=1, data=folder).tasks(0)
    assert ["another" in task.prompt for task in tasks] == [True, False]


def test_closed_book_and_oracle_need_the_oracle_file_alone(folder):
    [closed] = lost_in_middle(protocol="closedbook", data=folder).tasks(0)
    assert closed.context == "Question: who did it\nAnswer:"
    [oracle] = lost_in_middle(protocol="oracle-chat", data=folder).tasks(0)
    assert oracle.context is None and oracle.prompt.count("Document [1](Title: Title 0) Text 0") == 1
    aware = lost_in_middle(protocol="qa-query-aware", documents=10, data=folder).tasks(0)[0]
    assert aware.context.count("Question: who did 0") == 2
    random = lost_in_middle(protocol="qa-random-order", documents=10, data=folder)
    assert "ordered randomly.\n\nDocument [1]" in random.tasks(0)[0].context and random.name.endswith(
        "@qa-random-order"
    )


def test_what_is_missing_is_said(folder, tmp_path):
    with pytest.raises(DataError, match=r"no nq-open-20_total.*The oracle file is there.*closedbook can run"):
        lost_in_middle(data=folder)
    with pytest.raises(DataError, match=r"no nq-open-oracle\.jsonl\.gz.*lost-in-the-middle"):
        lost_in_middle(protocol="oracle", data=str(tmp_path / "nowhere"))
    for options in ({"positions": "0,10"}, {"positions": "a"}, {"documents": 12}, {"questions": -1}):
        with pytest.raises(ConfigError):
            lost_in_middle(**{"documents": 10, **options}, data=folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answers": "one"}, "'answers' is 'one'"),
        ({"answers": []}, "a list of texts"),
        ({"question": 3}, "'question'"),
        ({"ctxs": None}, "no list of documents"),
        ({"ctxs": [{"title": "t", "text": "x"}] * 9}, "9 documents, and 10"),
        ({"ctxs": [{"title": "t", "text": "x"}] * 10}, "0 documents are marked"),
        ({"ctxs": [{"title": "t", "isgold": True}] + [{"title": "t", "text": "x"}] * 9}, "'text'"),
    ],
)
def test_a_broken_row_is_named_with_its_line(change, says, tmp_path):
    name = "nq-open-10_total_documents_gold_at_0.jsonl.gz"
    write(tmp_path, name, [row("fine", 10, 0), {**row("broken", 10, 0), **change}])
    with pytest.raises(DataError, match=says) as caught:
        lost_in_middle(documents=10, data=str(tmp_path))
    assert f"{name}, line 2" in str(caught.value)


@pytest.mark.slow
@needs_data
def test_the_authors_oracle_file_is_read_whole():
    made = lost_in_middle(protocol="oracle", data=str(SHARED))
    tasks = made.tasks(0)
    assert len(tasks) == 2655 and "2,655 items" in made.protocol and len({task.id for task in tasks}) == 2655
    contained = sum(judged(best_subspan_em, task.context.replace("\n", " "), *task.secret["answers"]) for task in tasks)
    assert contained == 2655  # each document holds an answer


# -- key-value retrieval --


def test_the_key_is_asked_for_at_each_position_and_its_value_scores():
    made = kv_retrieval(keys=12, positions="0,5,11", examples=3, data="generated")
    tasks = list(made.tasks(1))
    assert [task.metadata["position"] for task in tasks[:3]] == [11, 5, 0] and len(tasks) == 9
    for task in tasks:
        text, _, asked = task.context.partition("\n\nKey: ")
        head, _, body = text.partition("\n\nJSON data:\n")
        assert head == "Extract the value corresponding to the specified key in the JSON object below."
        pairs, key = list(json.loads(body).items()), re.fullmatch(r'"(.+)"\nCorresponding value:', asked)[1]
        assert pairs[task.metadata["position"]] == (key, task.secret["answers"][0]) and len(pairs) == 12
        assert body.split("\n")[1].startswith(' "') and body.split("\n")[0].endswith('",')
        assert judged(contains_value, f' "{dict(pairs)[key].upper()}"', *task.secret["answers"]) == 1
        assert judged(contains_value, pairs[(task.metadata["position"] + 1) % 12][1], *task.secret["answers"]) == 0
    assert list(made.tasks(1)) == tasks != list(made.tasks(2))
    assert all(re.fullmatch(r"[0-9a-f-]{14}4[0-9a-f]{3}-[89ab][0-9a-f-]{16}", key) for key, _ in draw(5, 0, 0).pairs)


def test_positions_of_the_paper_are_the_default():
    places = [task.metadata["position"] for task in kv_retrieval(keys=140, examples=1).tasks(0)]
    assert places == [139, 104, 69, 34, 0] and "generated from the seed" in kv_retrieval().protocol
    aware = kv_retrieval(protocol="query-aware", keys=3, examples=1).tasks(0)[0]
    assert len(re.findall('Key: "', aware.context)) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key": "z"}, "not among the pairs"),
        ({"value": None}, "'value'"),
        ({"ordered_kv_records": [["a", "1"]]}, "3 pairs"),
        ({"ordered_kv_records": [["a", "1"], ["b"], ["c", "3"]]}, "3 pairs"),
        ({"ordered_kv_records": [["a", "1"], ["b", 2], ["c", "3"]]}, "3 pairs"),
        ({"ordered_kv_records": [["a", "1"], ["a", "2"], ["c", "3"]]}, "twice"),
        ({"ordered_kv_records": {"a": "1"}}, "3 pairs"),
    ],
)
def test_a_broken_object_is_named_with_its_line(change, says, tmp_path):
    good = {"ordered_kv_records": [["a", "1"], ["b", "2"], ["c", "3"]], "key": "a", "value": "1"}
    write(tmp_path, "kv-retrieval-3_keys.jsonl.gz", [good, {**good, **change}])
    with pytest.raises(DataError, match=says) as caught:
        kv_retrieval(keys=3, data=str(tmp_path))
    assert "line 2" in str(caught.value)


def test_a_folder_without_the_file_and_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no kv-retrieval-75_keys\.jsonl\.gz.*data=generated"):
        kv_retrieval(data=str(tmp_path))
    for options in ({"keys": 1}, {"examples": 0}, {"positions": "75"}):
        with pytest.raises(ConfigError):
            kv_retrieval(**options)


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("keys", [75, 140])
def test_the_authors_objects_are_read_whole(keys):
    made = kv_retrieval(keys=keys, data=str(SHARED))
    tasks = made.tasks(0)
    assert len(tasks) == 500 * (4 if keys == 75 else 5) and "the authors' file, 500 items" in made.protocol
    with gzip.open(SHARED / "longctx" / f"kv-retrieval-{keys}_keys.jsonl.gz", "rt") as file:
        first = json.loads(file.readline())
    assert (
        tasks[0].secret["answers"] == [first["value"]] and f'"{first["key"]}": "{first["value"]}"' in tasks[0].context
    )


# -- needles --


def test_each_cell_of_the_grid_hides_its_needle_at_its_depth():
    made = needles(lengths="256,512", depths="0,50,100", samples=3)
    tasks = list(made.tasks(0))
    assert len(tasks) == len(made.tasks(0)) == 18 and len({task.id for task in tasks}) == 18
    for task in tasks:
        text = task.prompt.split("\n\n")[1]
        key = re.search(r"locker in (\w+)\? Answer with the number only\.$", task.prompt)[1]
        needle = f"The number of the locker in {key} is {task.secret['answers'][0]}."
        at = text.index(needle) / (len(text) - len(needle))
        assert abs(at - task.metadata["depth"] / 100) < 0.12, (task.id, at)
        assert text.count("locker") == 1 and not re.search(r"\d", text.replace(needle, ""))
        tokens = meter("").measure(task.prompt) + 32
        assert tokens == task.metadata["tokens"] <= task.metadata["length"] < tokens + 80
        assert judged(string_match_all, f"It is {task.secret['answers'][0]}", *task.secret["answers"]) == 1
        assert judged(string_match_all, "It is 1234567", *task.secret["answers"]) == 0
    assert tasks[0] == made.tasks(0)[0] and tasks[:6] != list(made.tasks(1)[:6])


def test_prompts_that_follow_each_other_share_what_stands_before_the_needle():
    tasks = list(needles(lengths="256,1k", depths="0,50,100", samples=1).tasks(0))
    assert [(task.metadata["length"], task.metadata["depth"]) for task in tasks] == [
        (1024, 100), (1024, 50), (1024, 0), (256, 100), (256, 50), (256, 0)]  # fmt: skip
    whole = tasks[0].prompt
    for task in tasks:
        before = task.prompt.index("The number of the locker")
        assert whole.startswith(task.prompt[:before])
    kv = kv_retrieval(keys=20, positions="0,10,19", examples=1).tasks(0)
    for earlier, later in pairwise(kv):
        before = later.context.index(later.secret["answers"][0]) - 41  # its key stands before it, in quotes
        assert earlier.context[:before] == later.context[:before] and before > 90


def test_other_haystacks_and_a_continued_sentence():
    noise = needles(protocol="base", haystack="noise", lengths="256", depths="50", samples=1).tasks(0)[0]
    assert noise.context.count(NOISE) >= 4 and noise.context.endswith(" is") and noise.sampling["stop"] == ("\n",)
    with pytest.raises(DataError, match="haystack=world"):
        needles(haystack="essays", data="/nowhere")
    for options in ({"depths": "0,101"}, {"depths": ""}, {"samples": 0}, {"haystack": "hay"}, {"lengths": ""}):
        with pytest.raises(ConfigError):
            needles(**options)
    with pytest.raises(ConfigError, match="does not fit 64 tokens: it takes"):
        list(needles(lengths="64", samples=1).tasks(0))


def test_the_catalog_names_them_with_their_protocols():
    listed = catalog.names("benchmark")
    for name, first in {"ruler": "base", "needles": "chat", "kv_retrieval": "paper", "lost_in_middle": "qa"}.items():
        assert name in listed and next(iter(catalog.protocols(name))) == first
    made = catalog.benchmark("needles@base:lengths=256,512:depths=0,100:samples=2")
    assert made.name == "needles@base" and len(made.tasks(0)) == 8
    assert ast.literal_eval(repr(made.options["samples"])) == 2


def test_a_limited_run_makes_no_other_tasks():
    made = []

    def make(number):
        made.append(number)
        return Task(str(number), "?")

    lazy = Benchmark("many", lambda seed: LazyTasks(range(10**6), make), ())
    agent = Agent("direct", Scripted([]), direct)
    places = Experiment([agent], [lazy], limit=2).places()
    assert [place.task.id for place in places] == ["0", "1"] and made == [0, 1]


@pytest.mark.parametrize(
    ("count", "words", "tokens"), [("words", 3, 3), ("words*0.75", 2, 2), ("words*1.4", 3, 4), ("words*1.3", 2, 3)]
)
def test_estimated_tokens_are_rounded_to_the_nearest(count, words, tokens):
    assert meter(count).measure("one two three"[: 7 if words == 2 else None]) == tokens
