"""Where benchmarks find their data, what they refuse, and that prompts are those of the published protocols."""

import gzip
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import firsthand
from firsthand import catalog
from firsthand.benchmarks.arc_easy import arc_easy
from firsthand.benchmarks.arithmetic import MAX_TASKS, arithmetic, make_tasks, parse_levels
from firsthand.benchmarks.gsm8k import gsm8k
from firsthand.benchmarks.sources.arc_files import from_hub
from firsthand.benchmarks.sources.datasets import Source, fetch, load, read
from firsthand.cli import main
from firsthand.errors import ConfigError, DataError, DownloadError
from firsthand.tools.calculator import evaluate

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not (SHARED / "mcq").is_dir(), reason="the full data is not on this machine")
SOURCE = Source("mcq/arc_easy.jsonl", 2376, "CC-BY-SA-4.0", "allenai/ai2_arc", "ARC-Easy", "test", from_hub)

GOLDEN = [("What is 92 - 29?", "63"), ("What is 83 * 30?", "2490"), ("What is (360 / 12 + 5) * 20?", "700")]


@pytest.fixture(autouse=True)
def a_clean_place(monkeypatch, tmp_path):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def write(folder, *rows, name="arc_easy.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(folder)


def row(**changes):
    return {"query": "Question: Q?", "choices": ["a", "b"], "gold": 1, **changes}


def test_the_catalog_lists_the_benchmarks_and_not_their_helpers():
    listed = set(catalog.names("benchmark"))
    assert {"arithmetic", "gsm8k", "arc_easy", "arc_challenge"} <= listed
    assert not {"data", "arc"} & listed


def test_equal_seeds_give_equal_arithmetic_on_any_machine():
    tasks = arithmetic(levels="1-4").tasks(3)
    assert tasks == arithmetic(levels="1-4").tasks(3) != arithmetic(levels="1-4").tasks(4)
    assert len({task.id for task in tasks}) == len({task.prompt for task in tasks}) == 200
    first = arithmetic(levels="1-3").tasks(0)[:3]
    assert [(task.prompt, task.secret["answer"]) for task in first] == GOLDEN
    assert arithmetic(tasks=10).tasks(0) == arithmetic(tasks=50).tasks(0)[:10]


def test_the_answers_of_arithmetic_are_right():
    for task in arithmetic(levels="1-3", tasks=2000).tasks(1):
        assert evaluate(task.prompt.removeprefix("What is ")) == int(task.secret["answer"])


@pytest.mark.parametrize("levels", ["", "0", "5", "3-1", "1-", "a", "1-9"])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(ConfigError, match="levels is"):
        arithmetic(levels=levels)


def test_a_slice_is_packaged_and_says_so():
    for made, whole in [(gsm8k(), "1,319"), (arc_easy(), "2,376")]:
        assert f"100 of {whole} items" in made.protocol
        assert "packaged slice" in made.protocol
        tasks = made.tasks(0)
        assert len({task.id for task in tasks}) == len(tasks) == 100
        assert all(task.secret and not task.public().secret for task in tasks)
    assert len(gsm8k().tasks(0)[0].metadata["examples"]) == 8
    assert gsm8k().tasks(0)[0].secret["answer"] == "18"


SLICES = {"gsm8k": "100 of 1,319", "arc_easy": "100 of 2,376", "arc_challenge": "100 of 1,172", "mmlu": "228 of 14,042",
          "mbpp": "110 of 974"}  # fmt: skip
"""Benchmark -> the share of it that is packaged."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] if each == "mmlu" else []) for each in [*SLICES, "humaneval"]]
)
def test_a_packaged_item_is_the_one_of_the_whole_file(name: str) -> None:
    made = catalog.benchmark(f"{name}:data=packaged")
    assert (f"packaged slice, {SLICES[name]} items" if name in SLICES else "packaged, 164 items") in made.protocol
    if not SHARED.is_dir():
        pytest.skip("the shared data is not here")
    whole = {task.id: task for task in catalog.benchmark(f"{name}:data={SHARED}").tasks(0)}
    assert all(whole[task.id] == task for task in made.tasks(0)) and len(made.tasks(0)) >= 100


def test_a_slice_says_how_to_get_the_whole(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1")
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    assert main(["run", "gsm8k", "--limit", "2", "--model", "scripted:echo"]) == 0
    out = capsys.readouterr().out
    assert "packaged slice, 100 of 1,319 items" in out
    assert "slice     gsm8k: 100 of 1,319 items ship with the package; for all of them run gsm8k:data=hub" in out


def test_the_packaged_data_is_small_and_has_its_licences_beside_it():
    folder = Path(firsthand.__file__).parent / "benchmarks" / "slices"
    files = [path for path in folder.iterdir() if path.suffix == ".gz"]
    text = (folder / "LICENSES.md").read_text()
    assert [path.name for path in files if f"`{path.name}`" not in text] == []
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_a_folder_goes_before_the_environment_and_that_before_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_DATA", write(tmp_path / "env", row(), row()))
    assert len(arc_easy().tasks(0)) == 2
    folder = write(tmp_path / "own", row())
    assert len(arc_easy(data="packaged").tasks(0)) == 100
    (made,) = arc_easy(data=folder).tasks(0)
    assert made.context == "Question: Q?\nAnswer:" and made.choices == (" a", " b") and made.prompt == "Q?"
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert len(arc_easy().tasks(0)) == 100
    with pytest.raises(DataError, match="has neither mcq/arc_easy"):
        arc_easy(data=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("{oops\n", "line 2: not JSON"),
        ("\n", "line 2: not JSON"),
        ("[" * 100_000 + "\n", "line 2: not JSON"),
        ([1], "line 2: a JSON object was expected"),
        (row(gold=2), "line 2: the field 'gold' is 2, and an index from 0 to 1"),
        (row(gold=True), "line 2: the field 'gold' is True"),
        (row(gold=-1), "line 2: the field 'gold' is -1"),
        (row(choices="ab"), "line 2: the field 'choices'"),
        (row(choices=["a"]), "line 2: the field 'choices'"),
        (row(query=None), "line 2: the field 'query'"),
        ({}, "line 2: the field 'query'"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, broken, says):
    with pytest.raises(DataError) as caught:
        arc_easy(data=write(tmp_path / "d", row(), broken, row()))
    assert says in str(caught.value) and "arc_easy.jsonl" in str(caught.value)


def test_broken_files_are_data_errors(tmp_path):
    for name, content in [
        ("a.jsonl", b""), ("b.jsonl", b"\xff\xfe{}"), ("c.jsonl.gz", b"no gzip"), 
        ("d.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999)[:-9]),
        ("e.jsonl", b"\n \n"),
    ]:  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name[:2]):
            read(tmp_path / name, SOURCE, "here")
    with pytest.raises(DataError, match="does not end with '#### number'"):
        folder = tmp_path / "g"
        write(folder, {"question": "q", "answer": "4"}, name="gsm8k_test.jsonl")
        gsm8k(data=write(folder, {"question": "q", "answer": "#### 4"}, name="gsm8k_train.jsonl"))


def serve(pages):
    """A local stand-in for the hub; `pages` maps an offset to (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            query = parse_qs(urlsplit(self.path).query)
            assert query["dataset"] == ["allenai/ai2_arc"] and query["config"] == ["ARC-Easy"]
            status, body = pages[int(query["offset"][0])]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/rows"


def page(start, count, total):
    question = {"choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"}
    rows = [{"row_idx": i, "row": {"question": f"Q{i}?", **question}} for i in range(start, start + count)]
    return 200, json.dumps({"rows": rows, "num_rows_total": total}).encode()


@pytest.mark.slow
def test_rows_are_fetched_from_the_hub_once_and_kept(tmp_path):
    server, url = serve({0: page(0, 100, 130), 100: page(100, 30, 130)})
    path = fetch(SOURCE, url=url)
    server.shutdown()
    assert path == tmp_path / "home" / "data" / "mcq" / "arc_easy.jsonl"
    assert fetch(SOURCE, url=url) == path  # the server is gone
    rows = load(SOURCE, "hub")
    assert len(rows.rows) == 130 and rows.rows[129] == {
        "query": "Question: Q129?",
        "choices": ["a", "b", "c"],
        "gold": 2,
    }
    assert rows.origin == "Hugging Face hub, allenai/ai2_arc, 130 of 2,376 items"
    assert len(arc_easy(data="hub").tasks(0)) == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pages", "error"),
    [
        ({0: (503, b"")}, DownloadError),
        ({0: (200, b"<html>")}, DownloadError),
        ({0: (200, b"[]")}, DownloadError),
        ({0: (200, b'{"rows": [], "num_rows_total": 5}')}, DownloadError),
        ({0: (200, b'{"rows": [{"row": {}}], "num_rows_total": 99999999}')}, DownloadError),
        ({0: (200, b'{"rows": [{"row_idx": 0, "row": {}}], "num_rows_total": 5}')}, DataError),
        ({0: (200, b'{"rows": [{"row_idx": 0, "row": 7}], "num_rows_total": 5}')}, DataError),
        ({0: page(0, 100, 130), 100: (500, b"")}, DownloadError),
    ],
)
def test_a_hub_that_misbehaves_is_a_sentence_and_leaves_no_file(tmp_path, pages, error):
    server, url = serve(pages)
    with pytest.raises(error, match="allenai/ai2_arc"):
        fetch(SOURCE, url=url)
    server.shutdown()
    assert not list((tmp_path / "home").rglob("*.jsonl*"))


def test_no_connection_is_a_sentence():
    with pytest.raises(DownloadError, match="give data=FOLDER"):
        fetch(SOURCE, url="http://127.0.0.1:9/rows")


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge"])
def test_prompts_choices_and_gold_of_arc_are_those_of_the_golden_requests(name):
    with gzip.open(SHARED / "olmes" / f"{name}_test_rc_5shot.requests.jsonl.gz", "rt") as file:
        requests = [json.loads(line) for line in file]
    golden: dict[int, list] = {}
    for each in requests:
        golden.setdefault(each["doc_id"], []).append(each)
    # Ids from 1,000,000 on are the same documents without the question, for another metric.
    for index, task in enumerate(catalog.benchmark(f"{name}:data={SHARED}").tasks(0)):
        asked = sorted(golden[index], key=lambda each: each["idx"])
        assert all(each["request"]["context"].endswith("\n\n" + task.context) for each in asked)
        assert tuple(each["request"]["continuation"] for each in asked) == task.choices
        assert asked[0]["label"] == asked[0]["doc"]["gold"] == task.secret["gold"]


@pytest.mark.slow
@needs_data
def test_the_packaged_slice_is_the_beginning_of_the_corrected_data():
    assert arc_easy(data="packaged").tasks(0) == arc_easy(data=str(SHARED)).tasks(0)[:100]
    assert "82 of them corrected" in arc_easy(data=str(SHARED)).protocol


@pytest.mark.slow
@needs_data
def test_full_data_gives_all_tasks_with_ids_of_their_own():
    for name, count in [("gsm8k", 1319), ("arc_easy", 2376), ("arc_challenge", 1172)]:
        tasks = catalog.benchmark(f"{name}:data={SHARED}").tasks(0)
        assert len({task.id for task in tasks}) == len(tasks) == count


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_as_many_problems_of_a_level_as_may_be_asked_for_are_all_different_and_right(level):
    tasks = make_tasks(3, (level,), MAX_TASKS)
    assert len({task.prompt for task in tasks}) == MAX_TASKS
    assert [task.prompt for task in tasks[:50]] == [task.prompt for task in make_tasks(3, (level,), 50)]
    for task in tasks if level < 4 else []:
        assert evaluate(task.prompt.removeprefix("What is ").removesuffix("?")) == float(task.secret["answer"])


@pytest.mark.parametrize(
    ("text", "found"),
    [("1-3", (1, 2, 3)), ("2", (2,)), ("4,1", (1, 4)), ("1-2, 2-4", (1, 2, 3, 4)), ("3-1,2", (2,)), ("0", None), ("5", None),
     ("1-5", None), ("3-1", None), ("", None), ("1,,2", None)],
)  # fmt: skip
def test_levels_are_from_1_to_4(text, found):
    if found is not None:
        assert parse_levels(text) == found
        return
    with pytest.raises(ConfigError, match="levels is"):
        parse_levels(text)


def test_the_answer_of_a_word_problem_follows_from_its_text():
    kinds = {"gives away": 0, "for a bag": 0, "equally": 0, "a day for": 0}
    for task in make_tasks(1, (4,), 200):
        numbers = [int(word) for word in re.findall(r"\d+", task.prompt)]
        [kind] = [each for each in kinds if each in task.prompt]
        kinds[kind] += 1
        match kind, numbers:
            case "gives away", [boxes, in_each, given]:
                expected = boxes * in_each - given
            case "for a bag", [things, dollars, bag]:
                expected = things * dollars + bag
            case "equally", [whole, friends, had]:
                assert whole % friends == 0
                expected = whole // friends + had
            case _, [a_day, days, lost]:
                expected = a_day * days - lost
        assert int(task.secret["answer"]) == expected
    assert min(kinds.values()) > 20
