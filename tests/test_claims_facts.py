"""The facts, models and index that the claims on RAG and fine-tuning are measured with; counts of papers and of copies."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.claims import fact_arms, fact_models, position_models
from firsthand.claims.all_claims import all_claims
from firsthand.claims.fact_arms import FactIndex, correct, fact_index
from firsthand.claims.fact_language import IDS, RELATIONS, WORDS, changed, encoded, facts_of, people, question, sentence
from firsthand.claims.fact_models import Sample, answers, epochs
from firsthand.claims.lab import Lab
from firsthand.claims.rows_at_hand import rows_at_hand
from firsthand.claims.small_decoders import kept_weights, small_decoder
from firsthand.errors import StoreError
from firsthand.retrieval.store import sqlite_index
from firsthand.retrieval.store.sqlite_index import SqliteIndex


def test_facts_are_one_token_a_word_and_a_change_leaves_no_old_value_of_a_person() -> None:
    assert len(IDS) == len(WORDS)
    facts = facts_of(people(20, 0), Random(0))
    after = changed(facts, 0.5, Random(1))
    moved = {person for person, r in facts if facts[person, r] != after[person, r]}
    assert len(moved) == 10
    for person in moved:
        assert not {facts[person, r] for r in RELATIONS} & {after[person, r] for r in RELATIONS}
    assert len(encoded(sentence(*next(iter(facts.items()))[0], "brab"))) == 5


@pytest.mark.slow
def test_an_index_of_facts_finds_the_sentence_and_after_an_update_the_new_one() -> None:
    facts = facts_of(people(6, 0), Random(0))
    asked = list(facts)
    with fact_index(facts) as index:
        assert [hit.chunk.text.strip() for hit in index.search(asked)] == [
            sentence(*each, facts[each]) for each in asked
        ]
        after = changed(facts, 0.5, Random(1))
        assert index.update(after) > 0
        assert [hit.chunk.text.strip() for hit in index.search(asked)] == [
            sentence(*each, after[each]) for each in asked
        ]


def test_each_update_closes_the_index_that_it_opened_also_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[SqliteIndex] = []
    real = sqlite_index.open_index

    def open_index(*given: Any, **more: Any) -> SqliteIndex:
        opened.append(real(*given, **more))
        return opened[-1]

    def closed() -> list[bool]:
        found = []
        for index in opened:
            try:
                found.append(len(index) < 0)
            except StoreError:
                found.append(True)
        return found

    monkeypatch.setattr(sqlite_index, "open_index", open_index)
    facts = facts_of(people(2, 0), Random(0))
    made = FactIndex(tmp_path)
    assert (made.folder, made.path) == (tmp_path / "documents", tmp_path / "facts.index")
    assert made.update(facts) > 0 and closed() == [True]
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_dir() or "-wal" in each.name) == ["documents"]
    assert made.update(facts) >= 0 and closed() == [True, True], "nothing changed"

    async def fails(*given: Any) -> None:
        raise StoreError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("firsthand.retrieval.ingest.ingest", fails)
        with pytest.raises(StoreError, match=r"^no room$"):
            made.update(changed(facts, 1.0, Random(1)))
    assert closed() == [True] * 3
    with fact_index(facts) as index:
        assert closed() == [True] * 4 and len(index.search(list(facts)[:3])) == 3 and index.search([]) == []
        assert closed() == [True] * 4 + [False], "it stays open to be searched"
        folder = index.folder.parent
    assert closed() == [True] * 5 and not folder.exists()
    with pytest.raises(KeyError), fact_index(facts) as index:
        index.search(list(facts)[:1])
        raise KeyError
    assert closed() == [True] * 7 and not index.folder.parent.exists()


def test_answers_keep_the_order_of_prompts_of_several_lengths() -> None:
    model = small_decoder(0, std=0.1, vocab_size=len(WORDS), num_kv_heads=4)
    person = people(1, 0)[0]
    prompts = [question(person, "eats"), "so " + question(person, "eats"), question(person, "drives")]
    together = answers(model, prompts, words=2)
    assert together == [answers(model, [each], words=2)[0] for each in prompts]
    assert all(len(text.split(" ")) == 2 for text in together)


def test_kept_weights_are_loaded_again_and_trained_once_though_they_are_tied(tmp_path: Path) -> None:
    trained = []

    def made(seed: int) -> object:
        model = small_decoder(seed)
        assert model.architecture.tie_embeddings
        return kept_weights(
            tmp_path / "not" / "there" / "model.safetensors", model, lambda: trained.append(seed)
        ).state_dict()

    first, second = made(0), made(1)
    assert trained == [0]
    assert all((first[name] == second[name]).all() for name in first)  # type: ignore[index, attr-defined]


@pytest.mark.parametrize("kind", ["rope", "alibi", "absolute", "none"])
def test_a_model_of_each_kind_of_position_is_made_and_reads_longer_texts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_models, "STEPS", 1)
    model = position_models.position_model(Lab(0, tmp_path), kind)
    assert set(position_models.loss_by_length(model, (32, 128), count=1)) == {32, 128}


def test_a_copy_is_trained_and_the_reader_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_models, "READER_STEPS", 1)
    lab = Lab(0, tmp_path)
    before = fact_models.reader(lab).state_dict()
    samples = [Sample(question(people(1, 0)[0], r), "so ab !".replace("ab", "brab")) for r in RELATIONS]
    arm = fact_models.tuned(lab, samples, steps=2).state_dict()
    assert all((before[name] == value).all() for name, value in fact_models.reader(lab).state_dict().items())
    assert any((before[name] != value).any() for name, value in arm.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert [epochs(samples), epochs(samples * 1000)] == [100, 40 * 4000 // 128]


def test_each_arm_asks_its_model_what_it_is_shown_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, list[str], int]] = []

    def told(model: Any, prompts: list[str], words: int = 1) -> list[str]:
        asked.append((model, list(prompts), words))
        return [f"a{at}" for at in range(len(prompts))]

    monkeypatch.setattr(fact_arms, "answers", told)
    facts = facts_of(people(2, 0), Random(0))
    wanted = [list(facts)[at] for at in (5, 0, 5)]
    reader: Any = "the reader"
    questions = [question(*each) for each in wanted]
    with fact_index(facts) as index:
        passages = [sentence(*each, facts[each]) for each in wanted]
        assert fact_arms.read(reader, index, wanted, before="so", words=2) == ["a0", "a1", "a2"]
        assert fact_arms.read(reader, index, wanted[:1]) == ["a0"] and fact_arms.read(reader, index, []) == []
    assert fact_arms.recalled(reader, wanted, words=3) == ["a0", "a1", "a2"]
    assert fact_arms.recalled(reader, wanted[:1]) == ["a0"]
    spaced = [(model, [" ".join(each.split()) for each in prompts], words) for model, prompts, words in asked]
    assert spaced == [
        (reader, [f"so {passage} {each}" for passage, each in zip(passages, questions, strict=True)], 2),
        (reader, [f"{passages[0]} {questions[0]}"], 1), (reader, [], 1), (reader, questions, 3), (reader, questions[:1], 1),
    ]  # fmt: skip
    assert fact_arms.closed_book(facts) == [Sample(question(*each), f"{value} .") for each, value in facts.items()]
    assert fact_arms.closed_book({wanted[0]: "brab"}, "so {} !") == [Sample(questions[0], "so brab !")]
    assert fact_arms.closed_book({}) == []


def test_an_answer_is_correct_by_its_first_word() -> None:
    fact = (("a", "b"), "eats")
    assert correct(["brab .", "so brab", ""], [fact] * 3, {fact: "brab"}) == [1.0, 0.0, 0.0]


def test_a_copy_at_hand_is_counted_and_one_that_is_not_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetches() -> SimpleNamespace:
        raise AssertionError("fetched")

    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert rows_at_hand(fetches, "math/math_test_5000.jsonl") is None
    measured = all_claims()["gpqa_items"]
    assert measured.measure is not None
    assert "by the figures of Rein et al." in measured.judge(measured.measure(Lab(0, tmp_path))).why
    (tmp_path / "math_test_5000.jsonl").write_text("{}\n", encoding="utf-8")
    assert rows_at_hand(lambda: SimpleNamespace(rows=[1, 2]), "math/math_test_5000.jsonl") == 2


def test_mteb_has_58_datasets_of_8_tasks_and_56_english_ones_of_7() -> None:
    claim = all_claims()["mteb_datasets"]
    assert claim.measure is not None
    measured = claim.measure(Lab(0))
    assert measured.value == 58 and measured.cell("English, 7 tasks", "count") == 56
    assert len([row for row in measured.rows if str(row[0]) not in ("all",) and "English" not in str(row[0])]) == 8


@pytest.mark.slow
def test_an_index_follows_changed_facts_and_a_model_that_is_not_trained_again_does_not(tmp_path: Path) -> None:
    claim = all_claims()["rag_is_fresh"]
    assert claim.measure is not None
    found = claim.measure(Lab(3, tmp_path))
    assert found.bounds[0] > 0.5 and found.cell("fine-tuned again", "changed facts") > 0.9
    assert found.cell("RAG, index not updated", "changed facts") == 0
    assert claim.judge(found).word == "holds in part"
