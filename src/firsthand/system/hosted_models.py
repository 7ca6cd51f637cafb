"""Says how to reach a model that somebody else's server has: OpenAI's, Anthropic's, Google's and others.

Anthropic and Google have providers of their own. The others speak OpenAI's protocol, so the name is `openai:NAME@URL`, and
the key is in OPENAI_API_KEY.
"""

from __future__ import annotations

import re

ADDRESSES = {
    "vllm": "http://localhost:8000/v1",
    "sglang": "http://localhost:30000/v1",
    "llamacpp": "http://localhost:8080/v1",
    "lmstudio": "http://localhost:1234/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "groq": "https://api.groq.com/openai/v1",
    "together": "https://api.together.xyz/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
"""Base URLs of providers that people name, as their documentation gives them."""
_OTHER_NAMES = {"claude": "anthropic", "gemini": "google", "googleai": "google", "vertex": "google"}
_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GOOGLE_API_KEY"}
"""Providers with a prefix of their own -> the variable that holds the key."""
_OWNERS = (
    (re.compile(r"(gpt|chatgpt|o\d)(-|$)", re.IGNORECASE), "openai"),
    (re.compile(r"claude-", re.IGNORECASE), "anthropic"),
    (re.compile(r"gemini-", re.IGNORECASE), "google"),
    (re.compile(r"(llama|qwen|mistral|mixtral|gemma|phi|deepseek)[\w.-]*(:[\w.-]+)?$", re.IGNORECASE), "ollama"),
)


def provider_hint(provider: str, name: str) -> str:
    """A sentence on how to write a provider's model; empty for an unknown provider."""
    word = provider.lower().replace("-", "").replace("_", "").replace(".", "")
    if word in _OTHER_NAMES:
        return f"write {_OTHER_NAMES[word]}:{name or 'NAME'}"
    address = ADDRESSES.get(word)
    if address is None:
        return ""
    key = "" if "localhost" in address else f", with {provider}'s key in OPENAI_API_KEY"
    return f"it is reached by OpenAI's protocol: write openai:{name or 'NAME'}@{address}{key}"


def elsewhere(name: str) -> str:
    """A sentence for a model that is asked elsewhere, or made up, where one with files here is wanted; else empty."""
    provider, _, model = name.partition(":")
    if provider == "ollama" and model:
        return f"{name!r} is Ollama's to fetch: `ollama pull {model}`"
    if provider in (*_KEYS, "scripted", "cassette", "sim", "agents") and model:
        return f"{name!r} has no files here: give a known name, a .gguf file, a folder, or hf:ORG/NAME"
    return ""


def name_hint(name: str) -> str:
    """A sentence on how to write a model that a known provider has; empty if its name says nothing."""
    owner = next((owner for pattern, owner in _OWNERS if pattern.match(name)), None)
    if owner == "ollama":
        return f"if Ollama serves it here, write ollama:{name}"
    if owner is None:
        return ""
    maker = "OpenAI" if owner == "openai" else owner.capitalize()
    return f"if it is {maker}'s, write {owner}:{name}, with the key in {_KEYS[owner]}"
