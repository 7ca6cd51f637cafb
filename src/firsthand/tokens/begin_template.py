"""The post-processor of a tokenizer.json that puts one token before each text, as `add_bos_token` says here.

transformers reads `add_bos_token` for few classes of tokenizers, and of others does what this template says.
"""

from __future__ import annotations

from firsthand.message import Json


def begin_template(text: str, id: int) -> Json:
    """The template `TOKEN $A` of the library `tokenizers`, and of two texts `TOKEN $A TOKEN $B`."""
    first, second = (
        [{"SpecialToken": {"id": text, "type_id": place}}, {"Sequence": {"id": name, "type_id": place}}]
        for place, name in enumerate("AB")
    )
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": first + second,
        "special_tokens": {text: {"id": text, "ids": [id], "tokens": [text]}},
    }
