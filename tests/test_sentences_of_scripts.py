"""Sentences of scripts that end them with marks of their own, in every place where retrieval splits text."""

from __future__ import annotations

import asyncio
import time

import pytest

from corpus_tiny import tiny_corpus
from firsthand.retrieval.answers.answering import answer_grammar, extract
from firsthand.retrieval.answers.citations import locate, sentences
from firsthand.retrieval.answers.claims import check_claims
from firsthand.retrieval.chunking.text_spans import sentence_pieces
from firsthand.retrieval.reflection.critic_labels import split_sentences
from firsthand.retrieval.retriever import Hit
from firsthand.retrieval.tools.search import search, split
from firsthand.tokens.grammar_checks import accepts

SCRIPTS = {
    "zh": ["水泵的价格是1200欧元。", "它安全吗？", "“很安全！”", "他走了。"],
    "ja": ["東京は首都です。", "高さは3．5メートルです．", "「こんにちは。」と言った。", "はい！？", "(終わり。)"],
    "hi": ["दिल्ली राजधानी है।", "मुंबई बड़ा शहर है॥", "वहाँ समुद्र है।"],
    "ur": ["قیمت ۳۔۵ روپے ہے۔", "کیا لاہور بڑا شہر ہے؟", "ہاں۔"],
    "my": ["ရန်ကုန်သည် မြို့ကြီးဖြစ်သည်။", "နေပြည်တော်သည် မြို့တော်ဖြစ်သည်။"],
    "hy": ["Երևանը մայրաքաղաքն է։", "Գյումրին քաղաք է։"],
    "am": ["አዲስ አበባ ዋና ከተማ ናት።", "ጎንደር ከተማ ናት።"],
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("between", ["", " "])
def test_every_splitter_ends_a_sentence_at_the_scripts_own_marks(name, between):
    whole = between.join(SCRIPTS[name])
    assert [whole[a:b] for a, b in sentences(whole)] == SCRIPTS[name]
    assert [whole[a:b] for a, b in sentence_pieces(whole, 200)] == SCRIPTS[name]
    assert split_sentences(whole) == SCRIPTS[name]


def test_references_belong_to_the_sentence_before_them():
    text = "价格是1200欧元。[1][2]重量是5公斤。[3] 完。 It costs 5.[4] It is red."
    parts = ["价格是1200欧元。[1][2]", "重量是5公斤。[3]", "完。", "It costs 5.[4]", "It is red."]
    assert [text[a:b] for a, b in sentences(text)] == parts


PASSAGES = {
    "zh": ("水泵的价格是1200欧元。水泵的重量是5公斤。", "水泵的价格是1200欧元。", "水泵可以安全地饮用汽油。"),
    "ja": ("東京タワーの高さは333メートルです。色は赤です。", "色は赤です。", "東京タワーは大阪にあります。"),
    "hi": ("दिल्ली भारत की राजधानी है। मुंबई बड़ा शहर है।", "दिल्ली भारत की राजधानी है।", "चाँद पनीर से बना हुआ।"),
    "ur": ("اسلام آباد دارالحکومت ہے۔ لاہور بڑا شہر ہے۔", "لاہور بڑا شہر ہے۔", "چاند پنیر سے بنا۔"),
    "ar": ("القاهرة عاصمة مصر. الجيزة مدينة كبيرة.", "القاهرة عاصمة مصر.", "القمر مصنوع من الجبن."),
    "ru": ("Москва столица России. Казань большой город.", "Москва столица России.", "Луна сделана из сыра."),
    "en": ("The pump costs 5 euros. It is red.", "the pump costs 5 euros.", "cats drink petrol safely."),
}


@pytest.mark.parametrize("name", PASSAGES)
@pytest.mark.parametrize("form", ["{}[1] {}[1]", "{}[1]{}[1]", "{} [1]\n{} [1]"])
def test_a_made_up_sentence_beside_a_true_one_is_dropped(name, form):
    passage, true, false = PASSAGES[name]
    corpus = tiny_corpus({"a.md": passage})
    hits = [Hit(corpus.index.all[0], 1.0)]
    made = check_claims(form.format(true, false), hits, asyncio.run(locate(corpus, hits)), unsupported="drop")
    assert made.text == f"{true} [1]" and made.unsupported == (false,)
    assert made.citations[0].quote.casefold() == true.casefold(), "the sentence, not the passage"


@pytest.mark.parametrize("name", ["zh", "ja", "hi", "ur", "ar", "ru"])
def test_a_claim_without_a_reference_is_its_own_in_other_scripts(name):
    passage, true, false = PASSAGES[name]
    corpus = tiny_corpus({"a.md": passage})
    hits = [Hit(corpus.index.all[0], 1.0)]
    made = check_claims(f"{false} {true}[1]", hits, asyncio.run(locate(corpus, hits)))
    assert made.unsupported == (false,) and len(made.citations) == 1


def test_an_extract_quotes_one_sentence():
    corpus = tiny_corpus({"a.md": PASSAGES["hi"][0]})
    hits = [Hit(corpus.index.all[0], 1.0)]
    assert asyncio.run(extract("मुंबई शहर", hits, corpus)).text == "“मुंबई बड़ा शहर है।” [1]"


@pytest.mark.parametrize("words", ["北京是中国的首都。", "Москва столица.", "दिल्ली है।", "“سلام”"])
def test_the_grammar_of_answers_takes_letters_of_any_script(words):
    assert accepts(answer_grammar(["a"]), f"{words} [1]", whole=True)
    assert not accepts(answer_grammar(["a"]), f"- {words} [1]", whole=True)


def test_the_search_tool_splits_and_looks_up_sentences(tmp_path):
    text = "水泵的价格是1200欧元。" * 40 + "重量是5公斤。" + "颜色是红的。" * 200
    assert all(len(part) <= 800 and part.endswith("。") for part in split(text))
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    _, lookup = search(str(tmp_path))
    assert str(asyncio.run(lookup({"text": "重量"}))).endswith("\n  重量是5公斤。")


def test_splitting_takes_linear_time():
    for piece in ("。", "」", "。」", "1．", "。[1", "¿", " ", "a.", "[1]", "।‼", "。."):
        text = piece * 100_000 + "」と"
        begun = time.perf_counter()
        sentences(text), sentence_pieces(text, 800), split_sentences(text)
        check_claims(text[:40_000], [], [])
        assert time.perf_counter() - begun < 3, piece


def test_a_latin_point_before_a_small_letter_ends_no_claim():
    corpus = tiny_corpus({"a.md": "The pump weighs approx. five kilos."})
    hits = [Hit(corpus.index.all[0], 1.0)]
    made = check_claims("The pump weighs approx. five kilos. [1]", hits, asyncio.run(locate(corpus, hits)))
    assert made.unsupported == () and len(made.citations) == 1
