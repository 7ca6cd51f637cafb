"""What a new user met who typed, piped and closed things at random, each as it failed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from firsthand.agent import Agent
from firsthand.cli import main
from firsthand.commands.run import Config
from firsthand.config import parse
from firsthand.errors import FirsthandError, nearest, reason_of
from firsthand.experiment.experiment import Experiment
from firsthand.patterns.direct import direct
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.runs.store import open_run
from firsthand.system.plurals import count_of
from firsthand.telemetry import live_export
from served import serving

RUN = ["run", "arithmetic", "--model", "scripted:echo", "--limit", "1"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence for a command that makes no sense; nothing is left of it."""
    assert main(list(words)) in (1, 2)
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert not list(Path("home").glob("runs/2*"))
    return said.err


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = command.replace("firsthand", f"{sys.executable} -m firsthand")
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=os.environ | environment, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(("number", "text"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks")])
def test_a_number_and_its_noun_agree(number: int, text: str) -> None:
    assert count_of(number, "task") == text
    assert count_of(12_345, "row", ",") == "12,345 rows"


@pytest.mark.slow
def test_one_task_is_no_plural_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RUN) == 0
    for words in (["show", "last"], ["summary", "last"], ["runs"], ["compare", "last", "last"]):
        assert main(words) == 0
    assert main(["power", "last", "--effect", "0.5"]) == 2
    said = capsys.readouterr()
    assert re.findall(r"\b1 (?:tasks|attempts|agents|runs|clusters|rows)\b", said.out + said.err) == []


def test_a_file_that_is_no_model_is_refused_before_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.gguf").write_text("not a model")
    Path("folder").mkdir()
    Path("folder/config.json").write_text("{}")
    says = {"m.gguf": "it starts with b'not '", "folder": "no .safetensors file"}
    for name, said in says.items():
        assert said in refused(capsys, "run", "arithmetic", "--model", name, "--limit", "3")


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4000])


def lacks_a_shard(folder: Path) -> None:
    made = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(made)}
    save_file(
        {name: made[name] for name in made if "00001" in shards[name]}, folder / "model-00001-of-00002.safetensors"
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def in_whole_numbers(folder: Path) -> None:
    made = {name: tensor.to(torch.int32) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(made, folder / "model.safetensors")


def lacks_a_matrix(folder: Path) -> None:
    made = load_file(folder / "model.safetensors")
    save_file({name: made[name] for name in made if "layers.1.mlp" not in name}, folder / "model.safetensors")


def of_no_known_family(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "nosuch"}))


def of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))


def without_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 3}')


def with_a_broken_template(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{% for %}"}))


BROKEN = {
    cut: "model.safetensors",
    lacks_a_shard: "model-00002-of-00002.safetensors cannot be read",
    in_whole_numbers: "is I32",
    lacks_a_matrix: "missing: model.layers.1.mlp",
    of_no_known_family: "model_type is 'nosuch'",
    of_another_width: "was expected",
    without_vocabulary: "no vocabulary",
    with_a_broken_template: "the chat template cannot be read",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", BROKEN, ids=lambda each: each.__name__)
def test_a_model_that_cannot_be_loaded_is_refused_before_the_run(
    capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    folder = tiny.write_model(Path("model"))
    damage(folder)
    said = refused(capsys, "run", "arithmetic", "--model", "./model", "--pattern", "direct,cot", "--limit", "3")
    assert BROKEN[damage] in said
    experiment = Experiment([Agent("a", Local(folder), direct)], ["arithmetic"], limit=1)
    with pytest.raises(FirsthandError):
        experiment.run()
    assert not list(Path("home").glob("runs/2*"))


@pytest.mark.slow
def test_a_run_whose_model_was_damaged_meanwhile_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.write_model(Path("model"))
    words = ["run", "arithmetic", "--model", "./model", "--pattern", "direct", "--max-tokens", "2", "--limit", "1"]
    with Experiment.from_settings(parse(Config, words[1:], prog="run").settings()).create() as run:
        path = run.path
    cut(folder)
    assert main(["run", "--resume", path.name]) == 1
    assert "model.safetensors" in capsys.readouterr().err
    with open_run(path.name, Path("home")) as run:
        assert not run.done()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--judge", "rubric"), "judge is for an attempt"),
        (("--full",), "full is for an attempt"),
        (("--reveal",), "reveal is for an attempt"),
        (("3fa9", "--strata", "level"), "strata is for the leaderboard"),
        (("3fa9", "--reduce", "max"), "reduce is for the leaderboard"),
    ],
)
def test_a_flag_of_show_that_would_do_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    assert told in refused(capsys, "show", "last", *words)


def test_a_protocol_of_a_benchmark_without_protocols_is_refused_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "arithmetic has no protocols: leave @nope out" in refused(capsys, "run", "arithmetic@nope")


def test_a_table_as_a_benchmark_says_how_to_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ok.csv").write_text("question,answer\n1,1\n")
    assert "describe it in a TOML file" in refused(capsys, "run", "ok.csv", "--model", "scripted:echo")


def test_a_setting_that_a_file_has_wrong_is_named_with_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.toml").write_text('data = "ok.csv"\nquestion = "x"\n')
    assert "own.toml has no setting 'question'" in refused(capsys, "run", "own.toml", "--model", "scripted:echo")
    assert "own.toml has no setting 'data'" in refused(capsys, "run", "arithmetic", "--config", "own.toml")


def test_a_pattern_that_is_no_async_function_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.py").write_text("def q(task, ctx):\n    return 'x'\n")
    assert main([*RUN, "--pattern", "q.py"]) == 3
    assert "the pattern q is no async function: write it as async def" in capsys.readouterr().err


@pytest.mark.slow
def test_a_conversation_without_a_question_is_refused() -> None:
    for command in (
        "firsthand chat scripted:echo",
        'firsthand chat scripted:echo ""',
        'echo "" | firsthand chat scripted:echo',
    ):
        done = shell(command)
        assert done.returncode == 2 and "nothing was asked: give a question" in done.stderr, command


def test_no_runs_yet_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert capsys.readouterr().out.startswith("no runs in ")


@pytest.mark.slow
def test_a_closed_stream_ends_no_run_and_no_file_takes_its_place() -> None:
    """With standard error closed, the run's database had its number, and the run ended in silence with 1."""
    done = shell(f"firsthand {' '.join(RUN)} 2>&-")
    assert done.returncode == 0 and "numeric, 1 task" in done.stdout
    assert shell(f"firsthand {' '.join(RUN)} <&- >&- 2>&-").returncode == 0
    assert len(json.loads(shell("firsthand runs --json").stdout)) == 2
    assert shell("firsthand runs --check").returncode == 0


@pytest.mark.slow
def test_tables_have_rules_that_the_encoding_has() -> None:
    done = shell("firsthand list guards", PYTHONIOENCODING="latin-1")
    assert "\\u2500" not in done.stdout and "\n----" in done.stdout


@pytest.mark.slow
def test_a_question_reaches_the_model_in_any_locale() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m firsthand chat scripted:echo 'héllo 世界'"],
        capture_output=True,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8", "PYTHONCOERCECLOCALE": "0"},
    )
    assert done.stdout.decode().strip() == "héllo 世界", done.stderr


@pytest.mark.slow
def test_openais_client_retrieves_a_model_by_its_name() -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed")
    for name in ("scripted:echo", "org/name"):
        with serving(Scripted(["x"]), name=name) as running:
            client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
            assert client.models.retrieve(name).id == name == client.models.list().data[0].id
            with pytest.raises(openai.NotFoundError, match=f"there is no model 'nope' here: {name}"):
                client.models.retrieve("nope")


def test_what_is_far_from_every_known_name_gets_no_hint() -> None:
    known = ["--limit", "--config", "--temperature", "tools"]
    assert [nearest(word, known) for word in ("--min-p", "--json", "foo")] == [None] * 3
    assert nearest("--tempreature", known) == "--temperature"


def test_other_separators_lines_and_rates_are_told_by_what_the_user_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    Path("semi.csv").write_text("q;a\nx;y\n")
    Path("own.toml").write_text('data = "semi.csv"\nprompt = "{q}"\ntarget = "{a}"\n')
    assert "semi.csv has semicolons between its columns" in refused(
        capsys, "run", "./own.toml", "--model", "scripted:echo"
    )
    Path("c.jsonl").write_text('{"question": "a"}\n')
    assert "has a line without prompt and replies" in refused(
        capsys, "run", "arithmetic", "--model", "cassette:c.jsonl"
    )
    assert "error is a number from 0 to 1" in refused(capsys, "run", "game24", "--model", "sim:game24:error=2")


@pytest.mark.slow
def test_the_list_of_commands_fits_its_terminal() -> None:
    """At 40 columns each description is folded below itself."""
    shown = on_terminal("--help", 40)
    assert max(map(len, shown[:60])) <= 40 and any(line.startswith("              ") for line in shown)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["interp --help", "train --help", "completion --help"])
def test_descriptions_of_commands_fit_their_terminal(words: str) -> None:
    shown = "\n".join(on_terminal(words, 40)).partition("usage: ")[2].partition("\n\n")[2].split("\n")
    assert max(map(len, shown)) <= 40 and len(shown) > 20


def on_terminal(words: str, columns: int) -> list[str]:
    """What a command prints on a terminal of so many columns, without what its examples hold."""
    import pty

    parent, child = pty.openpty()
    code = (
        f"import os, sys; os.environ['COLUMNS'] = '{columns}'; from firsthand.cli import main; main({words.split()!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=child, stdout=child, stderr=child) as running:
        os.close(child)
        raw = b""
        try:
            while piece := os.read(parent, 65536):
                raw += piece
        except OSError:  # the other side has closed
            pass
        running.wait(60)
    os.close(parent)
    return raw.decode().replace("\r", "").partition("\nexamples:")[0].split("\n")


def test_spans_that_no_collector_took_are_told_with_its_address_and_without_a_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://ann:secret@127.0.0.1:9")
    told = live_export._whereto()
    assert told.startswith(" to http://127.0.0.1:9/v1/traces: start a collector there") and "secret" not in told
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert live_export._whereto() == ""


def test_a_reason_of_the_system_has_neither_number_nor_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        (tmp_path / "nothing").read_text(encoding="utf-8")
    assert reason_of(raised.value) == "No such file or directory"
    assert reason_of(ConnectionError("[Errno -2] Name or service not known")) == "Name or service not known"
    assert reason_of(ValueError("no number")) == "no number"
