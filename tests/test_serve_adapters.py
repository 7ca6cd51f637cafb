"""Adapters behind a Local and behind the server: names of their own, their own answers, and who may bring them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from adapters_tiny import adapter, write, write_house
from firsthand import catalog
from firsthand.commands import serve as command
from firsthand.config import parse
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelFileError
from firsthand.model import Completion, Sampling
from firsthand.nn import weights
from firsthand.providers.local import Local
from firsthand.providers.scripted import Scripted
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Keys, check_loaders, read_keys
from served import Running, serving

HTTP = httpx.Client(verify=False, timeout=60)
CONFIG = EngineConfig(kv_memory_bytes=1 << 22, threads=1, max_adapters=4)
HOT = Sampling(max_tokens=8, temperature=1.0, seed=5)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a folder `adapters` of three good ones and bad ones, and one outside it."""
    house = tmp_path_factory.mktemp("house")
    model = write_house(house)
    write(house / "outside", model, adapter(model, 9))
    (house / "adapters" / "link").symlink_to(house / "outside")
    bad = write(house / "adapters" / "nan", model, adapter(model, 3)) / "adapter_model.safetensors"
    save_file({name: values * float("nan") for name, values in load_file(bad).items()}, bad)
    cut = write(house / "adapters" / "cut", model, adapter(model, 3)) / "adapter_model.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    pickled = write(house / "adapters" / "pickled", model, adapter(model, 3))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    half = write(house / "adapters" / "half", model, adapter(model, 3))
    (half / "adapter_model.safetensors").unlink()
    (half / "adapter_model.safetensors").symlink_to(house / "outside" / "adapter_model.safetensors")
    write(house / "adapters" / "wide", model, adapter(model, 3, rank=300))
    for name, file in (("pipe", "adapter_model.safetensors"), ("asks", "adapter_config.json")):
        path = write(house / "adapters" / name, model, adapter(model, 3)) / file
        path.unlink()
        os.mkfifo(path)
    for name, body in (("deep", "[" * 100_000), ("long", '{"r": ' + "9" * 5_000 + "}"), ("none", '{"r": NaN}')):
        (write(house / "adapters" / name, model, adapter(model, 3)) / "adapter_config.json").write_text(body)
    loud = write(house / "adapters" / "loud", model, adapter(model, 3)) / "adapter_config.json"
    loud.write_text(json.dumps(json.loads(loud.read_text()) | {"lora_alpha": 3e38}))
    return house


@pytest.fixture(scope="module")
def running(house: Path) -> Iterator[Running]:
    local = Local(house / "model", config=CONFIG, adapters={"red": house / "adapters" / "red"})
    with serving(local, name="tiny", adapter_root=house / "adapters") as running:
        yield running


def post(running: Running, path: str, **body: Any) -> httpx.Response:
    return HTTP.post(running.url + path, json=body)


def say(running: Running, model: str, **options: Any) -> str:
    body = {"prompt": "What is", "max_tokens": 8, "temperature": 1.0, "seed": 5, "model": model, **options}
    answer = post(running, "/v1/completions", **body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    return str(answer.json()["choices"][0]["text"])


def load(running: Running, name: str, path: str, **options: Any) -> httpx.Response:
    return post(running, "/v1/load_lora_adapter", lora_name=name, lora_path=path, **options)


# -- in Python --


def ids(completion: Completion) -> tuple[int, ...]:
    assert completion.message.sampled is not None
    return completion.message.sampled.token_ids


@pytest.mark.slow
def test_a_local_model_answers_with_each_of_its_adapters_at_once(house: Path, tmp_path: Path) -> None:
    folders = {name: house / "adapters" / name for name in ("red", "green")}

    async def main() -> None:
        local = Local(house / "model", config=CONFIG, adapters=folders)
        red, green = (local.with_adapter(name) for name in folders)
        assert (red.name, len({each.fingerprint for each in (local, red, green)})) == ("red", 3)
        both = await asyncio.gather(*(each.complete("What is", HOT) for each in (local, red, green)))
        assert len({ids(answer) for (answer,) in both}) == 3
        alone = Local(house / "model", config=CONFIG, adapters={"x": folders["green"]})
        assert ids((await alone.with_adapter("x").complete("What is", HOT))[0]) == ids(both[2][0])
        scores = [(await each.score("What", [" is"])).likelihoods[0].logprob for each in (local, red, green)]
        assert len(set(scores)) == 3
        ratings = [(await each.rate([3, 4, 5]))[1].logprob for each in (local, red, green)]
        assert len(set(ratings)) == 3
        await local.load_adapter("blue", house / "adapters" / "blue", version=7)
        (answer,) = await local.with_adapter("blue").complete("What is", HOT)
        assert answer.adapter_version == 7 and Completion.from_json(answer.to_json()).adapter_version == 7
        before = red.fingerprint
        await local.load_adapter("red", folders["green"], version=1, replace=True)
        (answer,) = await red.complete("What is", HOT)
        assert ids(answer) == ids(both[2][0]) and red.fingerprint != before
        before = red.fingerprint
        await local.load_adapter("red", folders["green"], version=2, replace=True)
        assert red.fingerprint == before  # the same bytes
        work = Path(shutil.copytree(folders["green"], tmp_path / "work"))
        await local.load_adapter("blue", work, replace=True)
        before = (blue := local.with_adapter("blue")).fingerprint
        write(work, weights.load(house / "model"), adapter(weights.load(house / "model"), 9))
        await local.load_adapter("blue", work, replace=True)
        assert blue.fingerprint != before
        await local.unload_adapter("red")
        with pytest.raises(ConfigError, match="no adapter 'red' is beside"):
            await local.unload_adapter("red")
        with pytest.raises(ConfigError, match="the adapter 'red' was unloaded"):
            await red.complete("What is", HOT)
        with pytest.raises(ConfigError, match="the adapter 'red' was unloaded"):
            _ = red.fingerprint
        with pytest.raises(ConfigError, match="no adapter 'red' is beside"):
            local.with_adapter("red")
        local.close()
        alone.close()

    asyncio.run(main())


def test_new_weights_come_in_under_answers_and_the_answer_names_both_versions(house: Path) -> None:
    async def main() -> None:
        local = Local(house / "model", config=CONFIG)
        first = local.fingerprint
        state = {name: tensor + 0.01 for name, tensor in weights.load(house / "model").state_dict().items()}
        await local.load()
        for version in range(1, 50):  # until the weights come while an answer is under way
            tokens = (await local.counters())["decode_tokens"]
            long = asyncio.create_task(local.complete("What is", Sampling(max_tokens=200, ignore_eos=True)))
            while (await local.counters())["decode_tokens"] <= tokens:
                await asyncio.sleep(0)
            await local.update(state, version=version)
            (answer,) = await long
            assert len(ids(answer)) == 200
            if len(answer.versions) == 2:
                break
        assert answer.versions == (version - 1, version)
        assert Completion.from_json(answer.to_json()).versions == answer.versions
        assert local.fingerprint not in (first, Local(house / "model", config=CONFIG).fingerprint)
        (later,) = await local.complete("What is", HOT)
        assert later.versions == (version,)
        local.close()

    asyncio.run(main())


def test_models_named_with_an_adapter_beside_them_share_one_model(house: Path) -> None:
    red, green = (catalog.model(f"{house / 'model'}+adapter:{house / 'adapters' / name}") for name in ("red", "green"))
    assert isinstance(red, Local) and isinstance(green, Local) and red._shared is green._shared
    red.config = green.config = CONFIG
    answers = [ids(asyncio.run(each.complete("What is", HOT))[0]) for each in (red, green)]
    assert answers[0] != answers[1] and red.name.endswith("red") and red.fingerprint != green.fingerprint
    nan = catalog.model(f"{house / 'model'}+adapter:{house / 'adapters' / 'nan'}")
    with pytest.raises(ModelFileError, match="no finite numbers"):
        asyncio.run(nan.complete("What is", HOT))
    assert ids(asyncio.run(green.complete("What is", HOT))[0]) == answers[1]
    with pytest.raises(ModelFileError, match="is not a folder"):
        catalog.model(f"{house / 'model'}+adapter:{house / 'nowhere'}")
    red.close()


def test_a_bad_adapter_among_those_given_is_told_of_and_leaves_no_thread(house: Path) -> None:
    before = threading.active_count()
    local = Local(house / "model", config=CONFIG, adapters={"nan": house / "adapters" / "nan"})
    with pytest.raises(ModelFileError, match="no finite numbers"):
        asyncio.run(local.complete("What is", HOT))
    assert threading.active_count() <= before + 1  # asyncio's own pool may keep one
    with pytest.raises(ModelFileError, match="pickle"):
        Local(house / "model", adapters={"p": house / "adapters" / "pickled"})


# -- on the command line --


def test_the_flags_name_adapters_and_faults_in_them_are_told(house: Path) -> None:
    red, green = house / "adapters" / "red", house / "adapters" / "green"
    argv = [str(house / "model"), "--adapter", f"red={red}", "--adapter", f"a,b={green}", "--adapter-root", str(house)]
    config = parse(command.Config, argv, prog="serve")
    assert config.adapter == (f"red={red}", f"a,b={green}") and config.openai.adapter_root == house
    with pytest.raises(ConfigError, match="an adapter's name is 'a,b'"):
        command.open_model(config, str(house / "model"))
    for text, expected in [
        ("red", "write NAME=FOLDER"),
        ("m=x", "m is the model's own name"),
        ("r=no", "is not a folder"),
    ]:
        config = command.Config(model="m", adapter=(text,))
        error = ModelFileError if text == "r=no" else ConfigError
        with pytest.raises(error, match=expected):
            command.put_adapters(Local(house / "model"), config)
    with pytest.raises(ConfigError, match="does not run here, so no adapters"):
        command.put_adapters(Scripted(["x"]), command.Config(model="openai:x", adapter=("a=b",)))


# -- over HTTP --


def test_adapters_are_models_with_a_parent_and_answer_as_themselves(running: Running) -> None:
    listed = HTTP.get(f"{running.url}/v1/models").json()["data"]
    assert [each["id"] for each in listed] == ["tiny", "red"]
    assert (listed[1]["parent"], "parent" in listed[0]) == ("tiny", False)
    assert listed[1]["max_model_len"] == listed[0]["max_model_len"]
    assert say(running, "tiny") != say(running, "red") == say(running, "red")
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 6, "logprobs": True, "prompt_logprobs": 1}
    found = [post(running, "/v1/chat/completions", model=name, **chat).json() for name in ("tiny", "red")]
    assert [each["model"] for each in found] == ["tiny", "red"]
    assert len({each["system_fingerprint"] for each in found} - {None}) == 2
    assert found[0]["prompt_logprobs"] != found[1]["prompt_logprobs"]
    turn = post(running, "/v1/responses", model="red", input="Hi", max_output_tokens=4).json()
    assert turn["model"] == "red"
    assert post(running, "/tokenize", model="red", prompt="Hi").json()["count"] > 0
    refused = post(running, "/v1/completions", model="green", prompt="Hi")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    refused = post(running, "/v1/completions", model="tiny", prompt="Hi", lora_request={"lora_name": "red"})
    assert "ask for the adapter by its name" in refused.json()["error"]["message"]


def test_adapters_come_and_go_while_requests_run(running: Running, house: Path) -> None:
    assert load(running, "green", "green").json() == {"status": "loaded", "id": "green"}
    green = say(running, "green")
    assert green not in (say(running, "red"), say(running, "tiny"))
    body = {"model": "green", "prompt": "What is", "max_tokens": 200, "ignore_eos": True, "stream": True}
    with HTTP.stream("POST", f"{running.url}/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        again = load(running, "green", str(house / "adapters" / "blue"))
        assert (again.status_code, again.json()["error"]["param"]) == (400, "lora_name")
        assert load(running, "green", "blue", load_inplace=True).status_code == 200
        assert say(running, "green") != green
        gone = post(running, "/v1/unload_lora_adapter", lora_name="green")
        assert gone.json() == {"status": "unloaded", "id": "green"}
        assert list(lines)[-2] == "data: [DONE]"
    assert [each["id"] for each in HTTP.get(f"{running.url}/v1/models").json()["data"]] == ["tiny", "red"]
    assert post(running, "/v1/completions", model="green", prompt="Hi").status_code == 404
    assert post(running, "/v1/unload_lora_adapter", lora_name="green").status_code == 404
    metrics = asyncio.run_coroutine_threadsafe(running.models.counters(), running.loop).result(10)
    assert metrics["adapters"] == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("../outside", "within the server's folder"),
        ("/etc", "within the server's folder"),
        ("link", "within the server's folder"),
        ("half", "within the server's folder"),
        ("red/../../outside", "within the server's folder"),
        ("nowhere", "within the server's folder"),
        ("a\0b", "within the server's folder"),
        ("x/" * 2000, "within the server's folder"),
        ("pickled", "within the server's folder"),
        ("nan", "no finite numbers"),
        ("cut", "cut"),
        ("wide", "has rank 300: at most 256"),
        ("pipe", "within the server's folder"),
        ("asks", "within the server's folder"),
        ("deep", "does not hold JSON"),
        ("long", "adapter_config.json"),
        ("none", "adapter_config.json"),
    ],
)
def test_a_bad_adapter_is_refused_and_touches_nothing(running: Running, house: Path, path: str, expected: str) -> None:
    before = say(running, "red")
    answer = load(running, "bad", path)
    assert answer.status_code == 400 and expected in answer.json()["error"]["message"], answer.text
    assert str(house / "adapters") not in answer.text
    assert [each["id"] for each in HTTP.get(f"{running.url}/v1/models").json()["data"]] == ["tiny", "red"]
    assert say(running, "red") == before


def test_an_adapter_whose_numbers_overflow_ends_its_own_requests_alone(running: Running) -> None:
    before = say(running, "red", temperature=0.0)
    answer = load(running, "loud", "loud")
    if answer.status_code == 200:
        bad = post(running, "/v1/completions", model="loud", prompt="What is", max_tokens=8)
        assert bad.status_code >= 400 and "not numbers" in bad.text, bad.text
        assert post(running, "/v1/unload_lora_adapter", lora_name="loud").status_code == 200
    else:
        assert answer.status_code == 400, answer.text
    assert say(running, "red", temperature=0.0) == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"lora_name": "x"},
        {"lora_name": "x" * 300, "lora_path": "green"},
        {"lora_name": "a b", "lora_path": "green"},
        {"lora_name": "tiny", "lora_path": "green"},
        {"lora_name": ["x"], "lora_path": "green"},
        {"lora_name": "x", "lora_path": {"a": 1}},
        {"lora_name": "x", "lora_path": ""},
        {"lora_name": "x", "lora_path": "green", "load_inplace": 1},
        {"lora_name": "x", "lora_path": "green", "is_3d": True},
    ],
)
def test_a_malformed_request_to_load_is_refused_with_the_field(running: Running, body: dict[str, Any]) -> None:
    answer = post(running, "/v1/load_lora_adapter", **body)
    assert answer.status_code == 400 and answer.json()["error"]["param"], answer.text


def test_too_many_adapters_are_refused_with_the_bound(running: Running) -> None:
    names = [f"n{i}" for i in range(4)]
    answers = [load(running, name, "blue") for name in names]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 400]
    assert "max_adapters (4)" in answers[-1].json()["error"]["message"]
    for name in names[:3]:
        assert post(running, "/v1/unload_lora_adapter", lora_name=name).status_code == 200


def test_without_the_flag_there_is_nothing_to_load_with(house: Path) -> None:
    with serving(Local(house / "model", config=CONFIG), name="tiny") as closed:
        assert load(closed, "red", "red").status_code == 404
        assert post(closed, "/v1/unload_lora_adapter", lora_name="red").status_code == 404
        assert "/v1/load_lora_adapter" not in HTTP.get(f"{closed.url}/openapi.json").json()["paths"]
    with pytest.raises(ConfigError, match="adapter_root is"):
        serving(None, adapter_root=house / "nowhere").__enter__()


# -- who may --


def test_only_keys_that_say_so_load_and_unload_adapters(house: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    names = ("ops", "alice", "bob")
    secrets = {name: f"the-secret-of-{name}-0123456789" for name in (*names, "env")}
    may = {"ops": "load_adapters = true", "alice": "load_adapters = false", "bob": ""}
    file.write_text("".join(f'[{name}]\nkey = "{secrets[name]}"\n{may[name]}\n' for name in names))
    keys = read_keys(file, {"FIRSTHAND_API_KEY": secrets["env"]}, ClientLimits())
    with serving(
        Local(house / "model", config=CONFIG), name="tiny", keys=keys, adapter_root=house / "adapters"
    ) as guarded:

        def ask(name: str, path: str, **body: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {secrets[name]}"}
            return HTTP.post(guarded.url + path, json=body, headers=headers)

        wanted = {"lora_name": "red", "lora_path": "red"}
        for name in ("alice", "bob"):
            for path, body in (("load", wanted), ("load", {}), ("unload", {"lora_name": "red"})):
                refused = ask(name, f"/v1/{path}_lora_adapter", **body)
                assert (refused.status_code, refused.json()["error"]["code"]) == (403, "adapters_not_allowed")
                assert refused.json()["error"]["type"] == "permission_error"
        assert ask("ops", "/v1/load_lora_adapter", **wanted).status_code == 200
        assert ask("alice", "/v1/completions", model="red", prompt="Hi", max_tokens=2).status_code == 200
        assert ask("bob", "/v1/unload_lora_adapter", lora_name="red").status_code == 403
        assert ask("env", "/v1/unload_lora_adapter", lora_name="red").status_code == 200
        assert HTTP.post(f"{guarded.url}/v1/load_lora_adapter", json=wanted).status_code == 401


def test_a_folder_of_adapters_that_no_key_may_use_is_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text('[a]\nkey = "long-enough-0123456789"\n')
    keys = read_keys(file, {}, ClientLimits())
    with pytest.raises(ConfigError, match="no key may load adapters: write load_adapters = true"):
        check_loaders(keys, tmp_path)
    check_loaders(keys, None)
    check_loaders(Keys(), tmp_path)
    check_loaders(read_keys(None, {"FIRSTHAND_API_KEY": "long-enough-0123456789"}, ClientLimits()), tmp_path)
