"""Passages in a prompt: fenced, numbered, with their provenance, and unable to pass for anything else.

The fence is a hash of the question and of all passages, so nobody who writes a document knows it, and the same request
renders the same prompt when it is resumed or replayed. Control tokens of chat templates inside a passage are broken by a
backslash; so is a fence, were it ever to occur. Passages stand in the user's turn, never in the system message.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from firsthand.retrieval.retriever import Hit
from firsthand.system.terminal import printable

FENCE_DIGITS = 16
_NAMED = (
    r"(?:reserved|extra_id|fim|jupyter|issue|commit|start|end|longcat|hy|h|tool|arg|function|audio|image|img|video|vision)_\w+|"
    r"SPECIAL_\d+|unused\w*|ctrl\d+|0x[0-9a-f]{2}|_(?:user|bot|system|start|end|pad)|file_?sep|filename|reponame|repo_name|"
    r"gh_stars|empty_output|role|minimax:\w+|function|functions|invoke|parameter|tool|thinking|escape|answer|observation|"
    r"response|commentary|AVAILABLE_TOOLS|image|audio|video|img|user|assistant|human|bot|eod|eot|eom|mask|cls|sep|pr"
)
"""Names of tokens in angle brackets, `<NAME>`, `</NAME>` or `<NAME=`, that are no tags of common HTML."""
_CONTROL = re.compile(
    r"<(?=\||｜|/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|tool_call|tool_response|tools|think|im_start|im_end|"
    r"passages?|untrusted|system|SYS|INST|sop|eop|seed:\w+|start_of_image|end_of_image|end_of_utterance|unused\d+|"
    r"begin_of_text|end_of_text|endoftext)\b|\w{1,30}\|>)"
    rf"|<(?=/?(?:{_NAMED})[>=])"
    r"|\[(?=\||/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|gMASK|IMG|unused\d+)\]|"
    r"(?-i:/?(?:SEP|CLS|MASK|PAD|UNK|BOS|EOS|END|BEGIN|PREFIX|SUFFIX|MIDDLE|MODEL_SETTINGS|REFERENCE_DOC_\d+|"
    r"(?:BEGIN|END|IMG|TOOL|AUDIO|STREAMING)_[A-Z_]+)\]))"
    r"|\](?=~(?:!?b|e)[\[\]])",
    re.IGNORECASE,
)
"""The first character of a control token of Llama, Mistral, Gemma, Qwen, DeepSeek, ChatML, GLM, EXAONE, Seed, MiniMax,
Hunyuan, LongCat, Nemotron, StarCoder, T5 and BERT vocabularies and templates, or of our marks."""


def escaped(text: str, fence: str = "") -> str:
    """The text with control tokens, and the fence, broken by a backslash."""
    text = _CONTROL.sub(lambda found: f"{found.group()}\\", text)
    return text.replace(fence, f"{fence[:1]}\\{fence[1:]}") if fence else text


def unescaped(text: str) -> str:
    """The text without the backslashes that `escaped` put in, for quotations that a model copied with them."""
    return re.sub(r"(?<=[<\[\]])\\", "", text)


def fence_of(question: str, texts: Sequence[str]) -> str:
    """16 hex digits that depend on the question and on every text."""
    digest = hashlib.sha256()
    for part in (question, *texts):
        digest.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:FENCE_DIGITS]


def rendered(question: str, hits: Sequence[Hit], labels: Sequence[str] = ()) -> str:
    """The passages of hits, numbered from 1, each with its document and its place between fences.

    `labels` name the places, such as `guide.md:12`; without them the document's id does.
    """
    labels = labels or [hit.chunk.document for hit in hits]
    fence = fence_of(question, [hit.chunk.text for hit in hits])
    parts = []
    for number, (hit, label) in enumerate(zip(hits, labels, strict=True), 1):
        heading = f", {_one_line(hit.chunk.heading, fence)}" if hit.chunk.heading else ""
        parts.append(
            f"<passage {number} {fence}> from {_one_line(label, fence)}{heading}\n{escaped(hit.chunk.text, fence)}\n"
            f"</passage {number} {fence}>"
        )
    return "\n".join(parts)


def _one_line(text: str, fence: str) -> str:
    return escaped(printable(" ".join(text.split()))[:200], fence)
