"""How a local model is opened, loaded and shared: marks in its name, adapters that come with it, grammars, and views."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelFileError
from firsthand.grammar import Grammar
from firsthand.model import Sampling, ToolSpec
from firsthand.providers import local
from firsthand.providers.agents import AgentsModel
from firsthand.providers.local import Local
from firsthand.providers.local_calls import answer_grammar
from firsthand.providers.openai import OpenAIModel
from firsthand.system import request_owner
from firsthand.tokens.generation_limits import NO_LIMITS

ADD = ToolSpec("add", "Adds.", {"type": "object"})


def test_marks_in_a_name_are_read_from_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.model_lookup, "resolve", lambda name: Path("/models", name))
    monkeypatch.setattr(local, "adapter_files", lambda folder: [])
    monkeypatch.setattr(local, "read_monitor", lambda file: f"monitor {file}")
    monkeypatch.setattr(local, "read_steering", lambda file: f"vector {file}")

    def opened(text: str) -> tuple[Any, ...]:
        found = local.open_model(text)
        beside = None if found.chosen is None else found.adapters[found.chosen]
        assert found.name == text
        return str(found.path), found.adapter, beside, found.steering, found.monitor

    assert opened("m") == ("/models/m", None, None, None, None)
    assert opened("m+lora:/a") == ("/models/m", Path("/a"), None, None, None)
    assert opened("m+adapter:/a") == ("/models/m", None, Path("/a"), None, None)
    assert opened("m+steer:v@-2") == ("/models/m", None, None, "vector v@-2", None)
    assert opened("m+monitor:w") == ("/models/m", None, None, None, "monitor w")
    whole = "m+adapter:/a+steer:v+monitor:w"
    assert opened(whole) == ("/models/m", None, Path("/a"), "vector v", "monitor w")
    with pytest.raises(ConfigError, match="has a steering vector already: give one"):
        local.open_model("m+steer:v+steer:w")


def test_a_base_model_is_shared_by_whatever_spelling_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / name / file).write_text("{}")
    for name in ("m.gguf", "n.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "m.gguf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    whole = f"{tmp_path}/m.gguf"
    texts = [
        f"{base}+adapter:{folder}"
        for base, folder in (
            (whole, f"{tmp_path}/red"), ("m.gguf", "red"), ("./red/../m.gguf", "blue"), ("link.gguf", "blue"),
            ("~/m.gguf", "red"),
        )
    ]  # fmt: skip
    opened = [local.open_model(text) for text in texts]
    assert [each.name for each in opened] == texts and len({id(each._shared) for each in opened}) == 1
    red, blue = opened[0].chosen, opened[2].chosen
    assert [each.chosen for each in opened] == [red, red, blue, blue, red] and red != blue
    assert opened[1].adapters == {red: tmp_path / "red", blue: tmp_path / "blue"}
    other = local.open_model("n.gguf+adapter:red")
    assert other._shared is not opened[0]._shared and other.adapters == {red: tmp_path / "red"}
    plain, merged = local.open_model("m.gguf"), local.open_model("m.gguf+lora:red")
    assert plain._shared is not opened[0]._shared and plain.adapters == merged.adapters == {}
    assert (plain.name, plain.path, merged.name, merged.adapter) == (
        "m.gguf", Path("m.gguf"), "m.gguf+lora:red", Path("red"),
    )  # fmt: skip
    with pytest.raises(
        ModelFileError, match=r"^green is not a folder: an adapter is a folder with adapter_config\.json"
    ):
        local.open_model("none.gguf+adapter:green")  # told before the model is looked for


def test_a_model_is_named_as_it_was_opened() -> None:
    for path in ("/models/deep/m.gguf", "deep/m", Path("deep") / "m"):
        made = Local(path)
        assert (made.name, made.path) == (str(path), Path(path)) and Local(path, name="").name == str(path)
    made = Local("deep/m", name="n", free_calls=True, adapter="a/b")
    assert (made.name, made.free_calls, made.adapter, made.chosen, made.monitor, made.steering) == (
        "n", True, Path("a/b"), None, None, None,
    )  # fmt: skip
    assert made.config == EngineConfig() and made.adapters == {} and Local("m").free_calls is False


def test_a_model_is_loaded_once_with_its_adapters_and_closed_if_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "adapter_files", lambda folder: [])
    loads: list[Any] = []
    asked: list[Any] = []

    class Worker:
        is_alive = True

        def __init__(self) -> None:
            self.engine = SimpleNamespace(adapters=SimpleNamespace(read=lambda folder: f"packed {folder}"))

        def add_adapter(self, name: str, packed: str) -> Any:
            asked.append((name, packed))
            return SimpleNamespace(result=lambda: None if name != "bad" else self.fail())

        def fail(self) -> None:
            raise ValueError("bad")

        def close(self) -> None:
            asked.append("closed")

    def load_model(*given: Any) -> Any:
        loads.append(given)
        return SimpleNamespace(worker=Worker())

    monkeypatch.setattr(local, "load_model", load_model)
    config = EngineConfig(threads=1)
    model = Local("/m", config=config, adapter="/merged", adapters={"red": "/red", "blue": "/blue"})

    async def main() -> None:
        first = await model._ready()
        assert await model._ready() is first and loads == [(Path("/m"), config, Path("/merged"))]
        assert asked == [("red", "packed /red"), ("blue", "packed /blue")]
        late = model.with_adapter_folder("/late dir", name="m+late")
        assert late.chosen is not None and late.chosen.startswith("late_dir@") and late.name == "m+late"
        assert await late._ready() is first is await late._ready() and asked[2:] == [(late.chosen, "packed /late dir")]
        assert await model.with_adapter("red")._ready() is first and len(asked) == 3

    asyncio.run(main())
    model.close()
    assert asked[3:] == ["closed"] and not model.is_alive
    asked.clear()
    broken = Local("/m", adapters={"red": "/red", "bad": "/bad"})
    with pytest.raises(ValueError, match="bad"):
        asyncio.run(broken._ready())
    assert asked[-1] == "closed" and not broken.is_alive and broken._shared.loaded is None


class Grammars:
    """Keeps what is compiled, and how."""

    def __init__(self, known: str | None = None) -> None:
        self.known, self.calls = known, []

    def find(self, grammar: Grammar, *, forcing: bool) -> str | None:
        self.calls.append(("find", grammar.kind, forcing))
        return self.known

    def compile(self, grammar: Grammar, *, forcing: bool, owner: str) -> str:
        self.calls.append(("compile", grammar.kind, forcing, owner))
        return "compiled"

    async def in_thread(self, make: Any) -> Any:
        self.calls.append("thread")
        return make()


def test_a_grammar_is_compiled_for_the_client_who_asks_and_with_its_tokens_free_if_some_are_forbidden() -> None:
    model, digits = Local("/m"), Grammar("regex", "[0-9]+")

    def found(
        sampling: Sampling, tools: Any = (), *, known: str | None = None, markup: Any = "hermes", run: str = ""
    ) -> Any:
        grammars = Grammars(known)
        loaded: Any = SimpleNamespace(grammars=grammars, chat=SimpleNamespace(markup=markup), limits=NO_LIMITS)
        with request_owner.set_owner("me/you"):
            owner, free = local._client(run), model.free_calls
            return asyncio.run(answer_grammar(loaded, sampling, tools, free=free, owner=owner)), grammars.calls

    asked = Sampling(grammar=digits)
    thread = ["thread", ("compile", "regex", True, "me")]
    assert found(asked) == ("compiled", [("find", "regex", True), *thread])
    assert found(asked, known="kept") == ("kept", [("find", "regex", True)])
    assert found(asked, run="other/x")[1][-1] == ("compile", "regex", True, "other")
    assert found(asked, [ADD])[1] == [("find", "regex", True), *thread], "its own grammar goes before the tools"
    for forbidding in ({"bad_words": ("no",)}, {"allowed_token_ids": (1,)}):
        assert found(Sampling(grammar=digits, **forbidding))[1] == [
            ("find", "regex", False), "thread", ("compile", "regex", False, "me"),
        ]  # fmt: skip
    assert found(Sampling()) == (None, []) == found(Sampling(), [ADD], markup=None)
    answer, calls = found(Sampling(bad_words=("no",)), [ADD])
    assert answer == "compiled" and calls[0] == "thread" and calls[1][2:] == (False, "me")
    model.free_calls = True
    assert found(Sampling(), [ADD]) == (None, [])
    assert found(asked, [ADD])[0] == "compiled"


class Held:
    """A model that keeps what is done to it."""

    def __init__(self, name: str, done: list[Any]) -> None:
        self.name, self.fingerprint, self.done = name, name, done

    def put_on(self, device: str) -> None:
        self.done.append((self.name, device))

    def hold_weights_in(self, format: str) -> None:
        self.done.append((self.name, format))

    def close(self) -> None:
        self.done.append((self.name, "closed"))


def test_what_is_done_to_a_model_of_agents_is_done_to_all_its_views_and_it_is_closed_once() -> None:
    done: list[Any] = []
    views: dict[str, Any] = {name: Held(name, done) for name in ("lead", "worker")}
    model = AgentsModel(Held("base", done), views)  # type: ignore[arg-type]
    model.put_on("cuda:1")
    model.hold_weights_in("int8")
    model.close()
    names = ("base", "lead", "worker")
    assert done == [(each, "cuda:1") for each in names] + [(each, "int8") for each in names] + [("base", "closed")]
    assert model.name == "base"
    renamed = AgentsModel(model.base, {"lead": views["worker"], "worker": views["lead"]}).fingerprint
    assert renamed != model.fingerprint, "which adapter is whose counts"


def test_openais_own_endpoint_takes_schemas_after_a_conversation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="openai is not installed")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    official = OpenAIModel("m", "https://api.openai.com/v1/")
    other = OpenAIModel("m", "http://host/v1")
    schema, digits = Grammar("json_schema", '{"type": "object"}'), Grammar("regex", "[0-9]+")
    from firsthand.message import user

    talk = [user("Hi")]
    body = official._body(talk, Sampling(max_tokens=3, grammar=schema), (), 1)
    assert body["max_completion_tokens"] == 3 and "max_tokens" not in body and "response_format" in body
    assert other._body(talk, Sampling(max_tokens=3, grammar=digits), (), 2)["max_tokens"] == 3
    assert other._body("Hi", Sampling(grammar=schema), (), 1)["structured_outputs"] == {"json": {"type": "object"}}
    begins = (
        "^openai:m@https://api.openai.com/v1 takes JSON schemas after a conversation and no other grammar, but got a "
    )
    for prompt, grammar, said in (
        (talk, digits, "regex grammar: use a local model or vLLM for it$"),
        ("Hi", digits, "regex grammar after plain text: use"), ("Hi", schema, "json_schema grammar after plain text: use"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=begins + said):
            official._body(prompt, Sampling(grammar=grammar), (), 1)
    assert other._token_ids is False and "return_token_ids" not in other._body(talk, Sampling(), (), 1)
    ids = OpenAIModel("m", "http://host/v1", return_token_ids=True)._body(talk, Sampling(), (), 1)
    assert ids["return_token_ids"] is True and ids["model"] == "m"
