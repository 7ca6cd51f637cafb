"""Passwords and tokens of addresses are neither stored nor shown, and a variable of the environment stands in for each."""

import io
import json
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from firsthand import catalog, cli
from firsthand.agent import Agent
from firsthand.errors import ConfigError, FirsthandError, StoreError
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.on_cluster import worker_spec
from firsthand.experiment.settings import RunSettings
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.redis_messaging import RedisMessaging
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store, track
from firsthand.safety.redact import Redact
from firsthand.stats.stored_figures import own_figures
from firsthand.system.address_secrets import server_of, with_secrets, without_secrets, without_secrets_in

LONG = "AIzaSyD0123456789abc"
"""A key of 20 characters."""
PAIRS = {
    "openai:m@http://bob:hunter2@127.0.0.1:80/v1": "openai:m@http://bob:${PASSWORD_BOB_127_0_0_1_80}@127.0.0.1:80/v1",
    "shared_board:redis://:p@ss@h/0": "shared_board:redis://:${PASSWORD_H}@h/0",
    "redis://bob:p,w@h redis://bob:p,w:x@i": "redis://bob:${PASSWORD_BOB_H}@h redis://bob:${PASSWORD_BOB_I}@i",
    "redis://bob:x@[::1]:2/0": "redis://bob:${PASSWORD_BOB_1_2}@[::1]:2/0",
    "nats://tok@h:1,nats://u:p@h2": "nats://${TOKEN_H_1}@h:1,nats://u:${PASSWORD_U_H2}@h2",
    "nats://tok@h:1,tok2@h2,u:p@h3": "nats://${TOKEN_H_1}@h:1,${TOKEN_H2}@h2,u:${PASSWORD_U_H3}@h3",
    "tls://tok@h": "tls://${TOKEN_H}@h",
    f"https://{LONG}@h/a HTTP://{LONG}:@h": "https://${TOKEN_H}@h/a HTTP://${TOKEN_H}:@h",
    "mcp:run --db postgres://u:p@h/d --to a@b": "mcp:run --db postgres://u:${PASSWORD_U_H}@h/d --to a@b",
    "mcp:https://h.org/mcp?token=abc&x=1#end": "mcp:https://h.org/mcp?token=${TOKEN_H_ORG}&x=1#end",
    "mcp:https://u:p@h?x=1;api_key=a": "mcp:https://u:${PASSWORD_U_H}@h?x=1;api_key=${API_KEY_H}",
    f"t:url=https://h?auth={LONG}:b:write=true": f"t:url=https://h?auth={LONG}:b:write=true",
    f"t:url=https://h?auth={LONG}:write=true": "t:url=https://h?auth=${AUTH_H}:write=true",
    f"https://h?accessToken=a,https://i?X-Sig={LONG}": "https://h?accessToken=${ACCESSTOKEN_H},https://i?X-Sig=${X_SIG_I}",
    "https://h?pass%77ord=a&Client-Secret=b": "https://h?pass%77ord=${PASSWORD_H}&Client-Secret=${CLIENT_SECRET_H}",
    "'https://h?token=a' \"https://h?pw=b\"": "'https://h?token=${TOKEN_H}' \"https://h?pw=${PW_H}\"",
    f"redis://:x@[::1]/0 https://h?key={LONG}": "redis://:${PASSWORD_1}@[::1]/0 https://h?key=${KEY_H}",
    "https://h?page_access_token=a": "https://h?page_access_token=${PAGE_ACCESS_TOKEN_H}",
    "https://h?jwt=a#end": "https://h?jwt=${JWT_H}#end",
    "https://a/?to=https://b:c@d": "https://a/?to=https://b:${PASSWORD_B_D}@d",
    "a@http://bob:p1@h,a@http://ann:p2@h": "a@http://bob:${PASSWORD_BOB_H}@h,a@http://ann:${PASSWORD_ANN_H}@h",
    "http://u:p@h: refused": "http://u:${PASSWORD_U_H}@h: refused",
    "http://u:p@h,qwen@foo": "http://u:${PASSWORD_U_H}@h,qwen@foo",
    "http://u:p,w@h,redis://i": "http://u:${PASSWORD_U_H}@h,redis://i",
    "http://u:12@h:write=true": "http://u:${PASSWORD_U_H}@h:write=true",
    "http://u:12@h:80:to=a@b": "http://u:${PASSWORD_U_H_80}@h:80:to=a@b",
    "x:a=o:a@http://u:12@h:b=o:b@http://i": "x:a=o:a@http://u:${PASSWORD_U_H}@h:b=o:b@http://i",
    "x:a=o:a@http://u:p@h@openai:m1@http://i": "x:a=o:a@http://u:${PASSWORD_U_H}@h@openai:m1@http://i",
    "x:of=a;b=openai;m@http;//u;p;w@h;1/v1?token=a;c=d": (
        "x:of=a;b=openai;m@http;//u;${PASSWORD_U_H_1}@h;1/v1?token=${TOKEN_H_1};c=d"
    ),
    "a(b:c=http://h?token=S):d=2": "a(b:c=http://h?token=${TOKEN_H}):d=2",
    "a(b:c=http://u:p@h):d=2": "a(b:c=http://u:${PASSWORD_U_H}@h):d=2",
    "a=[http://h?token=S]": "a=[http://h?token=${TOKEN_H}]",
    "x:a=nats://u:p@h:b=o:m@http://i": "x:a=nats://u:${PASSWORD_U_H}@h:b=o:m@http://i",
    "csv:https://h/x?token=S@proto": "csv:https://h/x?token=${TOKEN_H}@proto",
    "redis://h?password=a)b@c": "redis://h?password=${PASSWORD_H}",
}
PLAIN = (
    "openai:a@http://localhost:80,openai:b@http://localhost:81",
    "openai:a@http://localhost:80,smollm2+steer:F@0.5",
    "openai:a@http://localhost:80/v1",
    "postgres://user@host redis://user@h nats://h:1,nats://i:2 s3://bucket/a@b",
    "http://a: b@c, no://address?: max=1&token=2 bob:pw@host ?token=a",
    "https://h?max_tokens=5&keys=a&pages=b&token=&password#key=1",
    "redis://u:${MINE}@h/0 https://${MINE}@h?key=${MINE}",
    "audit:a=openai:a@http://127.0.0.1:80@openai:m1@http://127.0.0.1:81/v1",
    "audit:a=openai:a@http://localhost:80@smollm2 http://[::1]:80@smollm2",
    "audit:a=openai:a@http://gpu:80@openai:m1",
    "x:a=openai:a@http://h1:80:b=openai:b@http://h2 x:a=openai:a@http://h1:b=openai:b@http://h2",
    "x:a=http://h:80:b=c@d url=http://h:80;y=bob@h openai:m@http://h:80+adapter:x@y openai:m@http://h:80,qwen@foo",
    "a=http://h:b=c,d@e http://h,a:b@c audit:a=openai:a@http://10.0.0.1:80@smollm2",
    "https://h?key=topic2&auth=abcdefghijklmnopqrstuvwxyz https://git2@github.com",
    "https://git@github.com/a https://user@host https://medium.com/@ann/post",
    f"https://h?key=topic&sort_key={LONG}&public_key=a&max_token=5&next_page_token=a&pass_code=1&auth=basic&page-key={LONG}",
)


@pytest.mark.parametrize(("text", "kept"), PAIRS.items())
def test_a_variable_stands_for_each_secret_of_an_address(text: str, kept: str) -> None:
    assert without_secrets(text) == kept
    assert without_secrets(kept) == kept


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


def test_secrets_are_found_in_lists_and_tables_and_nothing_else_changes() -> None:

    class Server(NamedTuple):
        url: str
        count: int

    assert without_secrets_in([Server("http://u:p@h", 1)]) == [("http://u:${PASSWORD_U_H}@h", 1)]
    given = {"a": ("http://u:p@h", 1), "b": [None, {"http://u:p@h": "x"}], "c": 2.5}
    assert without_secrets_in(given) == {
        "a": ("http://u:${PASSWORD_U_H}@h", 1),
        "b": [None, {"http://u:p@h": "x"}],
        "c": 2.5,
    }


def test_variables_are_filled_in_where_an_address_has_a_secret_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MINE", "p@s/s:w,d %")
    coded = "p%40s%2Fs%3Aw%2Cd%20%25"
    assert (
        with_secrets("m@http://u:${MINE}@h/v1?x=${MINE}&key=${MINE}")
        == f"m@http://u:{coded}@h/v1?x=${{MINE}}&key={coded}"
    )
    assert with_secrets("https://${MINE}@h") == f"https://{coded}@h"
    assert with_secrets("nats://u:${MINE}@h") == "nats://u:p@s/s:w,d %@h"  # its client decodes nothing
    for text in (
        "guard:pattern=${MINE}",
        "http://${MINE}/a",
        "http://u:a${MINE}@h",
        "http://a${MINE}@h",
        "http://${MINE}:p@h",
        "http://u:p@h",
    ):
        assert with_secrets(text) == text
    with pytest.raises(
        ConfigError, match=r"needs the variable NONE of the environment, and it is not set: export"
    ) as told:
        with_secrets("http://u:${NONE}@h?token=hunter2")
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:9/0?password=hunter2", "127.0.0.1:9/0"),
        ("redis://127.0.0.1:9/0?username=a&password=p@hunter2", "127.0.0.1:9/0"),
        ("redis://u:hunter2@[::1]:9", "[::1]:9"),
        ("redis://u:hunter/2@h:1/0", "h:1/0"),
        ("redis://bob:hunter2/w", "***"),
        ("redis://bob:12?hunter2@h", "***"),
        ("redis://h/names", "h/names"),
        ("unix:///tmp/x.sock?db=1", "/tmp/x.sock"),
        ("unix://u:hunter2@/tmp/x.sock", "***"),
        ("redis+sentinel://h:1,h2:2/x", "h:1,h2:2/x"),
        ("redis://bob:hunter2,w/x", "***"),
        ("bob:p@h:1", "h:1"),
    ],
)
def test_a_server_is_named_by_host_port_and_database_alone(url: str, shown: str) -> None:
    assert server_of(url) == shown


@pytest.mark.parametrize(
    "name", ["model", "tools", "tools_and_sources", "memory", "benchmark", "pattern", "scorer", "guards"]
)
def test_each_kind_of_name_needs_the_variables_of_its_addresses(name: str) -> None:
    text = "mcp:https://h/mcp?token=${NONE}" if name == "tools_and_sources" else "a:b=http://u:${NONE}@h"
    with pytest.raises(ConfigError, match="needs the variable NONE"):
        getattr(catalog, name)((text,) if name == "guards" else text)


def test_a_run_keeps_no_secret_and_workers_on_a_cluster_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    settings = RunSettings(("arithmetic",), model=("openai:m@http://u:hunter2@h/v1",), system="say http://u:p@h")
    assert settings.stored() == settings.to_json() | {"model": ("openai:m@http://u:${PASSWORD_U_H}@h/v1",)}
    assert settings.command() == (
        "firsthand run arithmetic --model 'openai:m@http://u:${PASSWORD_U_H}@h/v1' --system 'say http://u:p@h'"
    )
    assert worker_spec(settings, ()).settings["model"] == settings.model
    agent = Agent("m@http://u:hunter2@h", Scripted([]), reply, {}, system="http://u:p@h")
    assert agent.name == "m@http://u:${PASSWORD_U_H}@h" and agent.to_json()["system"] == "http://u:p@h"
    with store.create(tmp_path, {}, "a", command=["firsthand", "chat", "http://u:hunter2@h"]) as run:
        assert run.about["command"] == ["firsthand", "chat", "http://u:${PASSWORD_U_H}@h"]
    tracked = track.start("t", config={"db": ["redis://u:hunter2@h"]})
    assert tracked.run.config["db"] == ["redis://u:${PASSWORD_U_H}@h"]
    tracked.finish()
    experiment = Experiment((agent,), ("a:b=http://u:hunter2@h",))
    assert experiment.config()["benchmarks"] == ["a:b=http://u:${PASSWORD_U_H}@h"]


async def judged(task: object, ctx: object, *, judge: str = "") -> str:
    return judge


def test_an_agent_as_data_holds_no_secret() -> None:
    from functools import partial

    class Board:
        lifetime, name = "attempt", "redis://u:hunter2@h"
        write = search = forget = list = snapshot = lambda self: None

    inner = partial(judged, judge="openai:j@http://u:hunter2@h")
    agent = Agent("a", Scripted([]), inner, {"judge": "openai:j@http://u:hunter2@h"}, memory=Board())  # type: ignore[arg-type]
    agent = replace(agent, guard=Redact("redis://u:hunter2@h"))
    assert "${PASSWORD_U_H}" in agent.to_json()["guard"]
    assert "hunter2" not in json.dumps(agent.to_json()) and "${PASSWORD_U_H}" in agent.to_json()["memory"]


def renamed(agent: Agent, name: str) -> Agent:
    """The agent under a name that is kept as it is, as version 0.21 named agents."""
    object.__setattr__(agent, "name", name)
    return agent


def test_an_agent_s_name_keeps_pattern_and_model_apart() -> None:
    pattern = "audit:auditor=openai:a@http://gpu:8000"
    for model in ("scripted_m", "scripted:m1@http://h:80/v1"):  # `gpu:8000@scripted_m` alone looks like a login
        agent = Agent(f"{pattern}@{model}", Scripted([], name=model), reply, {})
        assert agent.name == f"{pattern}@{model}" and replace(agent, options={}).name == agent.name
    secret = Agent("audit:a=o:a@http://bob:hunter2@h@scripted_m", Scripted([], name="scripted_m"), reply, {})
    assert secret.name == "audit:a=o:a@http://bob:${PASSWORD_BOB_H}@h@scripted_m"
    secret = Agent("x@scripted:m@http://u:p@i", Scripted([], name="scripted:m@http://u:p@i"), reply, {})
    assert secret.name == "x@scripted:m@http://u:${PASSWORD_U_I}@i"


def test_a_long_option_is_cut_once_its_secret_is_hidden() -> None:
    from functools import partial

    judge = f"openai:{'m' * 40}@http://bob:{'hunter2' * 5}@h"
    assert "hunter" not in json.dumps(Agent("a", Scripted([]), partial(judged, judge=judge), {}).to_json())


def test_a_benchmark_s_address_is_hidden_in_the_command_also_with_the_metrics_of_helm() -> None:
    judge = "judge=openai:m@http://bob:hunter2@h:80/v1"
    settings = RunSettings((f"agentbench_ltp:{judge}",))
    assert settings.command() == (
        "firsthand run 'agentbench_ltp:judge=openai:m@http://bob:${PASSWORD_BOB_H_80}@h:80/v1'"
    )
    helm = RunSettings((f"agentbench_ltp:{judge}",), metrics="helm")
    kept = "helm_metrics:of=agentbench_ltp;judge=openai;m@http;//bob;${PASSWORD_BOB_H_80}@h;80/v1"
    assert helm.stored()["benchmarks"] == (kept,) and helm.command() == f"firsthand run '{kept}'"


def test_a_stored_helm_benchmark_gets_the_secret_of_its_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "a;b:c@d")
    made = catalog.benchmark("helm_metrics:of=joint_alignment;judge=openai;m@http;//bob;${MINE}@h;80/v1:items=1")
    assert "and by openai:m@http://bob:a%3Bb%3Ac%40d@h:80/v1" in made.protocol


def test_protocols_hold_no_secret_where_they_are_stored_and_read(tmp_path: Path) -> None:
    named = "joint_alignment:judge=openai:m@http://bob:hunter2@h/v1"
    experiment = Experiment((Agent("a", Scripted([]), reply, {}),), (named,))
    shown = experiment.protocols["joint_alignment"]
    assert shown.endswith("and by openai:m@http://bob:${PASSWORD_BOB_H}@h/v1")
    with store.create(tmp_path, {}, "a", protocols={"b": "by http://bob:hunter2@h"}) as run:
        assert run.about["protocols"] == {"b": "by http://bob:${PASSWORD_BOB_H}@h"}
        run.about["protocols"] = {"b": "by http://bob:hunter2@h"}  # as version 0.21 stored it
        assert run.protocols == {"b": "by http://bob:${PASSWORD_BOB_H}@h"}


def test_a_run_of_version_0_21_goes_on_under_the_names_and_with_the_agents_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    judge = {"judge": "o:j@http://bob:hunter2@h"}
    made = [Agent(name, Scripted(lambda *_: "4"), judged, judge) for name in ("p:j=o:j@http://bob:hunter2@h", "mine")]
    older = [renamed(replace(made[0]), "p:j=o:j@http://bob:hunter2@h"), made[1]]
    with Experiment(older, "arithmetic", limit=2).create() as run:
        for agent in older:
            run.add_agent(agent.name, agent.to_json() | {"options": judge, "name": agent.name})
        first = replace(Experiment(older[:1], "arithmetic", limit=1).places()[0], agent=older[0])
        run.about["config"]["agents"] = [agent.name for agent in older]
        Experiment(made, "arithmetic", limit=2).resume(run)
        assert list(run.agents()) == ["p:j=o:j@http://bob:hunter2@h", "mine"]
        assert first.id in run.done() and len(list(run.traces())) == 4
        Experiment(made, "arithmetic", limit=2).resume(run)
        assert len(list(run.traces())) == 4
        other = [made[0], replace(made[1], options={"judge": "o:j@http://bob:hunter2@i"})]
        with pytest.raises(StoreError, match="agent 'mine' is not the one that run"):
            Experiment(other, "arithmetic", limit=2).resume(run)
    new = made[0]
    assert new.named_as_in(["p:j=o:j@http://bob:a@h", "p:j=o:j@http://bob:b@h"]) is new  # which of the two is not known
    assert new.named_as_in([new.name, "p:j=o:j@http://bob:a@h"]) is new and new.named_as_in(["x"]) is new


def test_a_run_keeps_the_benchmark_of_its_figures_without_the_secret_of_its_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    agent = Agent("a", Scripted([]), reply, {})
    named = "joint_alignment:judge=openai:m@http://bob:hunter2SECRET@h/v1"
    with Experiment((agent,), (named, "arithmetic"), limit=1).create() as run:
        kept = {"joint_alignment": "joint_alignment:judge=openai:m@http://bob:${PASSWORD_BOB_H}@h/v1"}
        assert run.about["figures"] == kept, "arithmetic has no figures of its own"
    expect_no_secret(tmp_path)


def test_figures_of_a_finished_run_are_computed_without_the_secret_of_its_judge(tmp_path: Path) -> None:
    text = "joint_alignment:judge=openai:m@http://bob:${FIRSTHAND_NO_SUCH}@h/v1"
    told: list[str] = []
    with store.create(tmp_path, {}, "a", figures={"joint_alignment": text}) as run:
        assert list(own_figures(told.append, run)) == ["joint_alignment"] and told == []
    with pytest.raises(ConfigError, match="needs the variable FIRSTHAND_NO_SUCH"):
        catalog.benchmark(text)  # a new attempt asks the judge


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("redis://127.0.0.1:1/0?password=hunter2", "the Redis server at 127.0.0.1:1/0 failed"),
        ("redis://bob:hunter2/w@127.0.0.1:1/0", "'127.0.0.1:1/0' is no address of a Redis server: give redis://HOST"),
        ("other://127.0.0.1:1?password=hunter2", "'127.0.0.1:1' is no address of a Redis server: give redis://HOST"),
        (
            "nats://127.0.0.1:1?token=hunter2,nats://u:hunter2@127.0.0.1:2",
            "the NATS server at 127.0.0.1:1,127.0.0.1:2 failed",
        ),
    ],
)
def test_errors_of_a_server_of_messages_hold_no_piece_of_a_password(address: str, told: str) -> None:
    pytest.importorskip("redis")
    pytest.importorskip("nats")
    made = NatsMessaging if address.startswith("nats") else RedisMessaging
    with pytest.raises(FirsthandError) as raised:
        made(address, timeout_s=2.0)
    assert str(raised.value).startswith(told) and "hunter" not in str(raised.value)


@contextmanager
def endpoint() -> Iterator[tuple[int, list[str]]]:
    """An endpoint that answers 4, and the `Authorization` of each request."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            is_stream = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("stream")
            asked.append(self.headers.get("Authorization", ""))
            words = {"role": "assistant", "content": "4"}
            said = {"index": 0, "delta" if is_stream else "message": words, "finish_reason": "stop"}
            raw = json.dumps({"choices": [said]}).encode()
            raw = b"data: " + raw + b"\n\ndata: [DONE]\n\n" if is_stream else raw
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


def expect_no_secret(folder: Path) -> None:
    """No file below holds the password, and no row of a database."""
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert len(kept) > 2
    for path in kept:
        assert b"hunter2SECRET" not in path.read_bytes(), path
        if path.suffix == ".sqlite":
            rows = sqlite3.connect(path).iterdump()
            assert "hunter2SECRET" not in "\n".join(rows), path


@pytest.mark.slow
def test_a_run_with_a_password_can_be_shown_repeated_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with endpoint() as (port, asked):
        model, variable = f"openai:m@http://bob:hunter2SECRET@127.0.0.1:{port}/v1", f"PASSWORD_BOB_127_0_0_1_{port}"
        hidden = model.replace("hunter2SECRET", f"${{{variable}}}")
        assert cli.main(["run", "arithmetic", "--model", model, "--limit", "2"]) == 0
        told = capsys.readouterr().out
        expect_no_secret(tmp_path)  # the report among them, which resuming writes anew
        line = re.search(r"reproduce (firsthand .*)", told)
        assert line is not None and line[1] == f"firsthand run arithmetic --model '{hidden}' --limit 2"
        with_password, count = set(asked), len(asked)
        assert len(with_password) == 1 and with_password.pop().startswith("Basic ")
        assert cli.main(["run", "--resume", "last"]) == 2
        assert f"needs the variable {variable}" in capsys.readouterr().err
        assert cli.main(["run", "--resume", "last", "--model", model]) == 0  # or say it again
        assert cli.main(["run", "--resume", "last", "--model", model.replace("/v1", "/v2")]) == 2
        told = capsys.readouterr().err
        assert "was begun with model" in told and "hunter2SECRET" not in told
        monkeypatch.setenv(variable, "hunter2SECRET")
        assert cli.main(["run", "--resume", "last"]) == 0
        assert len(asked) == count
        assert cli.main(["run", "arithmetic", "--model", hidden, "--limit", "2"]) == 0
        assert len(asked) == 2 * count and set(asked[count:]) == set(asked[:count])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        assert cli.main(["chat", model, "Is 2 + 2 = 4?", "--save", "s", "--system", "http://a:b@c"]) == 0
        with store.open_run("last", tmp_path) as run:
            assert run.config["chat"]["model"] == hidden and run.config["chat"]["system"] == "http://a:b@c"
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("How much is 2 + 2?\n")
        arena = ["arena", model, "scripted:echo", "--prompts", str(prompts), "--judge", model]
        assert cli.main(arena) == 0
        with store.open_run("last", tmp_path) as run:
            assert run.config["arena"]["models"] == [hidden, "scripted:echo"] and hidden in run.agents()
        assert cli.main([*arena, "--continue", "last"]) == 0
    expect_no_secret(tmp_path)


@pytest.mark.slow
def test_the_password_of_a_judge_is_in_no_file_of_its_run_and_the_run_is_shown_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with endpoint() as (port, asked):
        judge = f"joint_alignment:judge=openai:m@http://bob:hunter2SECRET@127.0.0.1:{port}/v1"
        given = ["--model", "scripted:echo", "--limit", "1"]
        for more in ((), ("--metrics", "helm")):
            cli.main(["run", judge, *given, *more])
            told = capsys.readouterr()
            assert "Basic " in asked[-1] and "reproduce firsthand run " in told.out
            assert cli.main(["show", "last"]) == 0
            shown = capsys.readouterr()
            assert "protocol  joint_alignment" in shown.out and "cannot be computed" not in shown.err
            assert "hunter2SECRET" not in told.out + told.err + shown.out + shown.err
    expect_no_secret(tmp_path)
