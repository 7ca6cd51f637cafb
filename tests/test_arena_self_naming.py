"""Answers that tell which model wrote them, and honest answers in which a word of its name stands."""

from __future__ import annotations

import pytest

from firsthand.arena import self_naming
from firsthand.arena.self_naming import identifying_names, told_name


@pytest.mark.parametrize(
    ("model", "answer", "name"),
    [
        ("qwen2.5-coder", "qwen2 here", "qwen"), ("smollm2", "A model of HUGGING FACE.", "hugging face"),
        ("gpt-4o", "By OpenAI", "openai"), ("claude-3", "I'm Claude", "claude"), ("claude-3", "I\u2019m Claude", "claude"),
        ("gemini-1.5", "I am a large language model, trained by Google.", "google"), ("phi-4", "phi-4 says", "phi"),
        ("phi-4", "Phi4 says", "phi"), ("phi-4", "Made by Microsoft", "microsoft"), ("qwen", "By Alibaba", "alibaba"),
        ("gpt-4o", "GPT-4 is good", "gpt"),
        ("openai:o3", "I am o3.", "o3"), ("o3", "OpenAI made this", "openai"), ("o1-mini", "This is O1-mini", "o1-mini"),
        ("glm-4", "GLM-4", "glm"), ("yi-34b", "I am Yi", "yi"), ("llama-3", "I was developed by Meta.", "meta"),
        ("codellama", "I am Llama", "llama"), ("llama3.2:1b", "As Llama, I know", "llama"),
        ("ollama:mistral:7b", "My name is Mistral", "mistral"), ("/models/llama/model.gguf", "I am Llama", "llama"),
        ("myowl.gguf", 'Call me "MyOwl"', "myowl"), ("myowl", "I am called the MyOwl.", "myowl"),
        ("my-owl7b", "You talk to My-Owl7b", "my-owl7b"), ("qwen2.5", "\u6211\u662fQwen", "qwen"),
        ("gemini", "\u6211\u662f Gemini", "gemini"), ("command-r", "I am Command, by Cohere", "command"),
        ("command-r", "I am a language model of Cohere", "cohere"), ("gemma", "Hi.\nI am Gemma.\nBye.", "gemma"),
        ("gpt-4o", "I am ChatGPT.", "chatgpt"), ("o1", "As ChatGPT", "chatgpt"), ("o3", "ChatGPT", "chatgpt"),
        ("o4-mini", "ChatGPT", "chatgpt"), ("happy-7b", "I'm happy to help. I'm Happy!", "happy"),
        ("happy-7b", "my name is happy", "happy"),
        ("happy-7b", "I am the Happy", "happy"), ("happy-7b", "I am the one called happy. I'm named happy", "happy"),
        ("myowl", "I\u2019m *MyOwl*", "myowl"), ("myowl", "I was built by the myowl team", "myowl"),
    ],
)  # fmt: skip
def test_an_answer_that_names_its_model_or_its_maker_tells_it(model: str, answer: str, name: str) -> None:
    assert told_name(model, answer) == name
    assert told_name(model, answer, f"Are you {name.upper()}?") != name, "the prompt gave the name"


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("mistral-large-2411", "Use a large pan."), ("mistral-small", "As a small language model, I am small"),
        ("command-r-plus", "I recommend the command ls, plus cd."), ("gemini-1.5-flash", "Lightning is a flash."),
        ("phi-4", "Philosophy begins"), ("phi-4", "Phi is a Greek letter"), ("phi-4", "delphi-4"),
        ("gpt-4-turbo", "A turbo engine."), ("gpt-4", "GPT rather than MBR"), ("gemma-2", "You can google it."),
        ("qwen2.5-coder", "I am a coder"), ("kimi-thinking", "I'm thinking of it"), ("claude-instant", "Instantly."),
        ("openai:smollm@http://localhost:8080/v1", "see http://localhost, not openai"),
        ("openai:llama@https://api.groq.com/v1", "I am at https://api.groq.com"),
        ("/models/llama/model.gguf", "I am the models of physics"), ("claude-3", "Claude Shannon founded it. I like it."),
        ("o3", "O3 is ozone"), ("llama-3", "React was developed by Meta. I added a meta tag."), ("qwen", "qwens, myqwen"),
        ("ollama:olmo", "I am Llama"), ("llama-3", "I am Qwen"), ("checkpoint-500", "the checkpoint 500 km away"),
        ("myowl", "myowl sits"), ("myowl", "I am myowlish"), ("o1-mini", "no1-minis"), ("nova-pro", "I saw a nova"),
        ("x", "x"), ("qwen2", "9qwen2, \u00e9qwen, qwen\u00e9"), ("my-owl7", "my-owl71"),
        ("my-happy-7b", "I'm happy to help!"), ("helpful-7b", "I am helpful."), ("sorry-7b", "I\u2019m sorry, I cannot."),
        ("happy-7b", "I know who I am\nHappy ends"), ("happy-7b", "My name is\nHappy"), ("happy-7b", "I'm the happy one"),
        ("happy-7b", "I'm Happyish"), ("happy-7b", "I'm called\nHappy"), ("gpt-4o", "Chat GPTs"),
        ("yi-34b", "I am Yielding"), ("happy-7b", "I know who I am\nHappy me"), ("happy-7b", "I was made by\nHappy me"),
    ],
)  # fmt: skip
def test_everyday_words_of_a_models_name_tell_nothing(model: str, answer: str) -> None:
    assert told_name(model, answer) == ""


def test_a_name_in_a_longer_word_of_the_prompt_is_not_given_by_it() -> None:
    assert (
        told_name("phi-4", "I am Phi", "What is philosophy?") == "phi" and told_name("phi-4", "I am Phi", "Phi?") == ""
    )


def test_identifying_names_are_families_makers_own_words_and_the_id() -> None:
    names = {
        "hf:Qwen/Qwen2.5-Instruct": ["qwen", "alibaba", "qwen2.5-instruct"],
        "scripted:s/echo.json": [], "abc": [], "Instruct-CHAT-base-Model": [], "step-1": ["step-1"], "123": [], "1234": [],
        "x-12": ["x-12"], "x-1": [],
        "claude": ["claude", "anthropic"], "openai:x@http://qwen.ai/llama/": [], "phi-x": ["phi", "microsoft"],
        "tinyllama.gguf": ["llama", "meta ai", "meta", "tinyllama"], "delphi": ["delphi"], "ollama:x": [],
        "meta-llama/Zebra/": ["llama", "meta ai", "meta", "zebra"],
    }  # fmt: skip
    assert {name: identifying_names(name) for name in names} == names


def test_the_lists_of_names_do_not_contradict_each_other() -> None:
    makers = {maker for makers in self_naming._MAKERS.values() for maker in makers}
    known = {*self_naming._MAKERS, *makers}
    assert known > self_naming._TELLING and known > self_naming._EVERYDAY
    assert not self_naming._TELLING & self_naming._EVERYDAY and not known & self_naming._PLAIN
