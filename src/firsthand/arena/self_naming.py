"""Finds answers that tell which model wrote them: by its name, its family's, or its maker's.

Many of these names are everyday words too. `qwen` or `OpenAI` tells a reader wherever it stands; `Claude`, `phi` or
`Google` only with a version (`phi-4`) or in a sentence in which the answer speaks of itself. Any other word of a model's
name tells where the answer gives it as its name: behind "I am" with a capital letter, since "I am happy to help" is no name.
Words such as `large`, `flash` or `coder`, and the provider or address by which a model is reached, tell nothing.

A name is found as a reader sees it: with letters that look alike or characters that are drawn as nothing, and if it has
more than three letters also between marks of Markdown or spelled letter by letter. Nicknames, translations beyond those
listed, and hints are not found; nor is every question after the author of an answer.
"""

from __future__ import annotations

import html
import re

from firsthand.system.normalised_text import normalised_text
from firsthand.system.unseen_letters import without_unseen

_MAKERS: dict[str, tuple[str, ...]] = {
    "aya": ("cohere",), "bloom": ("bigscience",), "chatgpt": ("openai",), "chatglm": ("zhipu",), "claude": ("anthropic",),
    "codestral": ("mistral ai",), "command": ("cohere",), "dbrx": ("databricks",), "deepseek": ("deepseek", "深度求索"),
    "doubao": ("bytedance", "豆包", "字节跳动"), "ernie": ("baidu", "文心一言", "百度"),
    "exaone": (), "falcon": (), "gemini": ("google",), "gemma": ("google",),
    "glm": ("zhipu", "智谱"), "gpt": ("openai", "chatgpt"), "granite": ("ibm",), "grok": ("xai",),
    "hermes": ("nous research",),
    "hunyuan": ("tencent", "混元", "腾讯"), "internlm": (), "jamba": ("ai21",), "kimi": ("moonshot ai",),
    "llama": ("meta ai", "meta"),
    "magistral": ("mistral ai",), "minimax": (), "ministral": ("mistral ai",), "mistral": ("mistral ai",),
    "mixtral": ("mistral ai",), "nemotron": ("nvidia",), "nova": ("amazon",), "o1": ("openai", "chatgpt"),
    "o3": ("openai", "chatgpt"), "o4": ("openai", "chatgpt"), "olmo": ("allen institute",),
    "phi": ("microsoft",), "pixtral": ("mistral ai",),
    "pythia": ("eleutherai",), "qwen": ("alibaba", "qianwen", "千问", "阿里"),
    "qwq": ("qwen", "alibaba", "qianwen", "千问", "阿里"),
    "smollm": ("hugging face",),
    "stablelm": ("stability ai",), "vicuna": (), "yi": ("01.ai",), "zephyr": ("hugging face",),
}  # fmt: skip
"""The families of models that are known by name, each with its makers."""
_TELLING = {
    "ai21", "anthropic", "bigscience", "chatgpt", "chatglm", "codestral", "dbrx", "deepseek", "doubao", "eleutherai",
    "exaone", "hugging face", "hunyuan", "internlm", "jamba", "magistral", "meta ai", "ministral", "mistral ai", "mixtral",
    "moonshot ai", "nemotron", "nous research", "olmo", "openai", "pixtral", "qianwen", "qwen", "qwq", "smollm",
    "stability ai",
    "stablelm", "xai", "zhipu", "千问", "文心一言", "深度求索",
}  # fmt: skip
"""Names that are no everyday words: they tell wherever they stand."""
_EVERYDAY = {
    "aya", "bloom", "command", "falcon", "granite", "hermes", "meta", "nova", "yi",
    "字节跳动", "混元", "百度", "腾讯", "阿里",
}  # fmt: skip
"""Names that also stand in sentences about oneself, such as "I added a meta tag", or in other words, such as 阿里山: they
tell where they are introduced."""
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
_LETTER = r"[a-z\u00df-\u024f\u0370-\u052f]"
"""A letter in lower case of Latin, Greek or Cyrillic: names stand beside Chinese without a blank."""
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
_OF = r"(?:\u6211[\u662f\u53eb]|\u7531|\u6765\u81ea)"
"""Words before a name in Chinese: "I am", "I am called", "by" and "from"."""
_AS = r"\bas[^\w\n]+"
"""Words before a name behind which the answer speaks: "as Qwen, I"."""
_IS = r"(?:\bi am|\bi['\u2019]m)[^\w\n]+(?:the[^\w\n]+)?"
"""Words before a name in capitals, or before any other word: "I'm Owl", "I'm happy to help"."""

_KNOWN = {*_MAKERS, *(maker for makers in _MAKERS.values() for maker in makers)} - _EVERYDAY
_FAMILIES = "|".join(sorted(map(re.escape, {*_MAKERS} | _KNOWN), key=len, reverse=True))
_ARE_YOU = re.compile(
    r"(?:(?<!\bhow )(?<!\bwhere )\bare you|\baren['\u2019]t you)\b"
    r"(?:[^\w\n.!?]+(?:an?|the|of|from|by|with|made|created|developed|trained|built|called|named|model|really|perhaps|maybe"
    r"|actually|chance|not|or|and|one|either|based|on|\d[\w.]*"
    rf"|(?:{_FAMILIES})[\d.]*)"
    r"(?!\w)){0,12}(?:[^\w\n.!?]+\w[\w.-]*)?"
    r"|\u4f60[\u662f\u53eb][^\n\u3002]{1,40}[?\u5417]"
)
"""A question after the author of the answer, with the names in it, and one word that may be a name."""
_WHO = re.compile(
    r"\b(?:who|what) are you(?=[^\w\n]*(?:[.,:;!?\n]|really\b|exactly\b|based on\b))|\bwhich(?: \w+){0,3} are you\b"
    r"|\bwhat(?: \w+){0,2} model are you\b|\b(?:which|what)(?: \w+){0,2} model is this(?!\s+\w)"
    r"|\bwhat(?: is|['\u2019]s) your name\b|\bwho (?:made|created|developed|trained|built) you\b"
    r"|\u4f60\u662f\u8c01|\u4f60\u53eb\u4ec0\u4e48"
)
"""A question after the author of the answer without a name in it."""
_EMPHASIS = re.compile(r"[*_`~]+")
_SPELLED = re.compile(r"(?<!\w)[^\W\d_]([-. \u00b7])[^\W\d_](?:\1[^\W\d_])+(?!\w)")
"""A word with a sign between each two letters."""
_ALIKE = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u04bb\u051b\u051d"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405\u04ba\u051a\u051c"
    "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f"
    "\u03a1\u03a4\u03a5\u03a7\u0131\u0261",
    "abekmhopctyxijshqwABEKMHOPCTYXIJSHQWaikvoptuxABEHIKMNOPTYXig",
)
"""Letters of Cyrillic and Greek that look like Latin ones, and what each looks like."""


def told_name(model: str, answer: str, prompt: str = "") -> str:
    """The name by which an answer tells that this model, or its maker, wrote it; empty if it does not.

    Names are in lower case. One that the prompt gives tells nothing, unless the answer introduces itself by it ("I am
    Qwen"), or the prompt asks the answer whether it is that ("Are you Qwen?"). Where the prompt asks who answers ("What is
    your name?") a family or maker tells wherever it stands.
    """
    seen, asked = as_seen(answer), f"{prompt}\n{as_seen(prompt)}".casefold()
    asks_who = _WHO.search(asked) is not None
    for name in identifying_names(model):
        if (_is_telling(name) or name in _KNOWN) and _is_asked_for(name, asked):
            return name
        is_given = _stands(name, asked)
        # short names arise from letters that stand apart: x*a*i
        for text in (answer, seen if len(name) > 3 else _in_plain_letters(answer)):
            if asks_who and (_is_telling(name) or name in _KNOWN) and _stands(name, text.casefold()):
                return name
            if _tells(name, text) and (not is_given or _is_introduced(name, _of_itself(text), _is_telling(name))):
                return name
    return ""


def as_seen(text: str) -> str:
    """The text in the letters that a reader takes it for: without unseen characters and Markdown's marks of emphasis."""
    plain = _EMPHASIS.sub("", _in_plain_letters(text))
    return _SPELLED.sub(lambda found: found[0].replace(found[1], ""), plain)


def _in_plain_letters(text: str) -> str:
    return without_unseen(normalised_text("NFKC", html.unescape(text))).translate(_ALIKE)


def _tells(name: str, text: str) -> bool:
    said = text.casefold()
    if _is_telling(name):
        return _stands(name, said)
    if name in _KNOWN:
        return _stands(name, _of_itself(text).casefold()) or _stands(name, said, r"-?\d")
    return _is_introduced(name, _of_itself(text))


def _is_telling(name: str) -> bool:
    return name in _TELLING or _is_id(name)


def _of_itself(text: str) -> str:
    """The sentences in which the text speaks of its author."""
    return "\n".join(each for each in _SENTENCE.split(text) if _SELF.search(each.casefold()))


def _is_asked_for(name: str, asked: str) -> bool:
    """True if a prompt asks whether this answers, as in "Are you Qwen or Llama?": any answer may tell."""
    return any(_stands(name, found[0]) for found in _ARE_YOU.finditer(asked))


def identifying_names(model: str) -> list[str]:
    """Lower-case names that may tell a reader which model answers: its families, their makers, its own words and its id."""
    bare = _ADDRESS.sub("", model.casefold()).rstrip("/")
    own = _AROUND.sub("", bare.rpartition("/")[2])
    families = [family for family in _MAKERS if _stands(family, bare) or (len(family) > 4 and family in own)]
    makers = [maker for family in families for maker in _MAKERS[family]]
    words = [word for word in _WORD.findall(own) if word not in _PLAIN]
    return list(dict.fromkeys([*families, *makers, *words, *([own] if _is_id(own) else [])]))


def _is_introduced(name: str, text: str, in_any_case: bool = False) -> bool:
    """True if the text gives this as a name; `in_any_case` if it is no everyday word."""
    word = rf"{re.escape(name)}(?!{_LETTER})"
    if re.search(rf"{_INTRODUCED}{word}|{_OF}[^\w\n]*{word}", text, re.IGNORECASE):
        return True
    spoken = re.finditer(rf"{_IS}({word})|{_AS}({word})[^\w\n]+i\b", text, re.IGNORECASE)
    return any(in_any_case or (found[1] or found[2])[0].isupper() for found in spoken)


def _is_id(name: str) -> bool:
    """True of the name of one model, such as `phi-4`: letters and digits, and not too short."""
    return len(name) > 3 and any(char.isalpha() for char in name) and any(char.isdigit() for char in name)


def _stands(name: str, text: str, then: str = "") -> bool:
    """True if the text has the name as a word; a version may follow, as in `qwen2.5`, but no letter."""
    after = then or (rf"(?!\d|{_LETTER})" if name[-1].isdigit() else rf"(?!{_LETTER})")
    return re.search(rf"(?<!\d)(?<!{_LETTER}){re.escape(name)}{after}", text) is not None
