"""`studio`, `serve`, `rag serve` and `mcp --http` in this process: what they open, print, answer and close again."""

from __future__ import annotations

import gc
import io
import json
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import model as models
from firsthand.cluster.replicas import ray_replicas
from firsthand.commands import serve, studio, studio_transfer
from firsthand.errors import ConfigError
from firsthand.providers import local_embedder
from firsthand.retrieval.corpus import close_corpora
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from firsthand.studio import studio_app
from firsthand.studio.accounts import ACCOUNT
from firsthand.studio.studio_store import SqliteStore
from served_in_thread import asked, free_port, telemetry_told, until_signal, wide_address


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    thresholds = gc.get_threshold()
    for name in ("FIRSTHAND_API_KEY", "FIRSTHAND_INGEST_KEY", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "s.json").write_text('{"": "It is seven."}')
    yield tmp_path / "home"
    close_corpora()
    gc.set_threshold(*thresholds)


# -- studio --


class Opened:
    """A Studio in this thread: what its app was made of, and its server, which another thread ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: tuple[Any, ...] = ()
        self.more: dict[str, Any] = {}
        self.server: Any = None
        made, server_of = studio_app.create_app, studio.server_of

        def create_app(*given: Any, **more: Any) -> Any:
            self.given, self.more = given, more
            return made(*given, **more)

        def server(app: Any) -> Any:
            self.server = server_of(app)
            return self.server

        monkeypatch.setattr(studio_app, "create_app", create_app)
        monkeypatch.setattr(studio, "server_of", server)

    def run(self, config: studio.Config, home: Path, asks: Callable[[], None] = lambda: None, **agents: Any) -> int:
        over = threading.Event()

        def client() -> None:
            while not over.wait(0.005):
                if self.server is not None and self.server.started:
                    try:
                        return asks()
                    finally:
                        self.server.should_exit = True
            return None

        thread = threading.Thread(target=client)
        thread.start()
        try:
            return studio._serve(config, home, agents)
        finally:
            over.set()
            thread.join(60)


@pytest.mark.slow
def test_a_studio_of_this_machine_tells_an_address_that_opens_one_browser(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "saes").mkdir()
    browsed: list[str] = []
    monkeypatch.setattr(studio, "_browse", browsed.append)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    opened, port, found = Opened(monkeypatch), free_port(), {}

    def asks() -> None:
        found["bare"] = asked(port, "GET", "/")[0]
        found["entered"] = asked(port, "GET", browsed[0].removeprefix(f"http://127.0.0.1:{port}"))[0]
        found["again"] = asked(port, "GET", browsed[0].removeprefix(f"http://127.0.0.1:{port}"))[0]
        found["span"] = asked(port, "POST", "/v1/traces", {"resourceSpans": []})[0]
        found["keyed"] = asked(port, "POST", "/v1/traces", {"resourceSpans": []}, Authorization="Bearer k9")[0]

    config = studio.Config(port=port, ingest_key="k9")
    frozen = gc.get_freeze_count()
    assert opened.run(config, home, asks, ada="agent of ada") == 0
    url, traces, last = capsys.readouterr().out.splitlines()
    assert url == f"The Studio: {browsed[0]}" and browsed[0].startswith(f"http://127.0.0.1:{port}/enter?code=")
    assert traces == f"Traces: send OTLP to http://127.0.0.1:{port} with the key" and len(browsed) == 1
    assert last == "This address opens one browser; press Enter for another, Ctrl-C to stop."
    assert found == {"bare": 401, "entered": 303, "again": 403, "span": 401, "keyed": 200}, found
    at, access, agents, kept = opened.given
    assert (at, agents, access.hosts, access.port) == (home, {"ada": "agent of ada"}, (
        "127.0.0.1", "localhost", "[::1]"), port) and access.accounts is None and not access.is_https  # fmt: skip
    assert isinstance(kept, SqliteStore) and opened.more["ingest_key"] == "k9" and opened.more["writer"] is not None
    assert len(opened.more["pages"]) == 1 and gc.get_threshold() == (20_000, 20, 20)
    assert gc.get_freeze_count() > frozen


def test_a_studio_without_a_browser_or_intake_says_so_by_fewer_lines(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    browsed: list[str] = []
    monkeypatch.setattr(studio, "_browse", browsed.append)
    typed = io.StringIO("\n\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", typed)
    opened = Opened(monkeypatch)
    said: list[str] = []
    say = studio._say
    monkeypatch.setattr(studio, "_say", lambda text: said.append(text) or say(text))

    def asks() -> None:
        begun = time.monotonic()
        while len(said) < 4 and time.monotonic() - begun < 20:
            time.sleep(0.005)

    assert opened.run(studio.Config(receive=False, open=False), home, asks) == 0
    lines = capsys.readouterr().out.splitlines()
    assert browsed == [] and opened.more["writer"] is None and opened.more["ingest_key"] is None
    port = opened.given[1].port
    addresses = [line for line in lines if line.startswith(f"The Studio: http://127.0.0.1:{port}/enter?code=")]
    assert port > 0 and len(set(addresses)) == 3, "one at the start, and one for each Enter"
    assert len(lines) == 4 and [line.startswith("This address opens one browser") for line in lines].count(True) == 1


@pytest.mark.slow
def test_a_studio_that_others_reach_needs_accounts_and_tells_its_own_address(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        studio._serve(studio.Config(host="0.0.0.0"), home, {})
    assert str(refused.value) == (
        "host is 0.0.0.0, which others reach, and there are no accounts: make one with `firsthand studio account add NAME "
        "--role admin`"
    )
    monkeypatch.setattr(studio_transfer, "store_of", lambda *given: told.append(given) or SqliteStore(home))
    told: list[Any] = []
    project = studio.Config(host="0.0.0.0", database="postgresql://x", project="vision")
    with pytest.raises(ConfigError, match=r"account add NAME --role admin --project vision`$"):
        studio._serve(project, home, {})
    assert told == [(home, "postgresql://x", "vision")]
    store = SqliteStore(home)
    for name, role in (("ada", "admin"), ("bob", "viewer")):
        store.put(ACCOUNT, name, {"role": role, "hash": "x", "made": ""})
    store.close()
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for config, shown, names in (
        (studio.Config(host="0.0.0.0"), "http://127.0.0.1:{}/sign-in", ()),
        (studio.Config(host="0.0.0.0", name=("a.example", "b.example"), receive=False), "http://a.example:{}/sign-in",
         ("a.example", "b.example")),
        (studio.Config(host="0.0.0.0", name=("localhost", "c.example"), https=True, ingest_key="k"),
         "https://localhost/sign-in", ("c.example",)),
    ):  # fmt: skip
        opened = Opened(monkeypatch)
        assert opened.run(config, home) == 0
        access = opened.given[1]
        out, err = capsys.readouterr()
        assert out == f"The Studio: {shown.format(access.port)}, for 2 accounts.\n"
        assert access.hosts == ("127.0.0.1", "localhost", "[::1]", *names) and access.is_https is config.https
        assert [each.name for each in access.accounts.all()] == ["ada", "bob"]
        assert ("no traces are received here: others reach this address" in err) is (
            config.receive and not config.ingest_key
        )
        assert (opened.more["writer"] is not None) is bool(config.ingest_key)


def test_the_studio_closes_what_it_received_also_when_its_server_fails() -> None:
    told: list[Any] = []
    receiving: Any = SimpleNamespace(close=lambda: told.append("closed"))

    def run(sockets: list[Any]) -> None:
        told.append(sockets)
        raise OSError("no")

    server: Any = SimpleNamespace(run=run)
    socket: Any = "socket"
    with pytest.raises(OSError, match="no"):
        studio._run(server, socket, receiving)
    assert told == [["socket"], "closed"]
    with pytest.raises(OSError, match="no"):
        studio._run(server, socket, None)


def test_a_browser_is_opened_where_there_is_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(webbrowser, "open", seen.append)
    monkeypatch.setattr(studio.threading, "Thread", lambda target, args, daemon: SimpleNamespace(
        start=lambda: daemon and target(*args)))  # fmt: skip
    monkeypatch.setattr("sys.platform", "linux")
    studio._browse("http://a")
    assert seen == []
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, ":0")
        studio._browse(f"http://{name}")
        monkeypatch.delenv(name)
    monkeypatch.setattr("sys.platform", "darwin")
    studio._browse("http://mac")
    assert seen == ["http://DISPLAY", "http://WAYLAND_DISPLAY", "http://mac"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\nmore\n"))
    studio._tell_on_enter(lambda: seen.append("told"))
    assert seen[3:] == ["told", "told"]


class Given(tuple[str, dict[str, Any]]):
    """What a model is opened with."""

    @property
    def name(self) -> str:
        return self[0]


def test_agents_of_the_studio_answer_with_the_sampling_of_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[Any] = []
    monkeypatch.setattr(studio, "fetch_named", lambda name: asked_for.append(name))
    monkeypatch.setattr(studio.catalog, "model", lambda name, **more: Given((name, more)))
    agent = studio._agent(studio.Config(model=("m",), device="cuda:1", temperature=0.25, max_tokens=7), "m")
    assert (agent.name, agent.model, agent.pattern, agent.options, agent.tools) == (
        "m", ("m", {"device": "cuda:1"}), studio.reply, {}, ())  # fmt: skip
    assert (agent.sampling.temperature, agent.sampling.max_tokens, asked_for) == (0.25, 7, ["m"])
    assert studio._agent(studio.Config(temperature=0.0), "m").sampling.temperature == 0.0
    served: list[Any] = []
    monkeypatch.setattr(studio, "_serve", lambda *given: served.append(given) or 5)
    assert studio.main(studio.Config(model=("a", "b"), home=Path())) == 5
    assert served[0][1] == Path() and list(served[0][2]) == ["a", "b"] and served[0][2]["b"].model[0] == "b"


# -- serve --


def test_a_model_is_served_under_its_public_name_until_a_signal_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    telemetry_told(monkeypatch, told)
    monkeypatch.setattr(serve, "close", lambda *given: told.append([each and each.name for each in given]))
    (tmp_path / "keys.toml").write_text('[ada]\nkey = "' + "k" * 32 + '"\n')
    port, found, log = free_port(), {}, tmp_path / "log.jsonl"
    key = {"Authorization": f"Bearer {'k' * 32}"}

    def asks() -> None:
        found["nobody"] = asked(port, "GET", "/v1/models")[0]
        found["models"] = asked(port, "GET", "/v1/models", **key)[1]["data"][0]["id"]
        body = {"model": "s.json", "messages": [{"role": "user", "content": "Time?"}]}
        found["answer"] = asked(port, "POST", "/v1/chat/completions", body, **key)[1]["choices"][0]["message"][
            "content"
        ]
        found["long"] = asked(port, "POST", "/v1/chat/completions", body | {"user": "u" * 3000}, **key)[0]

    config = serve.Config(
        f"scripted:{tmp_path}/s.json", listen=ListenAddress(port=port), keys=tmp_path / "keys.toml",
        limits=ClientLimits(body_bytes=2000), telemetry=TelemetrySettings(log=str(log)),
        admission=AdmissionSettings(drain_s=0.2),
    )  # fmt: skip
    assert until_signal(port, lambda: serve.main(config), asks) == 0
    assert found == {"nobody": 401, "models": "s.json", "answer": "It is seven.", "long": 413}
    assert told == ["open_spans", "close", [f"scripted:{tmp_path}/s.json", None]]
    url = f"http://127.0.0.1:{port}"
    assert capsys.readouterr().out == f"scripted:{tmp_path}/s.json is served at {url}/v1 (Ctrl-C ends it)\n"
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert (events[0], events[-1]) == ("ready", "stopped") and events.count("request") == 4
    with (
        wide_address() as wide,
        pytest.raises(ConfigError, match=r"host is '0\.0\.0\.0', which others can reach, and there are no API keys"),
    ):
        serve.main(serve.Config("scripted:s.json", listen=wide))


def test_an_agents_file_gets_every_setting_of_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(serve, "serve_agent", lambda *words, **more: given.append((words, more)) or 4)
    parts: dict[str, Any] = {
        "listen": ListenAddress(port=9), "limits": ClientLimits(body_bytes=5), "admission": AdmissionSettings(drain_s=1),
        "openai": OpenAISettings(stored_responses=3), "telemetry": TelemetrySettings(log="none"),
        "session_limits": serve.SessionSettings(max_turns=2), "a2a": serve.A2ASettings(public_url="https://a.example"),
    }  # fmt: skip
    assert serve.main(serve.Config(agent=Path("a.toml"), sessions=Path("s"), keys=Path("k"), **parts)) == 4
    renamed = {"admission": "admitted", "telemetry": "recorded"}
    assert given == [((Path("a.toml"),), {
        "folder": Path("s"), "key_file": Path("k"), **{renamed.get(name, name): part for name, part in parts.items()}
    })]  # fmt: skip


def test_replicas_get_absolute_paths_and_the_engines_settings_that_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(ray_replicas, "open_ray", lambda *given, **more: started.append((given, more)) or "starter")
    (tmp_path / "m").mkdir()
    (tmp_path / "ad").mkdir()
    (tmp_path / "e").mkdir()
    config = serve.Config(
        "m", embedder="e", device="auto", threads=None, kv_memory_mb=7, max_sequences=3, max_adapters=5,
        adapter=("sql=ad", "poems=elsewhere"),
        replication=serve.ReplicaSettings(2, "h:1", replica_cpus=1.5, replica_gpus=0.5),
    )  # fmt: skip
    model, embedder = serve.open_replicas(config)
    settings = serve.engine_settings(config)
    engine = {name: value for name, value in settings.items() if name != "threads"} | {"max_adapters": 5}
    sent = {"model": f"{tmp_path}/m", "device": "auto", "embedder": f"{tmp_path}/e", "engine": engine}
    assert (
        started == [((sent, 2), {"address": "h:1", "cpus": 1.5, "gpus": 0.5})]
        and engine["kv_memory_bytes"] == 7_000_000
    )
    replicated: Any = model
    assert model is not None and (model.name, dict(replicated.adapters)) == (
        "m", {"sql": tmp_path / "ad", "poems": Path("elsewhere")})  # fmt: skip
    fleet = replicated.fleet
    assert embedder is not None and embedder.name == "e" and (fleet.starter, len(fleet.slots)) == ("starter", 2)
    bare = serve.Config(embedder="minilm", threads=4, replication=serve.ReplicaSettings(1))
    model, embedder = serve.open_replicas(bare)
    assert model is None and embedder is not None and embedder.name == "minilm"
    (sent, count), more = started[1]
    assert (sent["model"], sent["embedder"], sent["engine"]["threads"], count) == (None, "minilm", 4, 1)
    assert "kv_memory_bytes" not in sent["engine"] and more == {"address": None, "cpus": None, "gpus": 0.0}
    with pytest.raises(ConfigError, match="None does not run here, so no adapters"):
        serve.open_replicas(serve.Config(embedder="e", adapter=("a=b",), replication=serve.ReplicaSettings(1)))


def test_a_model_that_runs_here_has_the_larger_batch_and_its_own_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = serve.EngineConfig(max_batch_tokens=9000, draft_tokens=5)
    kept: list[tuple[str, str]] = []
    adapters: Any = dict.fromkeys(("adapters", "remove_adapter", "load_adapter", "unload_adapter", "expect_adapter"))
    made = SimpleNamespace(config=engine, put_adapter=lambda *given: kept.append(given), **adapters)
    asked_for: list[Any] = []
    monkeypatch.setattr(serve.catalog, "model", lambda text, **more: asked_for.append((text, more)) or made)
    monkeypatch.setattr(serve, "AdapterCapability", SimpleNamespace)
    monkeypatch.setattr(local_embedder, "open_embedder", lambda text: SimpleNamespace(name=text))
    (tmp_path / "f").mkdir()
    config = serve.Config("m", embedder="/a/b/mini", device="cuda", threads=3, max_adapters=2, adapter=("a=f", "b=g=h"))
    model, embedder = serve.open_here(config)
    assert model is made and embedder is not None and embedder.name == "mini"  # type: ignore[comparison-overlap]
    assert asked_for == [("m", {"device": "cuda"})] and kept == [("a", "f"), ("b", "g=h")], (
        "paths stay as they are here"
    )
    assert (made.config.max_batch_tokens, made.config.threads, made.config.max_adapters) == (9000, 3, 2)
    assert made.config.draft_tokens == 5
    serve.open_model(serve.Config("m", max_sequences=6000), "m")
    assert (made.config.max_batch_tokens, made.config.max_sequences) == (12_000, 6000)
    assert serve.open_here(serve.Config(embedder="e"))[0] is None
    root = serve.Config("m", openai=OpenAISettings(adapter_root=tmp_path))
    with pytest.raises(ConfigError, match="m does not run here, so no adapters can be beside it"):
        serve.put_adapters(None, root)
    for text, said in (("m=f", "m is the model's own name"), ("n=f", "n is the model's own name"), ("=f", "")):
        if said:
            with pytest.raises(ConfigError, match=f"--adapter is '{text}': {said}"):
                serve.put_adapters(model, serve.Config("m", name="n", adapter=(text,)))


def test_a_base_model_is_told_and_public_names_show_no_folder_and_no_address(
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts: Any = SimpleNamespace(has_template=True)
    serve.tell_base_model("m", facts)
    assert capsys.readouterr().err == ""
    facts.has_template = False
    serve.tell_base_model("my-model", facts)
    assert capsys.readouterr().err == f"firsthand: {models.BASE_MODEL.format(name='my-model')}\n"
    names = (
        "anthropic:c@x",
        "google:g",
        "ollama:l@h:1",
        "scripted:a/b",
        "C:\\m\\n.gguf",
        "a/m+lora:b/c+adapter:d/e/",
        "hf:a/b",
    )
    found = ["c", "g", "l", "b", "n.gguf", "m+lora:c+adapter:e", "hf:a/b"]
    assert [serve.public_name(name) for name in names] == found
