"""Finds answers that tell which model wrote them: by its name, its family's, or its maker's.

Many of these names are everyday words too. `qwen` or `OpenAI` tells a reader wherever it stands; `Claude`, `phi` or
`Google` only with a version (`phi-4`) or in a sentence in which the answer speaks of itself. Any other word of a model's
name tells where the answer gives it as its name: behind "I am" with a capital letter, since "I am happy to help" is no name.
Words such as `large`, `flash` or `coder`, and the provider or address by which a model is reached, tell nothing.
"""

from __future__ import annotations

import re

_MAKERS: dict[str, tuple[str, ...]] = {
    "aya": ("cohere",), "bloom": ("bigscience",), "chatgpt": ("openai",), "chatglm": ("zhipu",), "claude": ("anthropic",),
    "codestral": ("mistral ai",), "command": ("cohere",), "dbrx": ("databricks",), "deepseek": ("deepseek",),
    "doubao": ("bytedance",), "ernie": ("baidu",), "exaone": (), "falcon": (), "gemini": ("google",), "gemma": ("google",),
    "glm": ("zhipu",), "gpt": ("openai", "chatgpt"), "granite": ("ibm",), "grok": ("xai",), "hermes": ("nous research",),
    "hunyuan": ("tencent",), "internlm": (), "jamba": ("ai21",), "kimi": ("moonshot ai",), "llama": ("meta ai", "meta"),
    "magistral": ("mistral ai",), "minimax": (), "ministral": ("mistral ai",), "mistral": ("mistral ai",),
    "mixtral": ("mistral ai",), "nemotron": ("nvidia",), "nova": ("amazon",), "o1": ("openai", "chatgpt"),
    "o3": ("openai", "chatgpt"), "o4": ("openai", "chatgpt"), "olmo": ("allen institute",),
    "phi": ("microsoft",), "pixtral": ("mistral ai",),
    "pythia": ("eleutherai",), "qwen": ("alibaba",), "qwq": ("qwen", "alibaba"), "smollm": ("hugging face",),
    "stablelm": ("stability ai",), "vicuna": (), "yi": ("01.ai",), "zephyr": ("hugging face",),
}  # fmt: skip
"""The families of models that are known by name, each with its makers."""
_TELLING = {
    "ai21", "anthropic", "bigscience", "chatgpt", "chatglm", "codestral", "dbrx", "deepseek", "doubao", "eleutherai",
    "exaone", "hugging face", "hunyuan", "internlm", "jamba", "magistral", "meta ai", "ministral", "mistral ai", "mixtral",
    "moonshot ai", "nemotron", "nous research", "olmo", "openai", "pixtral", "qwen", "qwq", "smollm", "stability ai",
    "stablelm", "xai", "zhipu",
}  # fmt: skip
"""Names that are no everyday words: they tell wherever they stand."""
_EVERYDAY = {"aya", "bloom", "command", "falcon", "granite", "hermes", "meta", "nova", "yi"}
"""Names that also stand in sentences about oneself, such as "I added a meta tag": they tell where they are introduced."""
_PLAIN = {
    "adapter", "base", "beta", "best", "chat", "checkpoint", "code", "coder", "direct", "distill", "echo", "experimental",
    "fast", "fine", "final", "flash", "gguf", "haiku", "high", "instant", "instruct", "large", "last", "latest", "lite",
    "local", "long", "lora", "main", "math", "maverick", "medium", "merged", "mini", "model", "models", "nano", "next",
    "online", "opus", "plus", "preview", "reasoning", "reply", "scout", "scripted", "small", "sonnet", "step", "test",
    "thinking", "tiny", "tuned", "turbo", "ultra", "versatile", "vision",
}  # fmt: skip
"""Words in the names of many models, and everyday ones."""
_ADDRESS = re.compile(r"@[a-z]+://.*\Z")
_AROUND = re.compile(r"\A[a-z][a-z_-]*:|\.(?:gguf|json)\Z")
"""The provider before a model's own name, and the suffix of a file."""
_WORD = re.compile(r"[a-z]{4,}")
_LETTER = r"[a-z\u00df-\u024f]"
"""A Latin letter in lower case: names stand beside letters of other scripts without a blank."""
_SENTENCE = re.compile(r"[.!?](?=\s)|[\n\u3002\uff01\uff1f]")
_SELF = re.compile(
    r"\b(?:i|i['\u2019]m|me|my|myself|ich|je|soy|sono|sou|chatbot)\b|\b(?:language|ai) (?:model|assistant)\b"
    r"|\A\W*(?:(?:made|created|developed|trained|built) )?by\b|sprachmodell|modelo de|mod\u00e8le de|\u6211|\u6a21\u578b"
)
"""Words of a sentence in which an answer speaks of itself."""
_INTRODUCED = (
    r"(?:(?:\bi am|\bi['\u2019]m)[^\w\n]+(?:the[^\w\n]+)?(?:called|named)|\bmy name is|\bcall me"
    r"|\b(?:made|created|developed|trained|built) by)[^\w\n]+(?:the[^\w\n]+)?"
)
"""Words before a name, however it is written: "my name is"."""
_IS = r"(?:\bi am|\bi['\u2019]m)[^\w\n]+(?:the[^\w\n]+)?"
"""Words before a name in capitals, or before any other word: "I'm Owl", "I'm happy to help"."""


def told_name(model: str, answer: str, prompt: str = "") -> str:
    """The name by which an answer tells that this model, or its maker, wrote it; empty if it does not.

    Names are in lower case. One that the prompt gives tells nothing.
    """
    said, asked = answer.casefold(), prompt.casefold()
    of_itself = "\n".join(each for each in _SENTENCE.split(answer) if _SELF.search(each.casefold()))
    known = {*_MAKERS, *(maker for makers in _MAKERS.values() for maker in makers)} - _EVERYDAY
    for name in identifying_names(model):
        if name in _TELLING or _is_id(name):
            tells = _stands(name, said)
        elif name in known:
            tells = _stands(name, of_itself.casefold()) or _stands(name, said, r"-?\d")
        else:
            tells = _is_introduced(name, of_itself)
        if tells and not _stands(name, asked):
            return name
    return ""


def identifying_names(model: str) -> list[str]:
    """Lower-case names that may tell a reader which model answers: its families, their makers, its own words and its id."""
    bare = _ADDRESS.sub("", model.casefold()).rstrip("/")
    own = _AROUND.sub("", bare.rpartition("/")[2])
    families = [family for family in _MAKERS if _stands(family, bare) or (len(family) > 4 and family in own)]
    makers = [maker for family in families for maker in _MAKERS[family]]
    words = [word for word in _WORD.findall(own) if word not in _PLAIN]
    return list(dict.fromkeys([*families, *makers, *words, *([own] if _is_id(own) else [])]))


def _is_introduced(name: str, text: str) -> bool:
    """True if the text gives this as a name."""
    word = rf"{re.escape(name)}(?!{_LETTER})"
    named = re.search(f"{_INTRODUCED}{word}", text, re.IGNORECASE)
    return named is not None or any(
        found[1][0].isupper() for found in re.finditer(rf"{_IS}({word})", text, re.IGNORECASE)
    )


def _is_id(name: str) -> bool:
    """True of the name of one model, such as `phi-4`: letters and digits, and not too short."""
    return len(name) > 3 and any(char.isalpha() for char in name) and any(char.isdigit() for char in name)


def _stands(name: str, text: str, then: str = "") -> bool:
    """True if the text has the name as a word; a version may follow, as in `qwen2.5`, but no letter."""
    after = then or (rf"(?!\d|{_LETTER})" if name[-1].isdigit() else rf"(?!{_LETTER})")
    return re.search(rf"(?<!\d)(?<!{_LETTER}){re.escape(name)}{after}", text) is not None
