"""Sets of human votes come from the Hugging Face hub as other data do: a server in its layout, true names and columns."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from firsthand import catalog, cli
from firsthand.benchmarks import judge_judgebench, judge_llmbar, judge_mtbench, judge_pandalm
from firsthand.benchmarks.protocols.vote_sets import read_list
from firsthand.benchmarks.sources.datasets import Source, fetch
from firsthand.errors import DataError

Sets = dict[tuple[str, str, str], list[dict[str, Any]]]

JUDGEBENCH = {
    "pair_id": "p0", "original_id": "o0", "source": "mmlu-pro-math", "question": "What is 2 + 2?",
    "response_model": "claude-3-5-sonnet-20240620", "response_A": "5", "response_B": "4", "label": "B>A",
}  # fmt: skip
LLMBAR = {"input": "Say one word.", "output_1": "one two", "output_2": "one", "label": 2}


def vote(a: str, b: str, winner: str, turn: int = 1) -> dict[str, Any]:
    """A row of lmsys/mt_bench_human_judgments."""
    said = {
        name: [{"content": "Why?", "role": "user"}, {"content": f"Because of {name}.", "role": "assistant"}] * 2
        for name in (a, b)
    }
    row = {"question_id": 81, "model_a": a, "model_b": b, "winner": winner, "judge": "expert_0", "turn": turn}
    return {**row, "conversation_a": said[a], "conversation_b": said[b]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@contextmanager
def hub(sets: Sets, page_rows: int = 100) -> Iterator[str]:
    """The URL of a server that answers for these sets, by dataset, configuration and split, at most so many rows a page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            rows = sets.get((query["dataset"], query["config"], query["split"]))
            self.send_response(200 if rows is not None else 404)
            self.end_headers()
            start = int(query["offset"])
            page = (rows or [])[start : start + min(int(query["length"]), page_rows)]
            body = {"rows": [{"row_idx": start + i, "row": row} for i, row in enumerate(page)]}
            self.wfile.write(json.dumps(body | {"num_rows_total": len(rows or [])}).encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/rows"
    finally:
        server.shutdown()


def fetched(source: Source, sets: Sets) -> Path:
    with hub(sets) as url:
        return fetch(source, url=url)


@pytest.mark.slow
def test_judgebench_and_llmbar_are_fetched_under_their_names_and_agreement_reads_the_run(capsys: Any) -> None:
    fetched(judge_judgebench.SOURCE, {("ScalerLab/JudgeBench", "default", "claude"): [JUDGEBENCH] * 3})
    (task, *_) = catalog.benchmark("judge_judgebench:data=hub").tasks(0)
    assert task.secret["votes"] == ["B"] and task.metadata["judge"]["fields"]["answer_b"] == "4"
    for name, source in judge_llmbar.SOURCES.items():
        split = {"natural": "Natural", "neighbor": "Adversarial_Neighbor"}.get(name, source.split)
        fetched(source, {("princeton-nlp/LLMBar", "LLMBar", split): [LLMBAR] * 2})
    assert len(catalog.benchmark("judge_llmbar:data=hub").tasks(0)) == 10
    words = ["run", "judge_judgebench:data=hub", "--pattern", "first.py", "--model", "scripted:echo"]
    Path("first.py").write_text("async def first(task, ctx):\n    return 'B'\n")
    assert cli.main(words) == 0
    capsys.readouterr()
    assert cli.main(["agreement", "last", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["benchmark"] == "judge_judgebench" and found["with_humans"]["value"] == 1.0


@pytest.mark.slow
def test_every_vote_on_a_pair_of_mt_bench_counts_whichever_way_round_it_was_shown() -> None:
    rows = [
        vote("alpaca", "gpt-4", "model_b"),
        vote("gpt-4", "alpaca", "model_a"),
        vote("alpaca", "gpt-4", "tie"),
        vote("alpaca", "gpt-4", "model_a", turn=2),
        vote("alpaca", "claude", "model_a"),
    ]
    path = fetched(judge_mtbench.SOURCE, {("lmsys/mt_bench_human_judgments", "default", "human"): rows})
    made = catalog.benchmark("judge_mtbench:data=hub")
    assert {task.id: task.secret["votes"] for task in made.tasks(0)} == {
        "81-alpaca-gpt-4": ["B", "B", "tie"],
        "81-alpaca-claude": ["A"],
    }
    fields = made.tasks(0)[0].metadata["judge"]["fields"]
    assert fields == {"question": "Why?", "answer_a": "Because of alpaca.", "answer_b": "Because of gpt-4."}
    assert "first turns among 5 votes, 2 pairs" in made.protocol
    assert catalog.benchmark(f"judge_mtbench:data={path}").tasks(0) == made.tasks(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"winner": "neither"}, "row 2: not a pair with votes .KeyError: 'neither'"),
        ({"conversation_a": []}, "row 2: not a pair"),
        ({"conversation_b": [{"content": "Else?"}, {"content": "x"}]}, "begin with different questions"),
        ({"turn": None}, "row 2: not a pair"),
    ],
)
def test_hostile_rows_are_one_sentence(changes: dict[str, Any], why: str) -> None:
    rows = [vote("a", "b", "tie"), vote("a", "b", "tie") | changes]
    fetched(judge_mtbench.SOURCE, {("lmsys/mt_bench_human_judgments", "default", "human"): rows})
    with pytest.raises(DataError, match=why):
        catalog.benchmark("judge_mtbench:data=hub")


@pytest.mark.parametrize(
    "text",
    ['[{"a": 1}, {"a": 2}]', '\n  [{"a": 1},\n {"a": 2}]\n', '\ufeff[{"a": 1}, {"a": 2}]', '{"a": 1}\n\n{"a": 2}\n',
     '\ufeff{"a": 1}\r\n{"a": 2}', ' {"a": 1}\n {"a": 2} '],
)  # fmt: skip
def test_a_list_and_lines_are_read_alike_whatever_stands_before_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "votes.json").write_bytes(text.encode())
    rows, file, digest = read_list(tmp_path / "votes.json")
    assert rows == [{"a": 1}, {"a": 2}] and file == tmp_path / "votes.json"
    assert digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("text", ["", "[]", "[1]", '{"a": 1}\n2', "{", '[{"a": 1}', "[" * 100_000])
def test_what_is_no_list_of_objects_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "votes.json").write_text(text)
    with pytest.raises(DataError, match=r"votes\.json is n") as caught:
        read_list(tmp_path / "votes.json")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_is_not_there_is_said(home: Path) -> None:
    with pytest.raises(DataError, match=r"humans\.json is neither on this machine nor on the hub"):
        catalog.benchmark("judge_pandalm:data=hub")
    with pytest.raises(DataError, match="not packaged: give data=FOLDER, or data=hub to fetch lmsys"):
        catalog.benchmark("judge_mtbench:data=packaged")
    only_second = {("lmsys/mt_bench_human_judgments", "default", "human"): [vote("a", "b", "tie", turn=2)]}
    fetched(judge_mtbench.SOURCE, only_second)
    with pytest.raises(DataError, match="none on a first turn"):
        catalog.benchmark("judge_mtbench:data=hub")
    row = {name: value for name, value in vote("a", "b", "tie").items() if name != "winner"}
    (home / "data" / "judge" / "mt_bench_human_judgments.jsonl").unlink()
    with pytest.raises(DataError, match="lmsys/mt_bench_human_judgments on the hub, row 0: KeyError"):
        fetched(judge_mtbench.SOURCE, {("lmsys/mt_bench_human_judgments", "default", "human"): [row]})


def test_without_data_the_votes_in_the_folder_of_the_environment_come_before_those_of_the_hub(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panda = {
        "instruction": "I", "input": "", "response1": "a", "response2": "b", "cmp_key": "m", "annotator1": 1,
        "annotator2": 2, "annotator3": 0,
    }  # fmt: skip
    files: dict[str, dict[str, Any]] = {
        "judgebench_claude35.jsonl": JUDGEBENCH, "mt_bench_human_judgments.jsonl": vote("a", "b", "tie"),
        "pandalm_testset_v1_3humans.json": panda,
        **{Path(source.path).name: LLMBAR for source in judge_llmbar.SOURCES.values()},
    }  # fmt: skip
    kept = home / "data" / "judge"
    given = tmp_path / "env" / "judge"
    for folder, rows in ((given, 2), (given / "llmbar", 2), (tmp_path / "flat", 2), (kept, 1), (kept / "llmbar", 1)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, row in files.items():
            (folder / name).write_text(f"{json.dumps(row)}\n" * rows)
    makers = (judge_judgebench.judge_judgebench, judge_pandalm.judge_pandalm, judge_llmbar.judge_llmbar,
              judge_mtbench.judge_mtbench)  # fmt: skip

    def pairs(data: str) -> list[int]:
        return [sum(len(task.secret["votes"]) for task in make(data=data).tasks(0)) for make in makers]

    at_hub, in_folder = [1, 3, 5, 1], [2, 6, 10, 2]
    assert pairs("") == at_hub, "no folder is named"
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in (str(tmp_path / "env"), "~/env", str(tmp_path / "flat")):
        monkeypatch.setenv("FIRSTHAND_DATA", named)
        assert (pairs(""), pairs("hub")) == (in_folder, at_hub), named
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "none"))
    assert pairs("") == at_hub, "a folder without them"
    assert pairs(str(tmp_path / "env")) == in_folder
    for make in makers:
        with pytest.raises(DataError, match="not packaged: give data=FOLDER, or data=hub to fetch"):
            make(data="packaged")


@pytest.mark.slow
def test_pages_that_are_shorter_than_asked_for_leave_no_row_out() -> None:
    rows = [{**JUDGEBENCH, "question": f"Q{number}?"} for number in range(7)]
    with hub({("ScalerLab/JudgeBench", "default", "claude"): rows}, page_rows=3) as url:
        fetch(judge_judgebench.SOURCE, url=url)
    made = catalog.benchmark("judge_judgebench:data=hub").tasks(0)
    assert [task.metadata["judge"]["fields"]["question"] for task in made] == [f"Q{number}?" for number in range(7)]
    drawn = sorted(Random(0).sample(range(7), 3))
    sample = catalog.benchmark("judge_judgebench:data=hub:sample=3")
    assert list(sample.tasks(0)) == [made[place] for place in drawn] and drawn != [0, 1, 2]
    assert "a seeded sample of 3" in sample.protocol
