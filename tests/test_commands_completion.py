"""The words that a shell offers after each kind of line: whole lists, by command, flag, place and kind of name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.boards.board_spec import board_names
from firsthand.claims.all_claims import claim_names
from firsthand.commands import claims_run, completion, tour
from firsthand.commands.completion import _candidates, complete
from firsthand.commands.studio import ACTIONS
from firsthand.config import settings_of
from firsthand.errors import UnknownName
from firsthand.reading.tour_steps import tour_steps
from firsthand.retrieval.chunking.chunkers import CHUNKERS
from scored_runs import scored_run

MODELS = ["smollm2", "hf:", "openai:", "anthropic:", "google:", "ollama:"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_first_word_is_a_command_and_the_second_its_own() -> None:
    assert _candidates([""]) == [*catalog.names("command"), "--help", "--version"]
    assert _candidates(["no_such_command", ""]) == [] and complete("firsthand no_such_command -") == []
    sections = claim_names()
    claims = ["all", *sections, *(name for names in sections.values() for name in names)]
    assert _candidates(["claims", ""]) == ["run", "table", *claims, "--help"]
    assert _candidates(["claims", "run", ""]) == claims == completion._claims()
    assert _candidates(["claims", "run", "kv_cache_cost", ""]) == claims, "names may go on"
    assert (
        _candidates(["claims", "table", ""]) == ["patterns", "rag"]
        and _candidates(["claims", "table", "rag", ""]) == []
    )
    own = [f"--{each.field.name.replace('_', '-')}" for each in settings_of(claims_run.Config)
           if not each.field.metadata.get("positional")]  # fmt: skip
    assert _candidates(["claims", "run", "-"]) == [*own, "--config", "--help"] and "--budget" in own
    assert _candidates(["interp", "toy", "--quick", ""]) == []
    papers = list(_candidates(["papers", ""]))
    assert papers == ["ask", "index", "show", "--help"]


def test_a_recipe_brings_its_own_flags() -> None:
    assert _candidates(["train", ""]) == [*catalog.names("recipe"), "doctor"]
    bare, sft = set(_candidates(["train", "--"])), set(_candidates(["train", "sft", "--"]))
    assert {"--config", "--help"} <= bare and "--lr" in sft and "--lr" not in bare
    assert set(_candidates(["train", "doctor", "--"])) != sft


def test_values_follow_their_flag_with_or_without_an_equals_sign() -> None:
    weights = ["auto", "int8", "float16", "float32"]
    assert _candidates(["bench", "--weights", ""]) == weights
    assert _candidates(["bench", "--weights=x"]) == [f"--weights={each}" for each in weights]
    # a flag that is on or off takes no value: a word after it stands in its place
    assert _candidates(["bench", "--quick", ""]) == MODELS == _candidates(["bench", ""])
    assert _candidates(["bench", "smollm2", ""]) == [] and _candidates(["bench", "--rounds", "3", ""]) == MODELS
    assert _candidates(["bench", "--rounds", ""]) == []
    assert _candidates(["bench", "--unknown=x"])[-2:] == ["--config", "--help"], "an unknown flag is a flag"
    assert _candidates(["completion", ""]) == ["bash", "zsh", "fish"] and _candidates(["completion", "zsh", ""]) == []


def test_names_of_settings_are_those_of_their_kind(home: Path) -> None:
    run = scored_run(home, "one", {"ada": {"sums": {"t": [{"exact": 1.0}]}}}).id
    assert completion._runs() == ["last", run] == _candidates(["compare", ""]) == _candidates(["gate", run, ""])
    assert _candidates(["gate", run, run, ""]) == []
    assert (
        _candidates(["board", ""])
        == [*board_names(), "last", run]
        == completion._boards()
        == _candidates(["board", run, ""])
    )
    assert _candidates(["chat", "--load", ""]) == ["last", run] == _candidates(["fork", "--resume", ""])
    assert (
        _candidates(["arena", "smollm2", ""]) == MODELS == _candidates(["run", "--model", ""]) == completion._models()
    )
    assert (
        _candidates(["memory", ""])[:1] == [completion._actions_of_memory()[0]]
        and "list" in completion._actions_of_memory()
    )
    assert _candidates(["studio", ""]) == [words[0] for words, _ in ACTIONS] == completion._actions_of_studio()
    assert _candidates(["tour", ""]) == ["next", *(step.id for step in tour_steps())] and len(tour_steps()) > 5
    assert _candidates(["memory", "list", ""]) == [] == _candidates(["memory", "list", "f", ""]), (
        "a file follows the action"
    )
    assert completion._chunkers() == list(CHUNKERS)
    worlds = completion._worlds()
    assert "gsm8k" not in worlds and {"office", "game24"} & set(worlds) and _candidates(["play", ""]) == worlds
    assert set(worlds) < set(catalog.names("benchmark"))
    for flag, kind in (("pattern", "pattern"), ("tools", "tool"), ("guard", "guard"), ("memory", "memory")):
        assert _candidates(["run", f"--{flag}", ""]) == [*catalog.names(kind)]  # type: ignore[arg-type]
    assert (
        _candidates(["run", "gsm8k", ""])
        == [*catalog.names("benchmark")]
        == _candidates(["data", "r", "--benchmark", ""])
    )
    assert _candidates(["score", "last", "--with", ""]) == [*catalog.scorers()]


def setting(config: Any, name: str) -> Any:
    return next(each for each in settings_of(config) if each.field.name == name)


def test_a_list_keeps_what_stands_before_its_last_comma() -> None:
    run = completion.importlib.import_module("firsthand.commands.run").Config
    tools = [*catalog.names("tool")]
    assert completion._values(setting(run, "tools"), "calculator,fi", "run") == [f"calculator,{each}" for each in tools]
    names = [*catalog.names("pattern")]
    found = completion._values(setting(run, "pattern"), "direct,cot", "run")
    assert found == [f"direct,{each}" for each in names]
    with_options = completion._values(setting(run, "pattern"), "cot,self_consistency:samples=3:", "run")
    options = completion._options("self_consistency:samples=3:")
    assert with_options == [f"cot,{each}" for each in [*names, *options]]
    assert not {"self_consistency:samples=3:task=", "self_consistency:samples=3:ctx="} & set(options)
    assert "self_consistency:samples=3:samples=" in options and all(each.endswith("=") for each in options)
    assert completion._options("self_consistency(x):") == [each.replace("samples=3", "", 1).replace("::", "(x):")
                                                           for each in options]  # fmt: skip
    assert completion._options("no_such_pattern:") == []
    step = setting(tour.Config, "step")
    assert completion._values(step, "", "tour")[0] == "next" and completion._values(step, "", "run") == []


def test_names_that_a_shell_would_run_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a-1", "$(rm)", "-x", "b c", "d;e", "ü", "f=g:h@i/j+k.l_m", "", "n\n"]
    monkeypatch.setitem(completion._NAMES_OF_COMMAND, ("tour", "step"), lambda: names)
    assert completion._values(setting(tour.Config, "step"), "", "tour") == ["a-1", "f=g:h@i/j+k.l_m"]


def test_words_are_printed_one_a_line_and_none_where_a_line_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion.print_words("firsthand completion ", "") == 0
    assert capsys.readouterr().out == "bash\nfish\nzsh\n"
    assert completion.print_words("firsthand run --pattern self_consistency:sa", ":") == 0
    assert capsys.readouterr().out == "samples=\n"
    assert completion.print_words("firsthand run --pattern no_such_pattern:x", "") == 0
    assert complete("firsthand run a --model openai:") == ["openai:"] and complete(
        "firsthand run a --model ol", ":"
    ) == ["ollama:"], "a name with a colon is no pattern with options"
    assert complete("firsthand bench --weights") == ["--weights"] and complete("firsthand bench --weights=") == [
        f"--weights={each}" for each in ("auto", "float16", "float32", "int8")
    ]
    assert complete("firsthand bench --weights ") == complete('firsthand bench "--weights" ') != []
    assert complete('firsthand bench "smollm2 ') == [] and complete("firsthand bench 'smol") == ["smollm2"]
    assert completion.print_words("firsthand", "") == 0 and capsys.readouterr().out == ""
    assert complete("firsthand completion is") == [] and complete("firsthand completion fi") == ["fish"]
    assert complete("firsthand completion bash") == ["bash"], "a word that is whole stands there too"
    # what stands before the last of all break characters is left out
    assert complete("firsthand bench --weights=float", "=-") == ["float16", "float32"] and complete(
        "firsthand bench --we", "-"
    ) == ["weights"]


def test_a_line_whose_command_cannot_be_imported_or_read_has_no_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (ImportError("no rich"), OSError("no folder"), UnknownName("no such")):

        def fail(line: str, breaks: str, error: Exception = error) -> list[str]:
            raise error

        monkeypatch.setattr(completion, "complete", fail)
        assert completion.print_words("firsthand run ", "") == 0
    assert capsys.readouterr().out == ""


def test_each_shell_gets_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, script in (("bash", completion.BASH), ("zsh", completion.ZSH), ("fish", completion.FISH)):
        assert completion.main(completion.Config(shell)) == 0  # type: ignore[arg-type]
        assert capsys.readouterr().out == script and "_FIRSTHAND_COMPLETE" in script


def test_nothing_that_a_line_names_is_run_for_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "open('ran', 'w')\nfrom dataclasses import dataclass\n@dataclass\nclass Config:\n    x: int = 1\n"
    Path("evil.py").write_text(f"{code}def evil(config, run): 'Evil.'\n")
    for word in ("./evil.py", "evil.py", "evil.py:evil", "evil", "./evil", "../evil.py", str(tmp_path / "evil.py")):
        for line in (
            "train {} ", "train {} --", "train {} --x ", "train {} x=", "run --pattern {}:", "run {} ", "play {} -", "{} ",
            "run --pattern=cot({}):", "board {} ", "sweep {} -", "train --resume {} -", "run --config {} -",
        ):  # fmt: skip
            completion.print_words(f"firsthand {line.format(word)}", "")
    assert not Path("ran").exists()
    assert "--batch-tokens" in complete("firsthand train pretrain --b") and complete("firsthand train doctor --j") == [
        "--json"
    ]
    assert complete("firsthand run --pattern self_consistency:sam") == ["self_consistency:samples="]
