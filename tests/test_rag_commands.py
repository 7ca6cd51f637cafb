"""rag ask, chat and serve: what they print and refuse, follow-up questions, and the endpoints."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from corpus_tiny import write_index
from firsthand import catalog, cli
from firsthand.commands.rag_ask import NO_SUPPORT, AnswerFlags, variant_of
from firsthand.errors import ConfigError, LimitExceeded, ModelError
from firsthand.grammar import regex
from firsthand.loop.budget import Limits
from firsthand.message import Message, assistant, system, user
from firsthand.model import Sampling, ToolSpec
from firsthand.providers.scripted import Scripted
from firsthand.retrieval.answers.answering import NOT_IN_DOCUMENTS
from firsthand.retrieval.answers.conversation import standalone
from firsthand.retrieval.answers.rag_model import RagModel, sources_of
from firsthand.retrieval.corpus import INDEX_NAME, open_corpus
from firsthand.retrieval.writer import ModelWriter
from thorough import part, repetitions

TEXTS = {
    "mill.md": "The mill was built in 1871.\nIt burned down in 1902.\n",
    "river.md": "The river Tesk has 12 bridges.\n",
}
CITED = "The mill was built in 1871. [1]"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return write_index(tmp_path / "docs.index", TEXTS, vectors=False)


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.json"
    replies = {
        "Rewrite this as one question": "When did the mill burn down?",
        "When did the mill burn down": "It burned down in 1902. [1]",
        "When was the mill built": CITED,
        "own the mill": "A duke owns it all. [1] He is rich. [2]",
        "bridges": "Not in the documents.",
    }
    path.write_text(json.dumps(replies))
    return f"scripted:{path}"


def rag(capsys, *words: object) -> tuple[int, str, str]:
    code = cli.main(["rag", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


# -- ask --


@pytest.mark.slow
def test_ask_prints_the_answer_and_where_each_claim_stands(index, script, capsys):
    code, out, _ = rag(capsys, "ask", "When was the mill built?", "--index", index, "--model", script)
    assert code == 0
    assert out.splitlines() == [CITED, "", "[1] mill.md:1 “The mill was built in 1871.”"]


def test_ask_shows_passages_with_their_scores(index, script, capsys):
    _, out, _ = rag(capsys, "ask", "When was the mill built?", "--index", index, "--model", script, "--show", "--k", 1)
    assert out.count("passage ") == 1 and "passage 1: mill.md 0-27: lexical 1 (" in out


def test_ask_prints_json_with_hash_span_and_quotation(index, script, capsys):
    _, out, _ = rag(capsys, "ask", "When was the mill built?", "--index", index, "--model", script, "--json")
    body = json.loads(out)
    (citation,) = body["citations"]
    document = open_corpus(index).index.document("mill.md")
    assert document.text[citation["start"] : citation["end"]] == citation["quote"]
    assert citation["sha256"] == document.sha256 and body["in_documents"] and body["model"] == script
    assert body["usage"]["completion_tokens"] > 0 and body["calls"] == 1


def test_ask_without_a_model_quotes_the_best_passages(index, capsys):
    code, out, _ = rag(capsys, "ask", "When did it burn?", "--index", index, "--model", "none")
    assert (code, out.splitlines()[0]) == (0, "“It burned down in 1902.” [1]")
    assert "[1] mill.md:2" in out
    _, out, _ = rag(capsys, "ask", "xyzzy", "--index", index, "--model", "none")
    assert out.strip() == NOT_IN_DOCUMENTS


def test_an_index_without_documents_is_told_before_anything_is_asked(tmp_path, script, capsys):
    empty = write_index(tmp_path / "empty.index", {}, vectors=False)
    for model in ("none", script):
        code, out, err = rag(capsys, "ask", "When did it burn?", "--index", empty, "--model", model)
        assert (code, out) == (2, "") and "holds no documents: put some in with" in err


@pytest.mark.slow
def test_a_question_of_a_hundred_thousand_characters_is_answered(index, script, capsys):
    question = "When was the mill built? " + "why " * 25_000
    for model in ("none", script):
        code, out, _ = rag(capsys, "ask", question, "--index", index, "--model", model, "--json")
        body = json.loads(out)
        assert code == 0 and body["hits"][0]["document"] == "mill.md" and "1871" in body["text"]


def test_ask_says_that_it_is_not_in_the_documents(index, script, capsys):
    code, out, _ = rag(capsys, "ask", "How many bridges?", "--index", index, "--model", script)
    assert (code, out.strip()) == (0, NOT_IN_DOCUMENTS)


@pytest.mark.slow
def test_an_answer_that_no_passage_supports_is_followed_by_the_nearest_sentences(index, script, capsys):
    words = ("ask", "Does a duke own the mill?", "--index", index, "--model", script)
    code, out, _ = rag(capsys, *words)
    assert code == 0 and out.splitlines() == [
        "A duke owns it all. [unsupported] He is rich. [unsupported]",
        "",
        NO_SUPPORT,
        "- mill.md:1 “The mill was built in 1871.”",
        "- river.md:1 “The river Tesk has 12 bridges.”",
    ]
    body = json.loads(rag(capsys, *words, "--json", "--k", 1)[1])
    (near,) = body["nearest"]
    document = open_corpus(index).index.document("mill.md")
    assert body["citations"] == [] and document.text[near["start"] : near["end"]] == near["quote"]
    assert near["sha256"] == document.sha256
    _, out, _ = rag(capsys, *words, "--unsupported", "drop")
    assert out.splitlines()[:3] == [NOT_IN_DOCUMENTS, "", NO_SUPPORT]
    body = json.loads(rag(capsys, "ask", "When was the mill built?", *words[2:], "--json")[1])
    assert body["citations"] and body["nearest"] == []


def test_ask_takes_any_variant_with_its_options(index, script, capsys):
    code, out, _ = rag(
        capsys,
        "ask",
        "When was the mill built?",
        "--index",
        index,
        "--model",
        script,
        "--variant",
        "modular:cap=distinct:k=1",
    )
    assert code == 0 and CITED in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ask"], "ask what?"),
        (["ask", "  "], "ask what?"),
        (["ask", "q", "--index", "nowhere"], "firsthand rag index DIR"),
        (["ask", "q", "--k", "0"], "k is 0"),
        (["ask", "q", "--max-tokens", "0"], "max_tokens is 0"),
        (["ask", "q", "--form", "long"], "form"),
        (["ask", "q", "--variant", "cot", "--index", "{index}"], "reads no index"),
        (["ask", "q", "--variant", "naiv", "--index", "{index}"], "did you mean 'naive'"),
        (["ask", "q", "--variant", "team", "--unsupported", "keep", "--index", "{index}"], "has no option unsupported"),
        (
            ["ask", "q", "--variant", "naive:search=magic", "--index", "{index}", "--model", "scripted:echo"],
            "search is 'magic'",
        ),
        (["ask", "q", "--model", "scripted:none.json", "--index", "{index}"], "cannot be read"),
        (["chat", "--model", "none"], "chat needs a model"),
        (["chat", "--index", "nowhere"], "firsthand rag index DIR"),
        (["serve", "--index", "nowhere"], "firsthand rag index DIR"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(words, told, index, capsys):
    code, out, err = rag(capsys, *(word.replace("{index}", str(index)) for word in words))
    assert code in (1, 2) and told in err and "Traceback" not in err + out and len(err.strip().splitlines()) == 1


def test_a_flag_of_the_command_fills_the_option_of_the_variant(index):
    _, options = variant_of(AnswerFlags(variant="naive:k=7", form="quoted", floor=0.25), index)
    assert options == {"k": 7, "form": "quoted", "unsupported": "mark", "floor": 0.25, "index": str(index)}
    assert variant_of(AnswerFlags(variant="naive:k=7", k=3), index)[1]["k"] == 7
    _, options = variant_of(AnswerFlags(variant="team"), index)
    assert options == {"form": "cited", "index": str(index)}
    taken = {"k": 2, "index": str(index)}
    assert variant_of(AnswerFlags(variant="rag_token", k=2), index)[1] == taken, (
        "what is not the default is refused alone"
    )
    for name, value in (("floor", 0.0), ("rerank", ""), ("unsupported", "drop"), ("form", "plain")):
        with pytest.raises(ConfigError) as refused:
            variant_of(AnswerFlags(variant="rag_token", k=2, **{name: value}), index)
        assert str(refused.value) == f"--{name} was given, and rag_token has no option {name}: leave it out"
    for name, value in (("floor", 0.0), ("rerank", "")):
        assert variant_of(AnswerFlags(variant="naive", **{name: value}), index)[1][name] == value


# -- chat --


def test_chat_rewrites_a_follow_up_and_forgets_on_clear(index, script, capsys, monkeypatch):
    import io

    lines = ["When was the mill built?", "And when did it burn?", "/show", "/clear", "/show", "/quit", "never"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    code, out, err = rag(capsys, "chat", "--index", index, "--model", script)
    assert CITED in out and "It burned down in 1902. [1]" in out and "[1] mill.md:2" in out
    assert "passage 1: mill.md" in out and "no answer yet" in err and code == 1
    assert "never" not in out


def test_a_follow_up_stands_alone_and_a_first_question_costs_nothing():
    model = Scripted({"Rewrite this": '"When did the mill burn?"\n'})
    history = [(f"question {n} {'x' * 2000}", f"answer {n}") for n in range(9)]
    assert asyncio.run(standalone("And it?", history, ModelWriter(model))) == "When did the mill burn?"
    prompt = model.asked[0].prompt[0].text
    assert "answer 8" in prompt and "answer 5" in prompt and "answer 4" not in prompt and len(prompt) < 4000
    silent = Scripted()
    assert asyncio.run(standalone("First?", [], ModelWriter(silent))) == "First?" and silent.asked == []
    assert asyncio.run(standalone("And it?", history, ModelWriter(Scripted(["\n"])))) == "And it?"
    one = "2. Liga: who won?"
    assert asyncio.run(standalone("And it?", history, ModelWriter(Scripted([one])))) == one


# -- the model that serves --


def model_over(index: Path, reply=CITED, **more) -> RagModel:
    pattern, options = catalog.pattern("naive:search=lexical")
    base = Scripted(reply) if isinstance(reply, dict) else Scripted(lambda messages, sampling, number: reply)
    return RagModel(base, pattern, options | {"index": str(index)}, **more)


def complete(model: RagModel, messages: Sequence[Message] | str, **more):
    return asyncio.run(model.complete(messages, Sampling(), **more))


@pytest.mark.slow
def test_a_completion_ends_with_its_sources(index):
    (made,) = complete(model_over(index), "When was the mill built?")
    assert made.message.text == f"{CITED}\n\nSources:\n[1] mill.md:1 “The mill was built in 1871.”"
    assert made.usage.total_tokens > 0
    (none,) = complete(model_over(index, "Not in the documents."), "When was the mill built?")
    assert none.message.text == NOT_IN_DOCUMENTS
    assert len(complete(model_over(index), "mill", n=2)) == 2


def test_the_conversation_of_a_request_is_its_history(index):
    model = model_over(index, {"Rewrite this": "When did the mill burn down?", "": "It burned down in 1902. [1]"})
    told = f"{CITED}\n\nSources:\n[1] mill.md:1 “secret of the sources”"
    messages = [system("Be brief."), user("When was it built?"), assistant(told), user("And when did it burn?")]
    (made,) = complete(model, messages)
    assert made.message.text.startswith("It burned down in 1902. [1]")
    prompt = "\n".join(message.text for message in model.base.asked[0].prompt)
    assert "Assistant: The mill was built in 1871. [1]\n" in prompt and "secret of the sources" not in prompt
    assert model.base.asked[0].prompt[0] == system("Be brief.")


def test_what_a_cited_answer_cannot_do_is_refused(index):
    model = model_over(index)
    tool = ToolSpec("t", "", {"type": "object", "properties": {}})
    for ask, told in (
        (lambda: complete(model, "q", tools=[tool]), "no tools"),
        (lambda: asyncio.run(model.complete("q", Sampling(grammar=regex("a")))), "no tools and no response format"),
        (lambda: asyncio.run(model.score("q", ["a"])), "no log-probs"),
        (lambda: complete(model, [user("q"), assistant("a")]), "no user's"),
        (lambda: complete(model, []), "no user's"),
    ):
        with pytest.raises(ConfigError, match=told):
            ask()


def test_a_failed_or_cut_off_answer_is_an_error(index):
    with pytest.raises(LimitExceeded):
        complete(model_over(index, limits=Limits(calls=1)), "When was the mill built?")
    broken = model_over(index)
    broken.base = Scripted(error=ModelError("the model broke"))
    with pytest.raises(ModelError, match="the model broke"):
        complete(broken, "When was the mill built?")


def test_another_variant_or_index_has_another_fingerprint(index):
    one, other = model_over(index), model_over(index)
    assert one.fingerprint == other.fingerprint
    other.options = {**other.options, "k": 9}
    assert one.fingerprint != other.fingerprint


def test_sources_are_a_line_each():
    body = {"citations": [{"number": 1, "label": "a\nb", "quote": "x\ny"}]}
    assert sources_of(body) == "[1] a b “x y”"


# -- serve --


def post(url: str, body: object, **headers: str) -> tuple[int, dict]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_a_server_searches_answers_and_chats_with_citations(index):
    from firsthand.serve.retrieval.search_app import search_app
    from served import serving

    model, corpus = model_over(index), open_corpus(index)
    with serving(model, name="docs", apps=lambda parts: [search_app(corpus, model)]) as running:
        status, body = post(f"{running.url}/search", {"query": "mill built", "k": 1, "search": "lexical"})
        (hit,) = body["data"]
        assert (status, hit["label"], hit["text"]) == (200, "mill.md:1", "The mill was built in 1871.")
        assert len(hit["sha256"]) == 64 and hit["trail"][0][:2] == ["lexical", 1]
        status, body = post(f"{running.url}/search", {"query": "mill", "where": {"document": "river.md"}})
        assert (status, body["data"]) == (200, [])
        status, body = post(f"{running.url}/answer", {"question": "When was the mill built?"})
        assert status == 200 and body["citations"][0]["quote"] == "The mill was built in 1871."
        chat = {"model": "docs", "messages": [{"role": "user", "content": "When was the mill built?"}]}
        status, body = post(f"{running.url}/v1/chat/completions", chat)
        assert status == 200 and "Sources:\n[1] mill.md:1" in body["choices"][0]["message"]["content"]
        for route, bad in (
            ("search", {"query": ""}), ("search", {"query": "x", "k": 0}), ("search", {"query": "x", "k": 101}),
            ("search", {"query": "x" * 10_001}), ("search", {"query": "x", "search": "magic"}), ("search", {"q": "x"}),
            ("search", {"query": "x", "search": "dense"}), ("search", {"query": "x", "where": {"a": {"huh": 1}}}),
            ("answer", {}), ("answer", {"question": "q", "history": [["only one"]]}),
        ):  # fmt: skip
            status, body = post(f"{running.url}/{route}", bad)
            assert status == 400 and body["error"]["message"], (route, bad, body)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{running.url}/search", timeout=30)
        assert refused.value.code == 405


@pytest.mark.slow
def test_keys_guard_search_as_they_guard_chats(index):
    from firsthand.serve.admission.admission_settings import ClientLimits
    from firsthand.serve.admission.api_keys import read_keys
    from firsthand.serve.retrieval.search_app import search_app
    from served import serving

    keys = read_keys(None, {"FIRSTHAND_API_KEY": "k" * 32}, ClientLimits())
    corpus = open_corpus(index)
    with serving(Scripted(), keys=keys, apps=lambda parts: [search_app(corpus, None)]) as running:
        assert post(f"{running.url}/search", {"query": "mill"})[0] == 401
        status, body = post(f"{running.url}/search", {"query": "mill"}, authorization=f"Bearer {'k' * 32}")
        assert status == 200 and len(body["data"]) == 1
        status, body = post(f"{running.url}/answer", {"question": "q"}, authorization=f"Bearer {'k' * 32}")
        assert status == 404 and "use /search" in body["error"]["message"]


@pytest.mark.weights
def test_real_models_answer_from_an_index_with_citations_that_hold(smollm2, tmp_path, capsys):
    from firsthand.retrieval.answers.citations import Citation, holds

    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    assert rag(capsys, "index", tmp_path, "--model", "minilm")[0] == 0
    for variant in part(("naive", "advanced:pool=2", "hyde:n=1"), 2):
        length = repetitions(40, 12)
        words = ("When was the mill built?", "--index", tmp_path, "--model", smollm2, "--max-tokens", length, "--json")
        code, out, _ = rag(capsys, "ask", *words, "--variant", variant, "--k", 2)
        body = json.loads(out)
        assert code == 0 and body["hits"] and body["usage"]["completion_tokens"] > 0
        index = open_corpus(tmp_path).index
        assert all(holds(Citation(**each), index.document(each["document"])) for each in body["citations"])


@pytest.mark.slow
def test_the_one_folder_that_was_indexed_is_asked_without_its_name(
    tmp_path: Path, script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    for name in ("one", "two"):
        (work / name).mkdir(parents=True)
    monkeypatch.chdir(work)
    question = ("ask", "When was the mill built?", "--model", script, "--variant", "naive:search=lexical")
    code, _, err = rag(capsys, *question)
    assert code == 2 and "no index at '.'" in err
    write_index(work / "one" / INDEX_NAME, TEXTS, vectors=False)
    code, out, err = rag(capsys, *question)
    assert code == 0 and "mill.md:1" in out, err
    write_index(work / "two" / INDEX_NAME, TEXTS, vectors=False)
    code, _, err = rag(capsys, *question)
    assert code == 2 and "2 folders here have an index (one, two): choose one with --index" in err
    code, out, _ = rag(capsys, *question, "--index", "two")
    assert code == 0 and "mill.md:1" in out
    write_index(work / INDEX_NAME, {"own.md": "The mill was built in 1871.\n"}, vectors=False)
    code, out, _ = rag(capsys, *question)
    assert code == 0 and "own.md:1" in out, "an index of this folder comes first"
