"""One test for each class of vulnerability that was published for other inference servers (vLLM, SGLang, llama.cpp, Ollama).

Files of models are parsed in tests/test_modelfile.py and templates in tests/test_tokens_sandbox.py; here a client stands
before the whole server.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import firsthand
from cpu_time import at_most_cpu_s
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.decoding.grammar_cache import MAX_CACHE_BYTES
from firsthand.providers.local import Local
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.serve.admission.api_keys import Client, Keys
from firsthand.serve.http.status_routes import STATUS_ROUTES
from firsthand.serve.openai.openai_app import ROUTES
from served import Running, serving
from tiny import write_model

HTTP = httpx.Client(verify=False, timeout=60)
"""One client for all: making one takes longer than most requests."""

HI = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"


def small(folder: Path) -> Local:
    return Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = write_model(tmp_path_factory.mktemp("model") / "m", max_position=2048)
    with serving(small(folder), name="tiny") as found:
        yield found


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    """The server; whatever was asked of it, it answers afterwards, and its engine's memory is whole."""
    yield shared
    assert ask(shared, messages=HI, max_tokens=2).status_code == 200
    assert shared.app.is_ready


def ask(running: Running, path: str = CHAT, **body: Any) -> httpx.Response:
    return HTTP.post(running.url + path, json=body, timeout=60)


def said(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


@pytest.mark.slow
def test_deserialisation_as_in_cve_2026_3059_and_cve_2025_62164(running: Running) -> None:
    """Pickle over ZMQ, torch.load of a request's tensors: nothing that a client sends is ever unpickled."""
    for path in Path(firsthand.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if not re.search(r"pickle|dill|zmq|marshal|torch\.load", text):
            continue
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"pickle", "dill", "cloudpickle", "zmq", "marshal"}, (
                path
            )
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path
    assert "prompt_embeds is not supported" in said(ask(running, "/v1/completions", prompt="x", prompt_embeds="gASV"))


def test_a_model_file_as_code_as_in_cve_2024_34359_and_cve_2026_5760(tmp_path: Path) -> None:
    """A chat template that leaves its sandbox: it fails for each request, and nothing runs."""
    trace = tmp_path / "was-here"
    escape = "{{ cycler.__init__.__globals__.os.system('touch " + str(trace) + "') }}"
    with serving(small(write_model(tmp_path / "m", template=escape)), name="tiny") as running:
        assert running.app.is_ready
        said(ask(running, messages=HI, max_tokens=2))
        assert ask(running, "/v1/completions", prompt="x", max_tokens=2).status_code == 200
    assert not trace.exists()


def test_a_models_own_code_as_in_cve_2026_22807(tmp_path: Path) -> None:
    """auto_map: Python beside the weights is never imported."""
    folder, trace = write_model(tmp_path / "m"), tmp_path / "was-here"
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": "evil.Evil"}
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Evil: pass\n")
    with serving(small(folder), name="tiny") as running:
        assert ask(running, messages=HI, max_tokens=2).status_code == 200
    assert not trace.exists()


@pytest.mark.parametrize("body", [{"n": 16_384}, {"n": 10**6}, {"best_of": 10**6}, {"n": 17}])
def test_unbounded_answers_as_in_cve_2026_34756(running: Running, body: Any) -> None:
    answer = ask(running, messages=HI, **body)
    assert said(answer) and answer.json()["error"]["param"] == next(iter(body))
    prompts = ask(running, "/v1/completions", prompt=["x"] * 300, n=16)
    assert "asks for 4800 answers" in said(prompts)


def test_a_huge_header_as_in_cve_2025_48956(running: Running) -> None:
    with pytest.raises(httpx.TransportError):  # refused and closed while it is still being sent, or answered with 400
        answer = HTTP.get(running.url + "/health", headers={"x-big": "a" * (8 << 20)})
        assert answer.status_code == 400
        raise httpx.TransportError("")


def test_a_number_below_its_range_as_in_cve_2026_21869(running: Running) -> None:
    assert "n_discard is not supported" in said(ask(running, messages=HI, n_discard=-1))
    for field in ("max_tokens", "n", "top_logprobs", "top_k", "prompt_logprobs"):
        said(ask(running, messages=HI, **{field: -5}))
    assert "greater than or equal to 0" in said(ask(running, "/v1/completions", prompt=[-1]))
    assert "the model's tokens go from 0" in said(ask(running, "/v1/completions", prompt=[2**31 - 1]))
    said(ask(running, "/v1/completions", prompt="x", logit_bias={"999999": 5}))
    said(ask(running, "/v1/completions", prompt="x", stop_token_ids=[999_999]))


def test_a_template_from_a_request_as_in_cve_2025_61620(running: Running) -> None:
    assert "chat_template is not supported" in said(ask(running, messages=HI, chat_template="{{ 1 }}"))


def test_arguments_of_the_renderer_as_in_cve_2025_62426(running: Running) -> None:
    """What a request tells the template are variables of the template, and arguments of no function of ours."""
    plain = ask(running, messages=HI, max_tokens=4, temperature=0).json()["choices"]
    for name in ("tokenize", "return_tensors", "continue_final_message", "self", "variables"):
        told = ask(running, messages=HI, max_tokens=4, temperature=0, chat_template_kwargs={name: True})
        assert told.json()["choices"] == plain


@pytest.mark.parametrize(
    "variables",
    [
        {"messages": []}, {"tools": []}, {"add_generation_prompt": False}, {"bos_token": "x"}, {"eos_token": "x"},
        {"__class__": 1}, {"_x": 1}, {"": 1}, {"a b": 1}, {"x" * 65: 1}, {"é": 1}, {"x": "y" * 257}, {"x": 2**60},
        {"x": [0] * 300}, {"x": [[[[[0]]]]]}, {"x": {"y": "<|im_end|>"}}, {"x": ["a<|im_start|>system"]},
        {"x": {"<|im_end|>": 1}}, dict.fromkeys("abcdefghijklmnopq", 1), [], "x", {"x": {"y": "z" * 300}},
    ],
)  # fmt: skip
def test_what_a_template_is_told_is_little_plain_data(running: Running, variables: Any) -> None:
    for path, more in ((CHAT, {"max_tokens": 2}), ("/tokenize", {})):
        said(ask(running, path, messages=HI, chat_template_kwargs=variables, **more))


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "((("}}},
        {"type": "object", "properties": {"x": {"type": "stirng"}}},
        {"type": "object", "properties": {"x": {"type": 5}}},
        {"type": "object", "properties": "none"},
        {"type": "object", "properties": {"x": {"$ref": "#/nowhere"}}},
        {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}},
        {"type": "integer"},
        {"type": ["object", "null"]},
        {"properties": {"x": {"enum": []}}, "required": ["x"]},
        {"anyOf": "x", "required": 3},
    ],
)
def test_a_bad_tool_schema_as_in_cve_2025_48944(running: Running, parameters: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    for choice in ("auto", "required"):
        answer = ask(running, messages=HI, tools=tools, tool_choice=choice, max_tokens=4)
        assert answer.status_code in (200, 400), answer.text


@pytest.mark.slow
def test_a_slow_parser_of_tool_calls_as_in_cve_2025_48887(running: Running) -> None:
    """What a model says is parsed in linear time: here it says what it was told to, by a grammar."""
    from firsthand.serve.openai.reasoning_split import ReasoningSplitter
    from firsthand.tokens.calls import call_parser

    for text in (
        "<tool_call>" * 20_000,
        "[TOOL_CALLS]" * 8_000,
        "```json" * 8_000,
        '{"name": "f", ' * 8_000,
        "<" * 60_000,
    ):
        with at_most_cpu_s(5):
            call_parser.parse(text)
            split, calls = ReasoningSplitter(thinks=True), call_parser.CallStream()
            for at in range(0, len(text), 1000):
                calls.feed(text[at : at + 1000])
                split.feed(text[at : at + 1000])
            calls.finish()
            split.finish()


@pytest.mark.slow
def test_an_unbounded_grammar_cache_as_in_ghsa_389x_67px_mjg3(running: Running) -> None:
    for place in range(40):
        ask(running, messages=HI, max_tokens=1, structured_outputs={"choice": [f"{place}-{'x' * 60_000}"]})
    assert 0 < running.models.model._loaded.grammars.num_bytes <= MAX_CACHE_BYTES


@pytest.mark.slow
def test_a_grammar_cache_on_disk_as_in_ghsa_mgrm_fgjv_mhv8(running: Running, tmp_path: Path) -> None:
    """Nothing that a client sends is written to a file."""
    marker = "8f14e45fceea167a5a36dedd4bea2543"
    ask(running, messages=HI, max_tokens=1, structured_outputs={"regex": f"{marker}|b"})
    from firsthand.system.home import data_home

    home = data_home()
    files = (
        [path for path in home.rglob("*") if path.is_file() and path.stat().st_size < 1 << 16] if home.exists() else []
    )
    assert not [path for path in files if marker.encode() in path.read_bytes()]


def test_keys_compared_byte_by_byte_as_in_cve_2025_59425(tmp_path: Path) -> None:
    """Every key is compared as a digest, with hmac.compare_digest, whether an earlier one fitted or not."""
    import inspect

    source = inspect.getsource(Keys.find)
    loop = ast.parse(textwrap.dedent(source)).body[0]
    loops = [node for node in ast.walk(loop) if isinstance(node, ast.For)]
    assert len(loops) == 1 and "hmac.compare_digest" in ast.unparse(loops[0])
    assert not [node for node in ast.walk(loops[0]) if isinstance(node, ast.Break | ast.Return)]
    assert all(len(client.digest) == 32 for client in Keys((Client("a", ClientLimits(), b"\0" * 32),)).clients)


def cached(running: Running, words: str, **more: Any) -> int:
    """How many tokens of a prompt were known, which is what a fast first token tells too."""
    answer = ask(running, messages=[{"role": "user", "content": words}], max_tokens=2, temperature=0, **more)
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_the_timing_of_a_shared_cache_as_in_cve_2025_46570(running: Running) -> None:
    """A salted prompt is known to requests of its salt, and to nobody else: nor is what others asked known to them."""
    secret = "My password is swordfish, and I tell it to nobody but you, my dear model." * 2
    start = cached(running, "Nothing of the kind.")
    assert cached(running, secret, cache_salt="mine") <= start
    assert cached(running, secret, cache_salt="mine") > 100
    assert cached(running, secret, cache_salt="other") <= start
    assert cached(running, secret) <= start + 4
    assert cached(running, secret) > 100
    assert cached(running, secret, cache_salt="third") <= start
    echoed = {"prompt": secret + "!", "echo": True, "logprobs": 0, "max_tokens": 0}
    assert ask(running, "/v1/completions", cache_salt="mine", **echoed).status_code == 200
    asked = {"prompt": secret + "!", "max_tokens": 1}
    seen = ask(running, "/v1/completions", **asked).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert seen < 100  # what was rated under a salt is not known outside it
    for salt in ("", "x" * 129, 5):
        said(ask(running, messages=HI, cache_salt=salt))


def test_clients_may_be_kept_apart_without_asking_for_it(tmp_path: Path) -> None:
    import hashlib

    names = ("ann", "bob")
    keys = Keys(tuple(Client(n, ClientLimits(), hashlib.sha256(n.encode() * 6).digest()) for n in names))
    with serving(small(write_model(tmp_path / "m")), name="tiny", keys=keys, private_caches=True) as running:

        def known(name: str, **more: Any) -> int:
            body = {"messages": [{"role": "user", "content": "What did ann ask? " * 4}], "max_tokens": 1, **more}
            headers = {"authorization": f"Bearer {name * 6}"}
            answer = HTTP.post(running.url + CHAT, json=body, headers=headers)
            return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert known("ann") < 20 < known("ann")
        assert known("bob") < 20 < known("bob")
        assert known("bob", cache_salt="x") < 20
        assert known("ann", cache_salt="x") < 20


def test_colliding_hashes_in_the_prefix_cache_as_in_vllm_12621(running: Running) -> None:
    """Tokens themselves are compared, so equal hashes serve nobody another's memory."""
    first = ask(
        running, messages=[{"role": "user", "content": "The answer is 42."}], max_tokens=1, temperature=0
    ).json()
    other = ask(running, messages=[{"role": "user", "content": "What is 12 + 30?"}], max_tokens=1, temperature=0).json()
    assert other["usage"]["prompt_tokens_details"]["cached_tokens"] < other["usage"]["prompt_tokens"]
    assert first["usage"]["prompt_tokens"] > 0
    import inspect

    from firsthand.engine.memory import prefix_cache

    assert "hash(" not in inspect.getsource(prefix_cache)


def test_a_key_that_guards_only_some_routes() -> None:
    """vLLM's --api-key leaves /invocations, /pooling, /pause open; here only health is."""
    from firsthand.providers.scripted import Scripted

    keys = Keys((Client("a", ClientLimits(), b"\0" * 32),))
    with serving(Scripted(["x"]), keys=keys) as running:
        for path in (*STATUS_ROUTES, *ROUTES, "/invocations", "/pooling", "/pause", "/update_weights", "/docs", "/"):
            for method in ("GET", "POST"):
                status = HTTP.request(method, running.url + path, json={}).status_code
                assert status == 401 or path.startswith("/health"), (method, path, status)


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "file:///etc/passwd", "data:image/png;base64,AAAA"])
def test_fetching_for_a_client_as_in_cve_2025_6242_and_cve_2026_22778(running: Running, url: str) -> None:
    """No URL is ever opened and no media are decoded."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    assert "messages.0.content" in said(ask(running, messages=[{"role": "user", "content": parts}]))


def test_a_lying_model_file_as_in_cve_2026_7482_and_cve_2026_27940(tmp_path: Path) -> None:
    """A GGUF whose counts overflow: the server says that it failed, and does not serve."""
    lie = tmp_path / "lie.gguf"
    lie.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (2**63).to_bytes(8, "little") * 2 + b"\0" * 64)
    with serving(Local(lie), name="lie") as running:
        assert HTTP.get(running.url + "/health").status_code == 503
        assert "has failed" in said(ask(running, messages=HI), 503)


@pytest.mark.parametrize(
    "form",
    [
        {"guided_regex": "(" * 5000},
        {"guided_regex": "(a+)+$"},
        {"guided_regex": "(?=x)y"},
        {"guided_regex": r"(\w*\w*)*\d{1,500}"},
        {"guided_regex": "[^\\s\\S]"},
        {"guided_json": {"$ref": "#"}},
        {"guided_json": {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]}},
        {"guided_json": {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}}},
        {"guided_json": {"enum": [f"value {i}" for i in range(20_000)]}},
        {"guided_json": {"type": "string", "minLength": 10**9}},
        {"guided_json": {"type": "array", "minItems": 10**9, "items": {}}},
        {"guided_json": False},
        {"guided_grammar": "start: start"},
        {"guided_grammar": "start: a\na: b\nb: a"},
        {"guided_grammar": 'root ::= root "a" | "a"'},
        {"guided_grammar": "root ::= ("},
        {"guided_grammar": "start: " + "(" * 3000 + '"a"' + ")" * 3000},
        {"guided_grammar": 'start: ""'},
        {"guided_choice": ["x" * 50_000] * 3},
    ],
)
def test_poisoned_grammars_as_in_vllm_43920_and_llama_cpp_26600(running: Running, form: Any) -> None:
    """One bad grammar ends its own request, in bounded time, and not the engine; a good one works right after it."""
    start = time.perf_counter()
    answer = ask(running, messages=HI, max_tokens=4, **form)
    assert answer.status_code in (200, 400), answer.text
    assert time.perf_counter() - start < 60
    good = ask(running, messages=HI, max_tokens=4, guided_choice=["yes", "no"])
    assert good.json()["choices"][0]["message"]["content"] in ("yes", "no")


def test_a_deeply_nested_schema_is_refused_before_it_is_read(running: Running) -> None:
    schema: Any = {"type": "string"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    assert "more than 64 deep" in said(ask(running, messages=HI, guided_json=schema))
    text = '{"type": "array", "items": ' * 5000 + "{}" + "}" * 5000
    said(ask(running, messages=HI, guided_json=text))
