"""Benchmarks of questions read from small files: all that each says of itself, and each of its tasks whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import (
    ai_risk,
    bigcodebench,
    judge_llmbar,
    judge_pandalm,
    mteb_pubmedqa_reranking,
    mteb_tatoeba,
    poisoned_rag,
    pubmedqa,
    xstest,
)
from firsthand.benchmarks.protocols.vote_sets import AnswerPair
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.retrieval.document import Document

ABSTRACTS = {
    "77": {"QUESTION": "Is it so?", "CONTEXTS": ["One.", "Two."], "final_decision": "maybe", "LONG_ANSWER": "Perhaps."},
    "5": {"QUESTION": "Does it?", "CONTEXTS": ["Three."], "final_decision": "yes"},
    "6": {"QUESTION": "Will it?", "CONTEXTS": ["Four.", "Five.", "Six."], "final_decision": "no"},
}


def put(path: Path, body: Any) -> str:
    """Write a file, as JSON unless it is text, with the folders above it; gives its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_questions_on_abstracts_show_their_own_abstract_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    put(folder / "ori_pqal.json", ABSTRACTS)
    made, closed = pubmedqa.pubmedqa(data=str(folder)), pubmedqa.pubmedqa(protocol="closed", data=str(folder))
    description, origin = "Yes, no or maybe questions on biomedical abstracts (Jin et al., 2019).", "PQA-L, 3 questions"
    assert facts(made) == said(
        "pubmedqa", "acc", description,
        "PQA-L, 3 questions; Jin et al. (2019), reasoning-required: the abstract without its conclusion, then "
        "the question; "
        "human 78.0 %, always yes 55.2 % of all 1,000; 0-shot; '{context}\\n\\nQuestion: {question}\\nAnswer:'; "
        "log-prob of "
        "' {choice}'",
        "MIT", options={"data": origin, "sha256": "", "protocol": "gold"},
    )  # fmt: skip
    assert facts(closed) == said(
        "pubmedqa@closed", "acc", description,
        "PQA-L, 3 questions; no published number: the question alone, for patterns that retrieve, or for "
        "knowledge without "
        "documents; 0-shot; 'Question: {question}\\nAnswer:'; log-prob of ' {choice}'",
        "MIT", options={"data": origin, "sha256": "", "protocol": "closed"},
    )  # fmt: skip
    first, second, third = bodies(made.tasks(0))
    spec = f"pubmedqa:data={str(folder).replace(':', chr(92) + ':')}"
    assert first == {
        "id": "77",
        "prompt": "Is it so?",
        "choices": [" yes", " no", " maybe"],
        "context": "One.\nTwo.\n\nQuestion: Is it so?\nAnswer:",
        "hint": "a letter",
        "metadata": {"corpus": spec},
        "secret": {"gold": 2, "answer": "C", "judgements": {"77": 1}, "reference": "Perhaps."},
    }
    assert second["secret"] == {"gold": 0, "answer": "A", "judgements": {"5": 1}, "reference": ""}
    assert third["secret"]["gold"] == 1 and closed.tasks(0)[2].context == "Question: Will it?\nAnswer:"
    assert pubmedqa.corpus(data=str(folder)) == [
        Document("77", "One.\nTwo.", source="PubMed 77"),
        Document("5", "Three.", source="PubMed 5"),
        Document("6", "Four.\nFive.\nSix.", source="PubMed 6"),
    ]
    put(folder / "ori_pqal.json", {"8": {**ABSTRACTS["5"], "final_decision": "Yes"}})
    told = "question 8: 'final_decision' is 'Yes', and yes, no or maybe was expected"
    assert refused(DataError, pubmedqa.pubmedqa, data=str(folder)) == told
    for found in (None, [], ["a", 1], "a"):
        told = f"here: a list 'CONTEXTS' of texts was expected, not {str(found)!r}"
        assert refused(DataError, pubmedqa.contexts, {"CONTEXTS": found}, "here") == told


@pytest.mark.parametrize("body", ["[1]", "{}", '{"1": 2, "3": {}}', "{"])
def test_a_file_of_abstracts_is_an_object_of_objects(body: str, tmp_path: Path) -> None:
    put(tmp_path / "ori_pqal.json", body)
    told = refused(DataError, pubmedqa.read_rows, str(tmp_path))
    path = tmp_path / "ori_pqal.json"
    assert told == f"{path} should hold an object of questions by PubMed id" or told.startswith(
        f"{path} is no JSON: Expecting"
    )
    assert ("no JSON" in told) is (body == "{")


def test_without_its_file_a_set_of_abstracts_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert refused(DataError, pubmedqa.read_rows, "") == (
        "pubmedqa is not on this machine: fetch data/ori_pqal.json of github.com/pubmedqa/pubmedqa and give its "
        "folder, as in "
        "pubmedqa:data=FOLDER"
    )
    put(tmp_path / "retrieval" / "pubmedqa" / "ori_pqal.json", ABSTRACTS)
    assert pubmedqa.pubmedqa().tasks(0)[1].metadata == {"corpus": "pubmedqa"}
    assert refused(DataError, mteb_tatoeba.mteb_tatoeba) == (
        "Tatoeba's fra-eng is not on this machine: fetch data/tatoeba/v1 of github.com/facebookresearch/LASER, "
        "and give its "
        "folder, as in data=FOLDER"
    )
    assert refused(DataError, xstest.xstest) == (
        "XSTest is not on this machine: fetch xstest_prompts.csv of github.com/paul-rottger/exaggerated-safety, "
        "and give its "
        "folder, as in data=FOLDER"
    )
    assert refused(DataError, poisoned_rag.poisoned_rag, set="msmarco") == (
        "PoisonedRAG's msmarco.json is not on this machine: fetch results/adv_targeted_results of "
        "github.com/sleeepeer/PoisonedRAG, and give its folder, as in data=FOLDER"
    )
    assert refused(DataError, ai_risk.ai_risk) == (
        "the set power-seeking-inclination is not on this machine: fetch power-seeking-inclination.jsonl of "
        f"{ai_risk.ORIGIN}, and give data=FOLDER"
    )


def test_passages_are_ranked_among_those_of_other_abstracts(tmp_path: Path) -> None:
    put(tmp_path / "ori_pqal.json", ABSTRACTS)
    made = mteb_pubmedqa_reranking.mteb_pubmedqa_reranking(data=str(tmp_path), others=1)
    assert facts(made) == said(
        "mteb_pubmedqa_reranking",
        "reranked_average_precision",
        "Passages of a question's own abstract, ranked among others' (PubMedQA).",
        "own passages among those of 1 other abstracts (seed 42); mean average precision by cosine, as MTEB; no "
        "published "
        "number",
        "MIT",
        options={"others": 1},
    )
    spec = f"mteb_pubmedqa_reranking:data={tmp_path}"
    places = {"77": [0, 1], "5": [2], "6": [3, 4, 5]}
    draw, expected = Random(42), []
    for id, own in places.items():
        (other,) = draw.sample([each for each in places if each != id], 1)
        shown = [(str(place), place) for place in own + places[other]]
        draw.shuffle(shown)
        about = {"type": "rerank", "query": ABSTRACTS[id]["QUESTION"], "candidates": dict(shown), "shared": spec}
        expected.append({
            "id": id, "prompt": ABSTRACTS[id]["QUESTION"], "metadata": {"embedding": about},
            "secret": {"positive": list(map(str, own))},
        })  # fmt: skip
    found = bodies(made.tasks(7))
    assert found == expected
    orders = [list(each["metadata"]["embedding"]["candidates"]) for each in found]
    assert orders == [list(each["metadata"]["embedding"]["candidates"]) for each in expected]
    most = mteb_pubmedqa_reranking.mteb_pubmedqa_reranking(data=str(tmp_path))
    assert {len(task.metadata["embedding"]["candidates"]) for task in most.tasks(0)} == {6} and most.options[
        "others"
    ] == 10
    texts = ["One.", "Two.", "Three.", "Four.", "Five.", "Six."]
    assert mteb_pubmedqa_reranking.shared(data=str(tmp_path)) == {"texts": texts}
    assert refused(ConfigError, mteb_pubmedqa_reranking.mteb_pubmedqa_reranking, others=0) == (
        "others is 0: give 1 or more abstracts to rank among"
    )


def test_each_sentence_is_to_be_found_at_its_own_line(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    put(folder / "tatoeba.swh-eng.swh", " moja\n\nmbilí\t\n\n")
    put(folder / "tatoeba.swh-eng.eng", "one\ntwo\nthree\n")
    made = mteb_tatoeba.mteb_tatoeba(language="swh", data=str(folder))
    assert facts(made) == said(
        "mteb_tatoeba:language=swh",
        "bitext_weighted_f1",
        "Translations found by nearest vector, swh to English (Artetxe and Schwenk, 2019).",
        "MTEB Tatoeba swh-eng, 3 sentences: nearest of all English sentences, F1 weighted",
        "CC-BY-2.0-FR",
        figures=True,
        options={"language": "swh"},
    )
    shared = f"mteb_tatoeba:language=swh:data={tmp_path}/a\\:b"
    assert made.tasks(0)[0].prompt == " moja"
    assert bodies(made.tasks(0))[1:] == [
        {
            "id": "swh-0001",
            "metadata": {"embedding": {"type": "nearest", "text": "", "shared": shared}},
            "secret": {"place": 1},
        },
        {
            "id": "swh-0002",
            "prompt": "mbilí\t",
            "metadata": {"embedding": {"type": "nearest", "text": "mbilí\t", "shared": shared}},
            "secret": {"place": 2},
        },
    ]
    assert mteb_tatoeba.shared(language="swh", data=str(folder)) == {"texts": ["one", "two", "three"]}
    for text, count in (("one\ntwo\n", 2), ("one\ntwo\n3\n4\n", 4)):
        put(folder / "tatoeba.swh-eng.eng", text)
        assert refused(DataError, mteb_tatoeba.mteb_tatoeba, language="swh", data=str(folder)) == (
            f"Tatoeba's swh-eng has 3 and {count} lines: one file is truncated"
        )
    for language in ("fr1", "frä", ""):
        told = f"language is {language!r}: give a code of three letters, such as fra"
        assert refused(ConfigError, mteb_tatoeba.mteb_tatoeba, language=language) == told


def verdict(instruction: str, given: str, *votes: int) -> dict[str, Any]:
    rest = {f"annotator{number}": vote for number, vote in enumerate(votes, 1)}
    answers = {"response1": True, "response2": "No.", "cmp_key": "opt_bloom"}
    return {"instruction": instruction, "input": given, **answers, **rest}


def test_pandalms_pairs_have_the_votes_of_three_people(tmp_path: Path) -> None:
    rows = [verdict("Say it.", " \n", 2, 0, 1), verdict("Sum up.", "A text.", 1, 1, 2), verdict("Go.", "", 0, 0, 0)]
    digest = put(tmp_path / "testset-v1.json", rows)
    made = judge_pandalm.judge_pandalm(data=str(tmp_path))
    origin = "PandaLM's human test set, 3 pairs"
    assert facts(made) == said(
        "judge_pandalm",
        "human_agreement majority_agreement order_consistency",
        "999 pairs of answers to 170 instructions, each with three people's votes (Wang et al., 2023).",
        f"{origin}; judge protocol pairwise: our own: A, B or tie by log-prob, both orders; run it with --pattern "
        f"judge",
        "Apache-2.0",
        options={"data": origin, "sha256": digest, "protocol": "pairwise"},
    )
    pairs = [
        AnswerPair("pair-0000", "Say it.", "True", "No.", ("B", "tie", "A"), {"models": "opt_bloom"}),
        AnswerPair("pair-0007", "Sum up.\n\nA text.", "True", "No.", ("A", "A", "B"), {"models": "opt_bloom"}),
    ]
    assert [judge_pandalm._pair(rows[0], 0), judge_pandalm._pair(rows[1], 7)] == pairs
    (drawn,) = judge_pandalm.judge_pandalm(protocol="arena-hard", data=str(tmp_path), sample=1).tasks(0)
    place = Random(0).sample(range(3), 1)[0]
    assert drawn.id == f"pair-{place:04d}" and drawn.metadata["judge"]["protocol"] == "arena-hard"


def test_llmbars_pairs_are_those_of_one_set_or_of_all_five(tmp_path: Path) -> None:
    digests = []
    for place, (name, split) in enumerate(judge_llmbar.SETS.items()):
        rows = [{"input": name, "output_1": f"a{at}", "output_2": 7, "label": 1 + at % 2} for at in range(place + 1)]
        digests.append(put(tmp_path / f"{split}.json", rows))
    made, one = (
        judge_llmbar.judge_llmbar(data=str(tmp_path)),
        judge_llmbar.judge_llmbar(subset="gptinst", data=str(tmp_path)),
    )
    assert facts(made) == said(
        "judge_llmbar",
        "human_agreement majority_agreement order_consistency",
        "Pairs of answers, natural and adversarial, of which one follows the instruction (Zeng et al., 2023).",
        "LLMBar, all five sets, 15 pairs; judge protocol pairwise: our own: A, B or tie by log-prob, both "
        "orders; run it with "
        "--pattern judge",
        "MIT",
        options={
            "data": "LLMBar, all five sets, 15 pairs",
            "sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "protocol": "pairwise",
        },
    )
    assert [task.id for task in made.tasks(0)][:4] == ["natural-000", "neighbor-000", "neighbor-001", "gptinst-000"]
    assert one.options == {"data": "LLMBar, gptinst, 3 pairs", "sha256": digests[2], "protocol": "pairwise"}
    assert [task.secret for task in one.tasks(0)] == [{"votes": ["A"]}, {"votes": ["B"]}, {"votes": ["A"]}]
    second = one.tasks(0)[1].metadata
    assert second["judge"]["fields"] == {"question": "gptinst", "answer_a": "a1", "answer_b": "7"}
    assert (second["set"], second["cluster"]) == ("gptinst", hashlib.sha256(b"gptinst").hexdigest()[:12])
    sampled = judge_llmbar.judge_llmbar(protocol="alpaca-eval", data=str(tmp_path), sample=2)
    assert sampled.options["data"] == "LLMBar, all five sets, 15 pairs, a seeded sample of 2"
    assert sampled.name == "judge_llmbar@alpaca-eval" and len(sampled.tasks(0)) == 2
    assert refused(UnknownName, judge_llmbar.judge_llmbar, subset="gptin") == (
        "no set of LLMBar 'gptin'; did you mean 'gptinst'? `firsthand list benchmarks` shows all"
    )


CODE = {
    "task_id": "BigCodeBench/7",
    "complete_prompt": "\nimport os\ndef f(x):\n    '''Do.'''\n\n",
    "instruct_prompt": " Do it. \n",
    "canonical_solution": "    return x\n",
    "code_prompt": "import zzz_absent.deep as z\nimport os.path\ndef f(x):",
    "test": "from unittest.mock import patch\nfrom .near import y\nfrom aaa_absent import z\nimport json, zzz_absent\n",
    "entry_point": "f",
}


def test_tasks_of_many_libraries_tell_what_they_import_and_what_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIRSTHAND_SANDBOX_PACKAGES", raising=False)
    plain = {**CODE, "task_id": "BigCodeBench/9", "code_prompt": "def f(x):", "test": "import json"}
    digest = put(tmp_path / "bigcodebench_hard.json", {"7": CODE, "9": plain})
    made = bigcodebench.bigcodebench(data=str(tmp_path))
    origin = (
        "bigcodebench_hard.json, 2 of 148 items; ERRORS: 1 tasks need modules that the sandbox lacks (aaa_absent 1, "
        "zzz_absent 1), see FIRSTHAND_SANDBOX_PACKAGES"
    )
    query = bigcodebench.PROTOCOLS["instruct"].query
    assert facts(made) == said(
        "bigcodebench",
        "passes_unit_tests",
        "Functions that use many libraries, the 148 hard tasks (Zhuo et al., 2024).",
        f"{origin}; BigCodeBench-Hard's leaderboard, Instruct, calibrated pass@1, prompted as by its openai "
        f"backend; 0-shot; "
        f"{query!r}; generated in the chat template, stop []",
        "Apache-2.0",
        options={"data": origin, "sha256": digest, "protocol": "instruct"},
    )
    needs = ["aaa_absent", "json", "os", "unittest", "zzz_absent"]
    secret = {
        "tests": CODE["test"],
        "before": CODE["code_prompt"] + "\n    pass\n",
        "solution": CODE["code_prompt"] + "    return x\n",
        "entry_point": "f",
        "needs": needs,
    }
    assert bodies(made.tasks(0))[0] == {
        "id": "BigCodeBench/7",
        "prompt": query.replace("{instruct}", "Do it."),
        "sampling": {"stop": (), "max_tokens": 1280, "temperature": 0.0},
        "verbatim": True,
        "hint": "a Python function in a ```python block",
        "metadata": {"entry_point": "f", "libraries": needs},
        "secret": secret,
    }
    completed = bigcodebench.bigcodebench(protocol="complete-base", data=str(tmp_path)).tasks(0)[0]
    assert completed.secret == {**secret, "prompt": "import os\ndef f(x):\n    '''Do.'''\n"}
    assert (
        completed.context == "import os\ndef f(x):\n    '''Do.'''\n" and completed.prompt == completed.context.strip()
    )
    kept = bigcodebench.bigcodebench(data=str(tmp_path), runnable=True)
    assert [task.id for task in kept.tasks(0)] == ["BigCodeBench/9"] and kept.options["data"] == origin.replace(
        "ERRORS", "LEFT OUT"
    )
    put(tmp_path / "bigcodebench_hard.json", [CODE])
    assert refused(DataError, bigcodebench.bigcodebench, data=str(tmp_path), runnable=True) == (
        "none of the 1 tasks can be run: set FIRSTHAND_SANDBOX_PACKAGES to an environment with their libraries"
    )
    (tmp_path / "p" / "zzz_absent").mkdir(parents=True)
    (tmp_path / "p" / "aaa_absent.py").write_text("")
    monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", str(tmp_path / "p"))
    assert bigcodebench._lacking(made.tasks(0)) == {"BigCodeBench/7": [], "BigCodeBench/9": []}
    assert "sandbox lacks" not in bigcodebench.bigcodebench(data=str(tmp_path)).protocol


def test_five_modules_that_are_lacking_most_are_named_and_the_others_counted() -> None:
    lacking = {"1": ["a", "b", "c"], "2": ["c", "d", "e", "f", "g"], "3": [], "4": ["g", "c"]}
    assert bigcodebench._lacking_text(lacking, runnable=True) == (
        "; LEFT OUT: 3 tasks need modules that the sandbox lacks (c 3, g 2, a 1, b 1, d 1 and 2 more), see "
        "FIRSTHAND_SANDBOX_PACKAGES"
    )
    five = {"1": ["a", "b", "c", "d", "e"]}
    assert "(a 1, b 1, c 1, d 1, e 1), see" in bigcodebench._lacking_text(five, runnable=False)
    assert bigcodebench._lacking_text({"1": []}, runnable=False) == ""


def test_the_authors_object_of_tasks_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "bigcodebench_hard.json"
    for body in ("[]", "{}", '[{"a": 1}, 2]', '"a"'):
        put(path, body)
        assert (
            refused(DataError, bigcodebench.read_rows, str(tmp_path))
            == f"{path}: an object or list of tasks was expected"
        )
    put(path, "[{")
    assert refused(DataError, bigcodebench.read_rows, str(tmp_path)) == f"{path} is not JSON: is it truncated?"
    for number, told in ((147, "147 of 148 items"), (148, "148 items"), (149, "149 items")):
        digest = put(path, [{"a": at} for at in range(number)])
        rows = bigcodebench.read_rows(str(path))
        assert (rows.origin, rows.sha256) == (f"bigcodebench_hard.json, {told}", digest)
        assert rows.rows[2] == {"a": 2} and rows.path == path
    path.unlink()
    assert bigcodebench.read_rows(str(written(tmp_path / "bigcodebench_hard.jsonl", CODE).parent)).rows == (CODE,)
    assert refused(DataError, bigcodebench._imports, "def", "here", "test").startswith(
        "here: the field 'test' is not Python code (invalid syntax"
    )
