"""What commands refuse before they begin, what they read of damaged and busy places, and the words that they count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from corpus_tiny import write_index
from firsthand.arena.blind_battles import BlindBattle, prompt_task
from firsthand.commands import arena, board, rag_ask, rag_chat, run, studio, studio_transfer, tokens, train
from firsthand.commands import chat as chatting
from firsthand.commands import list as listing
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.hub.model_lookup import KNOWN
from firsthand.memory import MemoryItem
from firsthand.retrieval.answers import rag_model
from firsthand.retrieval.corpus import close_corpora
from firsthand.runs import store
from firsthand.runs.run_names import LOCK
from firsthand.show import chat_screen
from firsthand.tokens.pretrained import load
from firsthand.trace import Trace
from firsthand.train.vocabulary import train_vocabulary
from printed_tables import words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    close_corpora()


# -- boards and battles --


@pytest.mark.parametrize(("flag", "name"), [("export", "a.html"), ("climb", "c.svg"), ("save", "e.results")])
def test_a_file_to_write_needs_a_folder_and_no_file_in_its_place(tmp_path: Path, flag: str, name: str) -> None:
    Path("file").touch()
    Path("folder").mkdir()
    Path("link").symlink_to("folder")
    Path("away").symlink_to("nowhere")

    def check(path: str) -> None:
        board._check_outputs(board.Config(("x",), **{flag: (path,) if flag == "export" else path}))  # type: ignore[arg-type]

    for given in (name, f"./{name}", f"folder/{name}", f"link/{name}", str(tmp_path / name)):
        check(given)
    for given in (f"file/{name}", f"none/{name}", f"folder/none/{name}", f"away/{name}", str(tmp_path / "file" / name)):
        with pytest.raises(ConfigError) as refused:
            check(given)
        assert str(refused.value) == f"the folder of {given!r} does not exist: make it, or name another file"
    with pytest.raises(ConfigError, match=rf"^{flag} is 'none/x\.txt': a "):
        check("none/x.txt")


@pytest.mark.parametrize("width", [99, 100])
def test_all_that_an_answer_hides_from_the_reader_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    made = arena.console

    def console() -> Any:
        out = made()
        out.width = width
        return out

    monkeypatch.setattr(arena, "console", console)

    def shown(prompt: str, *answers: str | None) -> list[str]:
        a, b = (Trace(name, "arena", "t", {"name": name}, 0, 0, "", 1.0, (), answer=answer)
                for name, answer in zip("xy", answers, strict=True))  # fmt: skip
        arena._show(prompt, BlindBattle(prompt_task("?"), a, b))
        return words(capsys.readouterr().out)

    # a bell and a carriage return would be dropped where the text is laid out
    one, two = "a\x07b\rc\x1b[31m\u202ed", "e\x08f\x0bg"
    seen = ("a\\x07b\\rc\\x1b[31m\\u202ed", "e\\x08f\\x0bg")
    wide = width == 100
    assert shown("q\x07\r?", one, two) == [
        "q\\x07\\r?",
        *(["A B", " ".join(seen)] if wide else ["A", seen[0], "B", seen[1]]),
    ]
    none = "(no answer)"
    for empty in (None, ""):
        assert shown("q", empty, two) == ["q", *(["A B", f"{none} {seen[1]}"] if wide else ["A", none, "B", seen[1]])]
    for long in ("x" * 40 + "\x1b\x1b\x1b" + "y", "z" * 150, "a" * 47 + " " + "b" * 49):
        told = "".join(shown("q", long, "-")[2:]).replace(" ", "").replace("-", "").replace("B", "")
        assert told == long.replace("\x1b", "\\x1b").replace(" ", ""), "a word that is too long is folded, not cut"


# -- the list of models --


def test_models_are_listed_with_what_they_are_and_the_forms_of_a_name() -> None:
    found = listing.model_names()
    assert list(found) == [
        *KNOWN, "PATH.gguf", "FOLDER", "hf:ORG/NAME", "openai:NAME@URL", "anthropic:NAME", "google:NAME", "ollama:NAME",
        "scripted:FILE.json", "cassette:FILE.jsonl", "sim:game24", "sim:sessions",
    ]  # fmt: skip
    assert list(KNOWN) == ["smollm2", "minilm"] and found["smollm2"].startswith("SmolLM2-135M-Instruct by Hugging")
    assert found["minilm"] == "all-MiniLM-L6-v2 by sentence-transformers: texts to vectors"
    told = {"PATH.gguf": "GGUF", "FOLDER": "config.json", "hf:ORG/NAME": "Hugging Face hub", "anthropic:NAME": "Anthropic",
            "openai:NAME@URL": "OpenAI", "google:NAME": "Gemini", "ollama:NAME": "Ollama", "sim:game24": "game of 24",
            "scripted:FILE.json": "scripted", "cassette:FILE.jsonl": "recorded", "sim:sessions": "sessions"}  # fmt: skip
    assert [name for name, about in told.items() if about not in found[name]] == []
    assert len(set(found.values())) == len(found) == len(told) + len(KNOWN)


# -- memories --


def test_replaced_withdrawn_and_hidden_items_of_a_memory_are_listed_too(cli: Cli) -> None:
    home = {"subject": "Ann", "attribute": "home"}
    rows = [
        ("Ann lives in Oslo.", {**home, "value": "Oslo", "time": "2026-01-01"}),
        ("Ann lives in Rome.", {**home, "value": "Rome", "time": "2026-02-01"}),
        ("Ann lives nowhere.", {**home, "value": "", "time": "2026-03-01", "withdrawn": True}),
        ("Ann keeps a secret.", {"time": "2026-04-01", "hidden": True}),
    ]
    lines = [json.dumps({"text": text, "provenance": provenance, "kind": "semantic"}) for text, provenance in rows]
    Path("rows.jsonl").write_text("\n".join(lines))
    assert cli("memory", "import", "m.db", "rows.jsonl") == (0, "imported 4 new items\n", "")

    def listed(*more: str) -> list[str]:
        body = json.loads(cli("memory", "list", "m.db", "--json", *more)[1])
        assert [each["items"] for each in body["scopes"]] == [4]
        return [each["text"] for each in body["items"]]

    texts = [text for text, _ in rows]
    assert listed() == texts[::-1] and listed("--limit", "3") == texts[:0:-1] and listed("--limit", "1") == texts[3:]
    assert sorted(listed("--query", "Ann")) == sorted(texts) and listed("--query", "Oslo") == texts[:1]
    assert listed("--query", "secret") == texts[3:] and listed("--owner", "bob") == [] == listed("--kind", "notes")
    ids = [MemoryItem.of(text, provenance).id for text, provenance in rows]
    told = words(cli("memory", "list", "m.db")[1])
    assert "4 items" in told and {each for each in ids if not any(line.startswith(each) for line in told)} == set()


@pytest.mark.slow
def test_a_memory_that_was_cut_short_is_read_with_salvage_alone_and_stays_as_it_is(cli: Cli, tmp_path: Path) -> None:
    rows = [{"text": f"item {n} " + "word " * 60, "kind": "semantic", "owner": "ann"} for n in range(120)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("memory", "import", "m.db", "rows.jsonl")[1] == "imported 120 new items\n"
    whole = Path("m.db").read_bytes()
    for each in Path().glob("m.db-*"):
        each.unlink()
    cut = whole[: len(whole) * 3 // 4]
    Path("m.db").write_bytes(cut)
    for line in (("export", "m.db"), ("list", "m.db")):
        code, out, err = cli("memory", *line)
        assert code != 0 and out == "" and err.startswith("firsthand: m.db is cut short: it has "), line
    code, out, err = cli("memory", "export", "m.db", "--salvage")
    kept = [json.loads(line) for line in out.splitlines()]
    assert (
        code == 0 and 0 < len(kept) < 120 and {(each["owner"], each["kind"]) for each in kept} == {("ann", "semantic")}
    )
    texts = [row["text"] for row in rows]
    assert [each["text"] for each in kept] == [text for text in texts if text in {each["text"] for each in kept}]
    assert err.startswith(f"exported {len(kept)} items; ") and err.endswith(" could not be read\n")
    assert cli("memory", "export", "m.db", "--salvage", "--out", "saved.jsonl") == (0, "", err)
    assert Path("saved.jsonl").read_text() == out and Path("m.db").read_bytes() == cut
    assert cli("memory", "export", "none.db", "--salvage")[0] != 0 and not Path("none.db").exists()
    code, out, err = cli("memory", "import", "m.db", "rows.jsonl")
    assert code != 0 and "is cut short" in err and Path("m.db").read_bytes() == cut, "a memory that was there stays"


# -- a chat without a question --


def test_only_a_pipe_must_have_a_question_and_every_line_but_the_end_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = write_index(tmp_path / "d.index", {"a.md": "The mill was built in 1871.\n"}, vectors=False)
    Path("s.json").write_text('{"": "In 1871. [1]"}')
    real, terminal, lines, closed = chat_screen.Screen, True, list[str](), list[str]()

    def screen() -> Any:
        made = real()
        made.is_terminal = terminal
        return made

    monkeypatch.setattr(chat_screen, "Screen", screen)
    monkeypatch.setattr(chatting, "questions", lambda prompt: iter(lines))
    monkeypatch.setattr(rag_model.RagModel, "close", lambda self: closed.append(self.base.name))
    config = rag_chat.Config(index, rag_ask.AnswerFlags(model="scripted:s.json"))
    for terminal, said, code in (
        (True, [], 0), (True, ["/quit"], 0), (True, ["/exit", "never"], 0), (True, ["/nope"], 0), (True, ["When?"], 0),
        (False, ["When?"], 0), (False, ["/help"], 0), (False, ["/nope"], 1), (False, ["/nope", "When?", "/quit"], 1),
        (False, [], None), (False, ["/quit"], None), (False, ["/exit", "When?"], None),
    ):  # fmt: skip
        lines[:] = said
        closed.clear()
        told = "^nothing was asked: type a question, or pipe questions in, a line each$"
        with pytest.raises(ConfigError, match=told) if code is None else nullcontext():
            assert rag_chat.run(config) == code, (terminal, said)
        assert closed == ["scripted:s.json"], "closed also where nothing was asked"


# -- runs and recipes that are resumed --


def test_a_run_that_is_worked_on_is_not_resumed_and_may_be_replayed(home: Path, cli: Cli) -> None:
    Path("q.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    Path("q.toml").write_text('data = "q.jsonl"\nprompt = "{question}"\ntarget = "{answer}"\nscorer = "exact"\n')
    Path("s.json").write_text('{"": "2"}')
    assert cli("run", "q.toml", "--model", "scripted:s.json")[0] == 0
    with store.open_run("last", home) as made:
        name = made.id
        with made.working():
            for ref in (name, "last", str(made.path)):
                with pytest.raises(ConfigError) as refused:
                    run.open_or_configure(run.Config(resume=ref))
                assert str(refused.value).startswith(f"{name} is being run by process ")
                assert str(refused.value).endswith(": wait until it ends, or end it first")
            code, out, err = cli("run", "--resume", name)
            assert (code, out) == (2, "") and err.startswith(f"firsthand: {name} is being run by process ")
            none, settings = run.open_or_configure(run.Config(replay=name))
            assert none is None and settings.benchmarks == ("q.toml",)
            assert [each.status for each in store.list_runs(home)] == ["running"]
        assert not (made.path / f"{LOCK}.holder").exists()
    resumed, settings = run.open_or_configure(run.Config(resume=name))
    assert resumed is not None and resumed.id == name and settings.model == ("scripted:s.json",)
    resumed.close()
    with pytest.raises(UnknownName):
        run.open_or_configure(run.Config(resume="zz"))


def test_a_training_run_is_resumed_with_its_own_recipe_in_its_own_folder(tmp_path: Path) -> None:
    told = "--resume goes on with a run's own recipe in its own folder: leave the recipe and --out out"
    for more in (
        {"recipe": "sft"},
        {"out": tmp_path / "new"},
        {"recipe": "sft", "out": tmp_path / "new"},
        {"recipe": ""},
    ):
        for trust in (False, True):
            with pytest.raises(ConfigError) as refused:
                train.main(train.Config(resume=tmp_path / "old", trust=trust, **more))  # type: ignore[arg-type]
            assert str(refused.value) == told
    with pytest.raises((ConfigError, StoreError)) as other:
        train.main(train.Config(resume=tmp_path / "old"))
    assert str(tmp_path / "old") in str(other.value) and str(other.value) != told
    with pytest.raises(ConfigError, match=r"^a recipe is needed; `firsthand train --help` shows all$"):
        train.main(train.Config())
    assert list(tmp_path.iterdir()) == []


# -- the home of a studio --


def test_actions_of_a_studio_are_in_the_home_that_is_named(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def told(name: str, result: Any) -> None:
        monkeypatch.setattr(studio_transfer, name, lambda *given: asked.append((name, *given)) or result)

    told("import_logs", 3)
    told("export_run", 4)
    told("store_of", "kept")
    told("manage_accounts", 5)
    named, link = tmp_path / "named", "postgresql://u@h/n"
    named.mkdir()
    for given, where in ((named, named), (None, home)):
        asked.clear()
        assert studio.main(studio.Config(("import", "logs"), home=given)) == 3
        assert studio.main(studio.Config(("export", "last"), home=given)) == 4
        assert studio.main(studio.Config(("export", "x"), home=given, to=Path("x.html"), filter="is:wrong")) == 4
        assert studio.main(studio.Config(("account", "add", "ada"), home=given, role="editor")) == 5
        more: dict[str, Any] = {"database": link, "project": "vision"}
        assert studio.main(studio.Config(("account", "list"), home=given, **more)) == 5
        assert asked == [
            ("import_logs", Path("logs"), where), ("export_run", "last", None, "", where),
            ("export_run", "x", Path("x.html"), "is:wrong", where), ("store_of", where, "", ""),
            ("manage_accounts", ("add", "ada"), "editor", "kept", ""), ("store_of", where, link, "vision"),
            ("manage_accounts", ("list",), "viewer", "kept", "vision"),
        ]  # fmt: skip


def test_a_studio_shows_the_home_that_is_named_or_the_usual_one_or_the_example_s(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def serve(config: studio.Config, where: Path, agents: Any) -> int:
        asked.append((config, where, list(agents), [agent.model.name for agent in agents.values()]))
        if config.demo:
            assert any((where / "runs").iterdir())
        return 6

    monkeypatch.setattr(studio, "_serve", serve)
    Path("a.json").write_text('{"": "yes"}')
    Path("b.json").write_text('{"": "no"}')
    models = ("scripted:b.json", "scripted:a.json")
    for given in (studio.Config(), studio.Config(home=tmp_path), studio.Config(model=models), studio.Config(demo=True)):
        assert studio.main(given) == 6
    configs, homes, names, made = zip(*asked, strict=True)
    assert configs == (
        studio.Config(), studio.Config(home=tmp_path), studio.Config(model=models), studio.Config(demo=True),
    )  # fmt: skip
    assert homes[:3] == (home, tmp_path, home) and homes[3] not in homes[:3] and not homes[3].exists()
    assert names == ([], [], list(models), []) == made


# -- words of a text --


def test_words_of_a_text_are_what_white_space_parts(capsys: pytest.CaptureFixture[str]) -> None:
    model = "made"
    train_vocabulary(["the cat sat on the mat\n" * 20], Path(model), vocab_size=264)
    ours = load(Path(model))
    for text, count in (
        ("the  cat\nsat\t on \n", 4),
        ("the cat", 2),
        ("cat", 1),
        ("\n \t", 0),
        (" cat", 1),
        ("\u3000a\u00a0b", 2),
    ):
        assert tokens.main(tokens.Config(text, (model,), price=(f"{model}=2",), json=True)) == 0
        ids = ours.encode(text)
        assert json.loads(capsys.readouterr().out) == {
            "characters": len(text), "words": count,
            "models": [{"model": model, "tokens": len(ids), "ids": ids, "cost_usd": pytest.approx(len(ids) * 2e-6),
                        "pieces": [ours.token_bytes(id).decode("utf-8", "backslashreplace") for id in ids]}],
        }  # fmt: skip
        assert tokens.main(tokens.Config(text, (model,))) == 0
        row = words(capsys.readouterr().out)[-1].split()
        assert row[-3:] == [
            f"{len(ids)}", f"{len(ids) / max(1, count):.2f}", f"{len(text) / len(ids):.2f}",
        ], text  # fmt: skip
    assert tokens.main(tokens.Config("the cat", (model, model), json=True)) == 0
    [one] = json.loads(capsys.readouterr().out)["models"]
    assert one["cost_usd"] is None and one["model"] == model, "a model that is named twice is shown once"
