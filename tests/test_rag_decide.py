"""`firsthand rag decide`: arms on a user's documents, changed facts, and what the table says."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.commands.rag_decide import Config, read_questions
from firsthand.errors import ConfigError, DataError
from firsthand.experiment.rag_decision import (
    FactQuestion,
    answer_all,
    arm_agents,
    choose_changes,
    diagnosis,
    measured,
    question_benchmark,
    training_rows,
)
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.benchmark_corpus import build_index
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index
from tiny import write_model

FACTS = {
    "alder": ("Where does the alder office lie?", "Oslo"),
    "birch": ("Who leads the birch project?", "Maria"),
    "cedar": ("Which colour has the cedar badge?", "violet"),
    "elm": ("What is the name of the elm server?", "Kestrel"),
    "fir": ("Which dish does the fir canteen serve?", "goulash"),
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    yield
    close_corpora()


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, (question, answer) in FACTS.items():
        subject = question.rstrip("?").split(" ", 2)[2]
        (folder / f"{name}.md").write_text(f"On {subject}: {answer}.\n")
    rows = [{"question": q, "answer": a, "document": f"{name}.md"} for name, (q, a) in FACTS.items()]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, questions


def decide(cli, files, *more):
    """An echoing model answers with the first words of its prompt: right when the passage with the answer comes first."""
    words = [*map(str, files), "--model", "scripted:echo", "--embedder", "none", "--k", "1"]
    return cli("rag", "decide", *words, *more)


@pytest.mark.slow
def test_arms_are_measured_and_rag_beats_closed_book(cli, files):
    code, out, err = decide(cli, files, "--json", "--change", "40%")
    assert code == 0, err
    body = json.loads(out)
    arms = {each["arm"]: each for each in body["arms"]}
    assert list(arms) == ["closed book", "RAG", "long context", "oracle context"]
    assert arms["closed book"]["quality"]["value"] == 0.0
    assert arms["RAG"]["quality"]["value"] == arms["oracle context"]["quality"]["value"] == 1.0
    assert 0 < arms["long context"]["quality"]["value"] < 1, "only the first documents come within 64 words"
    assert arms["RAG"]["versus"]["difference"] == 1.0 and arms["closed book"]["versus"] is None
    assert (arms["RAG"]["cited"], arms["closed book"]["cited"]) == (1.0, 0.0)
    assert (arms["RAG"]["retrieved"], arms["closed book"]["retrieved"]) == (1.0, None)
    assert body["changed"] == 2
    assert arms["RAG"]["freshness"]["value"] == 1.0 and arms["RAG"]["stale"] == 0.0
    assert arms["closed book"]["freshness"]["value"] == 0.0 and arms["closed book"]["update_s"] is None
    assert arms["RAG"]["update_s"] > 0 == arms["long context"]["update_s"]
    assert arms["RAG"]["tokens_per_1k"] > arms["closed book"]["tokens_per_1k"] > 0
    assert any("Neither retrieval nor reading" in sentence for sentence in body["diagnosis"])


@pytest.mark.slow
def test_the_table_and_the_diagnosis_are_printed(cli, files):
    code, out, err = decide(cli, files, "--change", "0", "--arms", "RAG,oracle context")
    assert code == 0, err
    assert "oracle context" in out and "long context" not in out
    assert "RAG is better than closed book" in out or "RAG is not shown to differ" in out
    assert "5 questions, 0 facts changed" in " ".join(out.split())


@pytest.mark.slow
def test_retrieval_that_fails_is_named(cli, files, tmp_path):
    folder, _ = files
    for number in range(8):  # decoys that share every word of the questions
        asked = " ".join(question for question, _ in FACTS.values())
        (folder / f"decoy{number}.md").write_text(f"{asked}\n{asked}\n")
    code, out, err = decide(cli, files, "--json", "--change", "0", "--arms", "RAG,oracle context")
    assert code == 0, err
    body = json.loads(out)
    arms = {each["arm"]: each for each in body["arms"]}
    assert arms["RAG"]["retrieved"] < 1.0 and arms["oracle context"]["quality"]["value"] == 1.0
    assert any(sentence.startswith(("Retrieval holds you back", "Neither")) for sentence in body["diagnosis"])


@pytest.mark.slow
def test_without_documents_there_is_no_oracle(cli, files):
    _, questions = files
    rows = [{"question": q, "answer": a} for q, a in FACTS.values()]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = decide(cli, files, "--json", "--change", "0")
    assert code == 0 and "no oracle" in err
    assert [each["arm"] for each in json.loads(out)["arms"]] == ["closed book", "RAG", "long context"]
    questions.write_text(
        questions.read_text() + json.dumps({"question": "x?", "answer": "y", "document": "elm.md"}) + "\n"
    )
    code, _, err = decide(cli, files)
    assert code == 2 and "name all, or none" in err


@pytest.mark.slow
def test_the_users_index_and_documents_are_left_as_they_are(cli, files, tmp_path):
    before = {path.name: path.read_text() for path in files[0].iterdir()}
    assert decide(cli, files, "--change", "100%", "--arms", "RAG")[0] == 0
    assert {path.name: path.read_text() for path in files[0].iterdir()} == before
    kept = sorted((tmp_path / "home" / "indexes").glob("*.sqlite"))
    assert len(kept) == 2 and kept[0].name.startswith("changed-decide-")
    for path, has_new in zip(kept, (True, False), strict=True):
        index = open_index(path)
        texts = " ".join(index.document(id).text for id in index.hashes())
        assert index.verify() == []
        index.close()
        assert (before["elm.md"] not in texts) == has_new


def questions_of(*triples):
    return [FactQuestion(str(at), f"q{at}?", answer, documents) for at, (answer, documents) in enumerate(triples)]


def test_changed_facts_get_another_answer_in_one_document_each():
    asked = questions_of(("Oslo", ("a",)), ("Rome", ("b",)), ("Bern", ("c",)), ("Riga", ()))
    texts = {"a": "It is Oslo.", "b": "It is Rome. Rome!", "c": "nothing", "d": "Riga and Oslo"}
    changes = choose_changes(asked, texts, 1.0, seed=0)
    found = {change.question.answer: (change.document, change.new) for change in changes}
    assert set(found) == {"Oslo", "Rome", "Riga"}, "an answer that stands nowhere cannot be changed"
    assert found["Riga"][0] == "d" and len({place for place, _ in found.values()}) == 3
    assert all(new != old and new not in texts[place] for old, (place, new) in found.items())
    assert len(choose_changes(asked, texts, 0.25, seed=0)) == 1
    assert choose_changes(asked, texts, 0.5, seed=1) == choose_changes(asked, texts, 0.5, seed=1)


def test_no_two_facts_of_one_document_are_changed():
    asked = questions_of(("Oslo", ("a",)), ("Bern", ("a",)), ("Rome", ("b",)))
    changes = choose_changes(asked, {"a": "Oslo, Bern", "b": "Rome"}, 1.0, seed=0)
    assert sorted(change.document for change in changes) == ["a", "b"]


def test_a_fact_in_a_longer_word_is_not_changed():
    with pytest.raises(DataError, match="no fact can be changed"):
        choose_changes(questions_of(("24", ("a",)), ("7", ("b",))), {"a": "240", "b": "77"}, 1.0, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "a?", "answer": ""}\n', "line 1: the field 'answer' holds ''"),
        ("[]\n", "line 1: a JSON object was expected"),
        ('{"question": "a?", "answer": "b", "document": 3}\n', "line 1: 'document' is '3'"),
        ('{"question": "a?", "answer": "b"}\n', "1 question: intervals need two"),
    ],
)
def test_malformed_questions_are_named_with_their_line(tmp_path, text, message):
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_questions(path)


@pytest.mark.slow
def test_settings_that_cannot_be_are_refused(cli, files, tmp_path):
    with pytest.raises(ConfigError, match="change is '120%'"):
        Config(Path("d"), Path("q"), change="120%")
    with pytest.raises(ConfigError, match="give --lora too"):
        Config(Path("d"), Path("q"), train_questions=Path("t"))
    assert Config(Path("d"), Path("q"), change="5%").changed_share() == 0.05
    code, _, err = decide(cli, files, "--arms", "RAG,magic")
    assert code == 2 and "no arm 'magic'" in err
    code, _, err = decide(cli, (tmp_path / "none", files[1]))
    assert code == 2 and "no file or folder" in err
    rows = [{"question": "a?", "answer": "b", "document": "gone.md"}] * 2
    files[1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = decide(cli, files)
    assert code == 1 and "'gone.md', which was not indexed" in err


def reading(messages, sampling, index):
    """A reader that copies the first passage whole, and nothing else."""
    text = messages[-1].text
    return text.split("<passage 1", 1)[1].split("</passage 1", 1)[0] if "<passage 1" in text else "I do not know."


@pytest.mark.slow
def test_a_document_that_is_found_and_not_read_is_no_fault_of_retrieval(files, tmp_path):
    """With decoys before it, the right document is among five passages, and the reader takes the first one."""
    folder, _ = files
    questions = [FactQuestion(name, q, a, (f"{name}.md",)) for name, (q, a) in FACTS.items()]
    for found, says in ((True, "Reading among other passages holds you back"), (False, "Retrieval holds you back")):
        index = tmp_path / f"{found}.sqlite"
        documents = [Document(f"{name}.md", (folder / f"{name}.md").read_text()) for name in FACTS]
        documents += [Document(f"decoy{n}", q) for n, (q, _) in enumerate(FACTS.values())]
        asyncio.run(build_index(index, documents, embedder=""))
        agents = arm_agents(ARMS[:2] + ARMS[3:4], Scripted(reading), None, index, k=2 if found else 1, max_chars=1000)
        agents = [replace(each, options={**each.options, "search": "lexical"}) for each in agents]
        run = asyncio.run(answer_all(agents, question_benchmark(questions, "b"), seed=0, concurrency=2))
        with run:
            results = measured(ARMS[:2] + ARMS[3:4], run, None, [], {})
            said = diagnosis(results, run, confidence=0.9)
        assert {each.arm: each.quality.value for each in results} == {"closed book": 0, "RAG": 0, "oracle context": 1}
        assert results[1].retrieved == float(found)
        assert said[0].startswith(says)
        close_corpora()


ARMS = ["closed book", "RAG", "long context", "oracle context"]


def test_training_asks_in_the_words_of_the_closed_book_arm(tmp_path):
    questions = [
        FactQuestion("1", "Where does it lie?", "Oslo", ("a.md",)),
        FactQuestion("2", "Who leads it?", "Ada", ()),
    ]
    prompts = []

    def reply(messages, sampling, index):
        prompts.append(messages[-1].text)
        return "x"

    agents = arm_agents(["closed book"], Scripted(reply), None, tmp_path / "none", k=1, max_chars=9)
    asyncio.run(answer_all(agents, question_benchmark(questions, "decide"), seed=0, concurrency=1)).close()
    documents, *asked = training_rows({"a.md": "It lies in Oslo."}, questions)
    assert documents == {"text": "It lies in Oslo."}
    assert sorted(each["prompt"] for each in asked) == sorted(prompts)
    assert [each["completion"] for each in asked] == ["Oslo", "Ada"]


@pytest.mark.slow
def test_the_arms_of_a_fine_tuned_model_are_measured(files, tmp_path, cli):
    base = write_model(tmp_path / "base")
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"question": f"Is it {n}?", "answer": "yes"}) + "\n" for n in range(3)))
    words = [
        "--embedder",
        "none",
        "--k",
        "1",
        "--arms",
        "RAG",
        "--lora",
        "--epochs",
        "1",
        "--train-questions",
        str(more),
    ]
    code, out, _ = cli("rag", "decide", *map(str, files), "--model", str(base), *words, "--json")
    table = {each["arm"]: each for each in json.loads(out)["arms"]}
    assert code == 0 and list(table) == ["closed book", "RAG", "LoRA", "LoRA + RAG"]
    trained_s = json.loads(out)["trained_s"]
    assert trained_s > 0 and table["LoRA"]["update_s"] == trained_s
    assert table["LoRA"]["retrieved"] is None and table["LoRA + RAG"]["retrieved"] == 1
    assert table["LoRA"]["freshness"] is not None and table["LoRA"]["errors"] == 0
    refused, _, said = cli("rag", "decide", *map(str, files), "--model", str(base), *words[:-1], str(files[1]))
    assert refused == 2 and "is asked and trained on" in said
