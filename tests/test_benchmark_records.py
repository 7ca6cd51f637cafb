"""Judged sets, human votes, software records and worked examples, read from small files with all that can be wrong."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks import bbh, cranfield
from firsthand.benchmarks.mteb.sentence_pairs import _similarity
from firsthand.benchmarks.protocols.vote_sets import AnswerPair, VoteProtocol, answer_text, read_list, vote_benchmark
from firsthand.benchmarks.retrieval_sets.beir_folder import read_corpus, read_judged, read_judgements
from firsthand.benchmarks.retrieval_sets.judged_set import check_judged, judged
from firsthand.benchmarks.retrieval_sets.set_folder import corpus_name, file_in, set_folder
from firsthand.benchmarks.swe.swe_tasks import _clones, check, default_command, make_script
from firsthand.errors import ConfigError, DataError, UnknownName


def test_a_judged_set_keeps_the_queries_with_a_relevant_document(tmp_path: Path):
    (tmp_path / "corpus.jsonl.gz").write_bytes(
        gzip.compress(b'{"_id": "d1", "title": "T", "text": "x"}\n\n{"_id": "d2", "text": "y"}\n')
    )
    (tmp_path / "queries.test.tsv").write_text("q1\twhy\nq2\thow\nq3\twho\n")
    (tmp_path / "qrels").mkdir()
    marks = tmp_path / "qrels" / "test.tsv"
    marks.write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t0\n")
    documents = read_corpus(tmp_path)
    assert [(each.id, each.text, each.title, each.source) for each in documents] == [
        ("d1", "x", "T", "d1"), ("d2", "y", "", "d2"),
    ]  # fmt: skip
    found = read_judged(tmp_path)
    assert found.queries == {"q1": "why"} and found.judgements == {"q1": {"d1": 2, "d2": 0}}
    assert found.origin == f"folder {tmp_path.name}, split test"
    trec = tmp_path / "x.trec"
    trec.write_text("q1 0 d1 1\r\nq1 0 d9 -1\n")
    assert read_judgements(trec) == {"q1": {"d1": 1, "d9": -1}}
    for text, said in (("q1\td1\tx\n", "line 1: query, document and a whole number"), ("\n", "holds no judgements")):
        trec.write_text(text)
        with pytest.raises(DataError, match=said):
            read_judgements(trec)
    check_judged(judged({"q": "x"}, {"q": {"d1": 1, "d9": 0}}, "o"), documents)
    with pytest.raises(DataError, match="o: document 'd9' is judged for query 'q' and is not there"):
        check_judged(judged({"q": "x"}, {"q": {"d9": 1}}, "o"), documents)
    with pytest.raises(DataError, match="o: query 'r' has judgements and no text"):
        judged({"q": "x", "r": " "}, {"q": {"d": 1}, "r": {"d": 1}}, "o")
    with pytest.raises(DataError, match="o has no judged query"):
        check_judged(judged({"q": "x"}, {"q": {"d": 0}}, "o"))


def test_the_folder_of_a_set_is_the_first_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError, match=r"scifact is not on this machine: unpack https://.*scifact\.zip into "):
        set_folder("scifact")
    for place in ("home/data/scifact", "home/data/retrieval/scifact", "env/scifact", "env/retrieval/scifact"):
        (tmp_path / place).mkdir(parents=True)
        assert set_folder("scifact") == (tmp_path / place).resolve()
    given = tmp_path / "a:b"
    for place in (given, given / "retrieval" / "scifact", given / "scifact"):
        place.mkdir(parents=True, exist_ok=True)
        assert set_folder("scifact", str(given)) == place.resolve()
    assert corpus_name("scifact", "") == "scifact"
    assert corpus_name("scifact", str(given)) == "scifact:data=" + str((given / "scifact").resolve()).replace(
        ":", "\\:"
    )
    (given / "two").write_text("x")
    assert file_in(given, "one", "two") == given / "two"
    with pytest.raises(DataError, match="has no one and no three"):
        file_in(given, "one", "three")


def test_cranfields_queries_count_by_place_and_abstracts_lose_their_title(tmp_path: Path):
    (tmp_path / "cran.all.1400.xml").write_text(
        "<doc><docno> 1 </docno><title>big\n wings</title><text>big wings\nfly  far</text></doc>"
        "<doc><docno>2</docno><title>t</title><text></text></doc>"
    )
    (tmp_path / "cran.qry.xml").write_text(
        "<top><num>4</num><title>why\nfly</title></top><top><title>how</title></top>"
    )
    (tmp_path / "cranqrel.trec.txt").write_text("1 0 1 1\n2 0 2 1\n")
    documents = cranfield.corpus(data=str(tmp_path))
    assert [(each.id, each.text, each.title) for each in documents] == [("1", "fly far", "big wings"), ("2", "", "t")]
    made = cranfield.cranfield(data=str(tmp_path))
    assert [(task.id, task.prompt) for task in made.tasks(0)] == [("query-1", "why fly"), ("query-2", "how")]
    assert made.tasks(0)[1].secret == {"judgements": {"2": 1}} and "2 queries, 2 judgements" in made.protocol
    (tmp_path / "cranqrel.trec.txt").write_text("1 0 1 1\n")
    with pytest.raises(DataError, match="has 2 queries, and 1 are judged: one file is truncated"):
        cranfield.cranfield(data=str(tmp_path))


def test_pairs_with_votes_are_sampled_in_order_and_clustered_by_question():
    pairs = [AnswerPair(f"p{n}", f"Q{n // 2}", f"a{n}", f"b{n}", ("A", "tie"), {"source": "s"}) for n in range(6)]
    protocols = {"pairwise": VoteProtocol("R", "pairwise"), "alpaca-eval": VoteProtocol("S", "alpaca-eval")}

    def made(protocol: str, sample: int) -> Any:
        return vote_benchmark(
            "v", protocols, protocol, pairs, description="d", origin="o", licence="l", sha256="h", sample=sample
        )

    whole_set = made("", 0)
    tasks = whole_set.tasks(0)
    assert [task.id for task in tasks] == [pair.id for pair in pairs] and whole_set.name == "v"
    assert tasks[0].cluster == tasks[1].cluster == hashlib.sha256(b"Q0").hexdigest()[:12] != tasks[2].cluster
    assert tasks[3].secret == {"votes": ["A", "tie"]} and tasks[3].metadata["source"] == "s"
    assert tasks[3].metadata["judge"] == {
        "protocol": "pairwise", "fields": {"question": "Q1", "answer_a": "a3", "answer_b": "b3"},
    }  # fmt: skip
    assert whole_set.protocol == "o; judge protocol pairwise: R; run it with --pattern judge"
    some = made("alpaca-eval", 3)
    ids = [task.id for task in some.tasks(0)]
    assert ids == sorted(ids) and len(set(ids)) == 3 and some.name == "v@alpaca-eval"
    assert some.options == {"data": "o, a seeded sample of 3", "sha256": "h", "protocol": "alpaca-eval"}
    assert len(made("", 6).tasks(0)) == 6
    for sample in (-1, 7):
        with pytest.raises(ConfigError, match=f"sample is {sample}: v has 6 pairs"):
            made("", sample)
    assert (answer_text(True), answer_text(1.5), answer_text(" x")) == ("True", "1.5", " x")


def test_lists_and_lines_of_votes_are_read_with_their_hash(tmp_path: Path):
    path = tmp_path / "v.json"
    for text in ('[{"a": 1}, {"a": 2}]', '\n {"a": 1}\n\n{"a": 2}\n', '\ufeff[{"a": 1}, {"a": 2}]'):
        path.write_text(text, encoding="utf-8")
        assert read_list(path) == ([{"a": 1}, {"a": 2}], path, hashlib.sha256(path.read_bytes()).hexdigest())
    for text in ("[]", "[1]", "3", "{", ""):
        path.write_text(text)
        with pytest.raises(DataError, match=r"v\.json"):
            read_list(path)
    assert _similarity("0", "w") == 0.0 and _similarity(5, "w") == 5.0
    for value in ("5.1", "-0.1", "x", None, "nan"):
        with pytest.raises(DataError, match="0 to 5 was expected"):
            _similarity(value, "w")


PATCH = "--- a/src/a b.py\n+++ b/src/a b.py\n@@ -1 +1 @@\n-x\n+y\n"
TESTS = "--- /dev/null\n+++ b/t/test_n.py\n@@ -0,0 +1 @@\n+z\n"
TESTS += "--- a/t/conftest.py\n+++ b/t/conftest.py\n@@ -1 +1 @@\n-x\n+y\n"
RECORD = {
    "instance_id": "o__r-1", "repo": "o/r", "base_commit": "a" * 40, "problem_statement": "It fails.",
    "FAIL_TO_PASS": '["t1"]', "PASS_TO_PASS": ["t2", "t3"], "patch": PATCH, "test_patch": TESTS,
}  # fmt: skip


def test_a_software_record_is_checked_and_gets_its_script():
    record = check(RECORD, "w")
    assert record["FAIL_TO_PASS"] == ["t1"] and record["PASS_TO_PASS"] == ["t2", "t3"]
    assert (record["log_parser"], record["eval_type"], record["image"], record["text"]) == (
        "pytest",
        "pass_and_fail",
        "",
        "",
    )
    assert record["eval_script"] == make_script("python -m pytest -rA -v t/test_n.py", "a" * 40, TESTS)
    lines = record["eval_script"].split("\n")
    mark = f"EOF_{hashlib.sha256(TESTS.encode()).hexdigest()[:12]}"
    assert lines[:5] == [
        "#!/bin/bash", "set -uxo pipefail", "cd /testbed", f"git checkout {'a' * 40} t/conftest.py",
        f"git apply -v - <<'{mark}'",
    ]  # fmt: skip
    assert lines[5] == "--- /dev/null" and lines[-5] == mark and lines[-3] == "python -m pytest -rA -v t/test_n.py"
    assert "git checkout" not in make_script("x", "a" * 40, "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+z\n")
    assert "'src/a b.py'" in make_script("x", "a" * 40, PATCH) and default_command(PATCH).endswith(" 'src/a b.py'")
    assert "tox -e x" in check({**RECORD, "test_cmd": "tox -e x"}, "w")["eval_script"]
    assert check({**RECORD, "patch": ""}, "w")["patch"] == "" and check({**RECORD, "base_commit": "b" * 64}, "w")
    for change, said in [
        ({"instance_id": "-x"}, "has characters besides"), ({"base_commit": "a" * 39}, "all 40 digits"),
        ({"base_commit": "A" * 40}, "all 40 digits"), ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS is empty"),
        ({"PASS_TO_PASS": "t"}, "PASS_TO_PASS must be a list"), ({"FAIL_TO_PASS": [1]}, "FAIL_TO_PASS must be a list"),
        ({"test_patch": ""}, "test_patch"), ({"patch": "x"}, "patch: "), ({"log_parser": "zz"}, "log_parser is 'zz'"),
        ({"eval_type": "x"}, "eval_type is 'x'"), ({"image": 3}, "the field 'image' holds '3'"),
        ({"test_cmd": "a\nb"}, "one line was expected"), ({"environment_setup_commit": "x"}, "there is no eval_script"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f"w: .*{said}"):
            check({**RECORD, **change}, "w")
    assert [str(each) for each in _clones("o/r", Path("/f"))] == ["/f/o/r", "/f/o__r", "/f/r", "/f/r.git"]


def test_bbh_takes_one_task_or_all_with_the_examples_below_the_line(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "cot-prompts").mkdir()
    for name in ("b_task", "a_task"):
        rows = [{"input": f"{name} {n}?", "target": str(n)} for n in range(2)]
        (tmp_path / "data" / f"{name}.json").write_text(json.dumps({"examples": rows}))
        worked = f"canary\r\n-----\n{name}\n\nQ: 1\nA: Let's think step by step. x\n\nQ: 2\nA: y\n\nQ: 3\nA: z\n"
        (tmp_path / "cot-prompts" / f"{name}.txt").write_text(worked)
    made = bbh.bbh(data=str(tmp_path))
    assert [task.id for task in made.tasks(0)] == ["a_task-000", "a_task-001", "b_task-000", "b_task-001"]
    assert made.tasks(0)[1].secret == {"answer": "1"} and made.tasks(0)[1].metadata == {
        "task": "a_task",
        "stratum": "a_task",
    }
    assert str(made.tasks(0)[2].context).startswith("b_task\n\nQ: 1\nA: Let's think step by step.\nx\n\nQ: 2\nA: y")
    assert str(made.tasks(0)[2].context).endswith("A: z\n\nQ: b_task 0?\nA: Let's think step by step.\n")
    one = bbh.bbh(data=str(tmp_path), task="b_task")
    assert len(one.tasks(0)) == 2 and "the authors' files, 2 items of b_task" in one.protocol
    assert one.options["sha256"] == hashlib.sha256((tmp_path / "data" / "b_task.json").read_bytes()).hexdigest()
    with pytest.raises(UnknownName, match="no BBH task 'c_task'"):
        bbh.bbh(data=str(tmp_path), task="c_task")
    (tmp_path / "cot-prompts" / "a_task.txt").write_text("canary\n-----\nQ: 1\n")
    with pytest.raises(DataError, match="three examples"):
        bbh.bbh(data=str(tmp_path))
