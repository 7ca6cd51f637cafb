"""What `studio`, `serve` and `chat` read from their flags, print and refuse, without a server or a large model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from firsthand.commands import agent_server, chat, serve, studio, studio_intake
from firsthand.errors import ConfigError
from firsthand.model import Usage
from firsthand.trace import Call
from printed_tables import widen

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    widen(monkeypatch)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


# -- studio and serve --


def test_flags_of_the_studio_that_do_not_go_together(tmp_path: Path) -> None:
    for given, told in (
        ({"sample": 1.1}, "sample is 1.1"),
        ({"sample": -0.1}, "sample"),
        ({"temperature": -1}, "temperature is -1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"database": "mysql://x"}, "no address of PostgreSQL"),
        ({"action": ("export",)}, "is no action"),
        ({"action": ("account", "list", "x")}, "no action"),
        ({"role": "admin"}, "role goes with"),
        ({"action": ("account", "key", "a"), "role": "admin"}, "role goes with"),
        ({"project": "p"}, "goes with --database"),
        ({"name": ("x",)}, "for a wider address"),
        ({"https": True}, "for a wider address"),
        ({"filter": "x"}, "go with `studio export RUN`"),
        ({"port": 65536}, "port is 65536"),
        ({"port": -1}, "port is -1"),
        ({"home": Path("no")}, "no folder 'no'"),
        ({"grpc_port": 65536}, "grpc_port is"),
        ({"receive": False, "keep": "1d"}, "keep and no-receive"),
        ({"sae": ("no",)}, "no folder 'no'"),
        ({"demo": True, "home": Path()}, "demo and home"),
        ({"model": ("a", "a")}, "name each model once"),
    ):
        with pytest.raises(ConfigError, match=told):
            studio.Config(**given)
    assert studio.Config(action=("account", "add", "ada"), role="admin").role == "admin" and studio.Config(
        host="0.0.0.0", name=("x",)
    ).name == ("x",)
    assert studio._names(studio.Config(host="10.0.0.1", name=("a",))) == ("a", "10.0.0.1")
    assert studio._names(studio.Config(host="0.0.0.0", name=("a",))) == ("a",) and studio._names(studio.Config()) == ()
    listening = studio._listen(0)
    with pytest.raises(
        ConfigError, match=r"127\.0\.0\.1:\d+ cannot be opened: Address already in use; give another --port"
    ):
        port = listening.getsockname()[1]
        listening.listen()
        studio._listen(port)
    listening.close()


def test_the_intake_of_the_studio_has_what_its_flags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = studio.Config(
        keep="30d",
        keep_size="10MB",
        redact=("A-[0-9]+",),
        score=("exact",),
        sample=0.25,
        alert=("errors>0.1/1h",),
        alert_to="a.jsonl",
    )
    settings = studio_intake.intake_settings(flags)
    assert (settings.keep_s, settings.keep_bytes, settings.cold_s, settings.redact) == (
        30 * 86400,
        10_000_000,
        None,
        ("A-[0-9]+",),
    )
    assert (
        settings.evaluation is not None
        and [name for name, _ in settings.evaluation.scorers] == ["exact"]
        and settings.alert_to == "a.jsonl"
    )
    assert len(settings.alerts) == 1 and settings.evaluation.share == 0.25
    bare = studio_intake.intake_settings(studio.Config())
    assert (bare.keep_s, bare.keep_bytes, bare.evaluation, bare.alerts) == (None, None, None, ())
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(ConfigError, match="which compares two agents"):
        studio_intake.intake_settings(studio.Config(score=("exact", "pairwise:judge=scripted\\:s.json:against=a")))
    with monkeypatch.context() as patched:
        patched.setattr(studio_intake.catalog, "scorer", lambda text: SimpleNamespace(against=""))
        found = studio_intake.intake_settings(studio.Config(score=("own",), sample=0.5)).evaluation
        assert found is not None and found.share == 0.5, "a judge that is compared with nobody scores single traces"
    with pytest.raises(ConfigError, match=r"^cold is 'soon'"):
        studio_intake.intake_settings(studio.Config(keep="1d", cold="soon"))
    for given in ({"keep": "soon"}, {"redact": ("(",)}, {"score": ("nope",)}):
        with pytest.raises(Exception, match=r"soon|redact|nope"):
            studio_intake.intake_settings(studio.Config(**given))
    monkeypatch.delenv("FIRSTHAND_INGEST_KEY", raising=False)
    assert studio_intake.open_intake(studio.Config(), tmp_path / "home", is_wide=True) is None
    assert "no traces are received here: others reach this address" in capsys.readouterr().err
    (tmp_path / "home").mkdir(exist_ok=True)
    for flags, environment, key in (
        (studio.Config(), "", None),
        (studio.Config(), "env", "env"),
        (studio.Config(ingest_key="own"), "env", "own"),
    ):
        monkeypatch.setenv("FIRSTHAND_INGEST_KEY", environment)
        opened = studio_intake.open_intake(flags, tmp_path / "home", is_wide=key is not None)
        assert opened is not None and opened.key == key and opened.grpc_port is None
        opened.close()
    told = studio_intake.Receiving(SimpleNamespace(), "k", 4317, lambda: None)  # type: ignore[arg-type]
    assert told.told(80) == "Traces: send OTLP to http://127.0.0.1:80 with the key, gRPC at 127.0.0.1:4317"
    assert replace(told, key=None, grpc_port=None).told(80) == "Traces: send OTLP to http://127.0.0.1:80 without a key"


def test_settings_of_a_server_follow_its_flags(tmp_path: Path) -> None:
    config = serve.Config("m", threads=3, kv_memory_mb=7, kv_cache="int8", max_sequences=5, speculation=True)
    settings = serve.engine_settings(config)
    assert (settings["threads"], settings["kv_memory_bytes"], settings["kv_cache"], settings["max_sequences"]) == (
        3,
        7_000_000,
        "int8",
        5,
    )
    assert (
        settings["speculation"] == "prompt_lookup" and serve.engine_settings(serve.Config("m"))["speculation"] == "off"
    )
    assert serve.engine_settings(serve.Config("m"))["kv_memory_bytes"] is None
    assert serve.engine_settings(serve.Config("m", kv_memory_mb=0))["kv_memory_bytes"] == 0
    assert serve.engine_settings(replace(config, max_sequences=100_000))["max_batch_tokens"] == 200_000
    assert settings["max_waiting"] == config.admission.max_requests * config.limits.max_answers
    (tmp_path / "model").mkdir()
    assert (
        serve.absolute_path("model") == f"{tmp_path}/model"
        and serve.absolute_path("smollm2") == "smollm2"
        and serve.absolute_path(None) is None
    )
    assert serve.absolute_path("smollm2+lora:model") == f"smollm2+lora:{tmp_path}/model"
    (tmp_path / "v.safetensors").touch()
    for mark in ("adapter", "lora"):
        whole = f"model+{mark}:model+steer:v.safetensors@0.5+steer:none@2+monitor:v.safetensors"
        at = f"{tmp_path}/model"
        assert serve.absolute_path(whole) == (
            f"{at}+{mark}:{at}+steer:{tmp_path}/v.safetensors@0.5+steer:none@2+monitor:{tmp_path}/v.safetensors"
        )
    assert serve.absolute_path("openai:model@http://h:1/v1") == "openai:model@http://h:1/v1"
    names = ("openai:m@http://x", "hf:org/m", "/a/b/m.gguf/", "a/m+lora:b/c", "other:a/b")
    assert [serve.public_name(each) for each in names] == ["m", "hf:org/m", "m.gguf", "m+lora:c", "b"]
    names = ("a/m+adapter:b/c/+steer:d/v.safetensors@0.5+monitor:e/w", "m+steer:v@2", "hf:org/m+lora:a/b")
    assert [serve.public_name(each) for each in names] == [
        "m+adapter:c+steer:v.safetensors@0.5+monitor:w", "m+steer:v@2", "hf:org/m+lora:a/b",
    ]  # fmt: skip
    for given, told in (
        ({}, "serve what"),
        ({"sessions": Path()}, "sessions goes with agent"),
        ({"agent": Path("a"), "model": "m"}, "do not go together"),
        ({"agent": Path("a"), "embedder": "e"}, "do not go together"),
        ({"model": "a.toml"}, "goes with --agent"),
    ):
        with pytest.raises(ConfigError, match=told):
            serve.Config(**given)
    kept: list[tuple[str, str]] = []
    model = SimpleNamespace(
        put_adapter=lambda name, folder: kept.append((name, folder)),
        adapters=dict,
        remove_adapter=print,
        load_adapter=print,
    )
    for adapter, told in (
        ("x", "write NAME=FOLDER"),
        ("x=", "write NAME=FOLDER"),
        ("m=f", "m is the model's own name"),
    ):
        with pytest.raises(
            ConfigError, match=told if isinstance(model, serve.AdapterCapability) else "does not run here"
        ):
            serve.put_adapters(model, serve.Config("m", adapter=(adapter,)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="m does not run here, so no adapters can be beside it"):
        serve.put_adapters(None, serve.Config("m", adapter=("a=b",)))
    (tmp_path / "c").touch()
    listen = serve.ListenAddress(host="127.0.0.1", port=0)
    assert agent_server.with_port(listen).port > 0 and agent_server.with_port(replace(listen, port=7)).port == 7
    assert (
        agent_server.url_of(replace(listen, port=7)) == "http://127.0.0.1:7"
        and agent_server.url_of(replace(listen, host="::1", port=7)) == "http://[::1]:7"
    )
    assert (
        agent_server.url_of(replace(listen, host="[::1]", port=7, tls_cert=tmp_path / "c", tls_key=tmp_path / "c"))
        == "https://[::1]:7"
    )


# -- chat --


def test_questions_are_lines_blocks_and_continued_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('one\n \ntwo\\\nthree\n"""\na\n\nb\n"""\nend\\\n'))
    assert list(chat.questions(None)) == ["one", "two\nthree", "a\n\nb", "end"]
    monkeypatch.setattr("sys.stdin", io.StringIO("notes\nmore\n\n"))
    assert chat.with_input("Why?") == "notes\nmore\n\nWhy?"
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    assert chat.with_input("Why?") == "Why?"
    monkeypatch.setattr(chat, "MAX_INPUT", 5)
    for given, fits in (("abcde", True), ("abcdef", False)):
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        if fits:
            assert chat.with_input("?") == "abcde\n\n?"
        else:
            with pytest.raises(ConfigError, match="more than 5 characters"):
                chat.with_input("?")


def test_facts_on_an_answer_and_its_settings() -> None:
    calls = [
        Call("0", "generate", None, 0.0, 3.0, "", Usage(10, 4, 21)),
        Call("1", "tool", None, 0.0, 9.0, ""),
        Call("2", "generate", None, 0.0, 1.0, "", Usage(5, 0, 10)),
    ]
    assert chat.facts(calls, 2.0) == "31 tokens, 14.5 tokens/s, first after 2.00 s; 15 prompt tokens, 4 cached"
    assert chat.facts(calls, 9.0).split(";")[0] == "31 tokens, 3.2 tokens/s, first after 0.00 s"
    assert chat.facts(calls, 0.0).split(";")[0] == "31 tokens, first after 4.00 s"
    assert chat.facts([], 1.0) == "0 tokens, first after 0.00 s; 0 prompt tokens, 0 cached"
    recommended = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 99}
    made = chat.sampling_of(chat.Config(), recommended)
    assert (made.temperature, made.top_p, made.max_tokens) == (0.2, 0.9, 99)
    own = chat.sampling_of(chat.Config(temperature=0.0, max_tokens=5), recommended)
    assert (own.temperature, own.top_p, own.max_tokens) == (0.0, 1.0, 5)
    assert chat.sampling_of(chat.Config(), {"temperature": 0.0}).temperature == 0.0, "greedy, as its authors recommend"
    bare = chat.sampling_of(chat.Config(), {})
    assert (bare.temperature, bare.max_tokens) == (0.7, 1024)
    asked = chat.Config("What is this?")
    assert (asked.model, asked.question) == ("smollm2", "What is this?") and chat.Config(
        "openai:a b", "q"
    ).model == "openai:a b"
    assert chat.Config("openai:a b").question is None and chat.Config("smollm2").question is None
    for given, told in (
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"continue_": True, "load": "x"}, "both name a conversation"),
        ({"save": "x", "keep": False}, "--save keeps"),
    ):
        with pytest.raises(ConfigError, match=told):
            chat.Config(**given)


def test_commands_of_a_conversation_in_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    (tmp_path / "s.json").write_text(json.dumps(["one", "two", "three", "four"]))
    lines = [
        "Hi?",
        "/usage",
        "/fork side",
        "And?",
        "/branches",
        "/undo",
        "/branches",
        "/switch main",
        "/retry",
        "//slash",
        "/nope",
        "/switch no",
        "/clear x",
        "/undo",
        "/branches",
        "/model",
        "/save kept",
        "/quit",
        "never",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    code, out, err = cli("chat", "scripted:s.json")
    told = out.splitlines()
    assert code == 1 and told[0] == "one" and told[1].startswith("1 call, ") and told[2] == "two"
    assert told[3:5] == ["  main: 2 messages, the last: one", "* side: 4 messages, the last: two"]
    assert told[5:7] == ["  main: 2 messages, the last: one", "* side: 2 messages, the last: one"]
    assert told[7:9] == ["three", "four"] and told[9:12] == [
        "  main: 4 messages, the last: four",
        "  side: 2 messages, the last: one",
        "* x: 0 messages",
    ]
    assert told[12].startswith("scripted") and told[13].startswith("saved: firsthand show ") and len(told) == 14
    problems = err.splitlines()
    assert (
        "/nope" in problems[0]
        and "no" in problems[1]
        and problems[2] == "firsthand: this branch has no question to remove"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("/branches\n"))
    (tmp_path / "s.json").write_text("[]")
    code, out, err = cli("chat", "scripted:s.json", "--continue")
    assert code == 0, err
    assert "main" in out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, _, err = cli("chat", "scripted:s.json")
    assert code == 2 and "nothing was asked: give a question" in err
