"""Thoughts from end to end: a model with a thinking template, through OpenAI's client, whole and streamed.

The tiny model babbles, so a grammar makes it think: what is tested is the way of its words, not they themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from firsthand.engine.core.engine_config import EngineConfig
from firsthand.providers.local import Local
from served import Running, serving
from tiny import write_model

TEMPLATE = (
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if begin_thought %}{{- '<think>\\n' }}"
    "{%- elif enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
"""As Qwen3's does it: old thoughts are dropped, and `enable_thinking=false` lets the answer begin after an empty thought.
Told to `begin_thought`, it does as DeepSeek-R1's, whose prompt ends with the beginning of the thought."""
DEEPSEEK = {"chat_template_kwargs": {"begin_thought": True}}
ASK = [{"role": "user", "content": "What is 12 + 30?"}]
OPENED = {"guided_regex": r"<think>\nI need the sum\.\n</think>\n\nThe answer is [0-9]{2}\."}
GOING_ON = {"guided_regex": r"I need the sum\.\n</think>\n\nThe answer is [0-9]{2}\."}
PLAIN = {"guided_regex": r"The answer is [0-9]{2}\."}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = write_model(tmp_path_factory.mktemp("models") / "m", max_position=1024, template=TEMPLATE)
    with serving(Local(folder, config=EngineConfig(kv_memory_bytes=1 << 22, threads=1)), name="tiny") as found:
        yield found


def ask(running: Running, stream: bool, messages: Any = ASK, **extra: Any) -> tuple[str, str]:
    """The thought and the words, as OpenAI's client tells them."""
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
    found: Any = client.chat.completions.create(
        model="tiny", messages=messages, stream=stream, temperature=1, seed=3, extra_body={"max_tokens": 200, **extra}
    )
    if not stream:
        return parts(found.choices[0].message)
    told = [parts(piece.choices[0].delta) for piece in found]
    begun = next((at for at, (_, words) in enumerate(told) if words), len(told))
    assert not any(thought for thought, _ in told[begun:])
    return "".join(thought for thought, _ in told), "".join(words for _, words in told)


def parts(message: Any) -> tuple[str, str]:
    return getattr(message, "reasoning_content", None) or "", message.content or ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("form", "written"), [({}, OPENED), (DEEPSEEK, GOING_ON)])
def test_a_thought_comes_apart_from_the_answer(running: Running, form: Any, written: Any, stream: bool) -> None:
    thought, words = ask(running, stream, **written, **form)
    assert thought == "I need the sum."
    assert words.startswith("The answer is ") and "think" not in words


@pytest.mark.parametrize("stream", [False, True])
def test_a_template_told_not_to_think_gives_words_alone(running: Running, stream: bool) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    assert ask(running, stream, **PLAIN, **off)[0] == ""
    assert ask(running, stream, **PLAIN, **off)[1].startswith("The answer is ")
    literal = ask(running, stream, guided_regex="a <think> b </think> c", **off)
    assert literal == ("", "a <think> b </think> c")  # in the middle of an answer it is text like any other


def test_the_template_is_told_in_tokenize_too_and_a_conversation_keeps_no_thoughts(running: Running) -> None:
    def text(**body: Any) -> str:
        with openai.OpenAI(base_url=running.url, api_key="x") as client:
            ids = client.post("/tokenize", cast_to=object, body=body)["tokens"]  # type: ignore[index]
            return str(client.post("/detokenize", cast_to=object, body={"tokens": ids})["prompt"])  # type: ignore[index]

    assert text(messages=ASK, chat_template_kwargs={"enable_thinking": False}).endswith("<think>\n\n</think>\n\n")
    assert "think" not in text(messages=ASK)
    said = {"role": "assistant", "content": "42.", "reasoning_content": "12 and 30 make 42."}
    shown = text(messages=[*ASK, said, {"role": "user", "content": "And twice that?"}])
    assert "42." in shown and "make" not in shown and "think" not in shown


@pytest.mark.parametrize("stream", [False, True])
def test_a_thought_that_the_limit_cuts_is_a_thought(running: Running, stream: bool) -> None:
    thought, words = ask(running, stream, guided_regex="I need [a-z ]{500}</think>", max_tokens=40, **DEEPSEEK)
    assert thought.startswith("I need ") and words == ""
