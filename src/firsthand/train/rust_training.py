"""Trains a vocabulary with the library `tokenizers`, on words of bounded length, so that a signal ends it.

The library's time grows with the square of a word's length, and it hears no signals: it works in a thread of its own, for
which nobody waits once the command was interrupted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from contextvars import copy_context
from typing import Any

from tokenizers import Regex, pre_tokenizers

from firsthand.tokens.begin_template import begin_template

MAX_WORD = 256
"""Characters of a word, as the pre-tokeniser cuts it; what is longer is learned from in pieces."""
_PIECE = Regex(rf"[\s\S]{{1,{MAX_WORD}}}")


def train(rust: Any, texts: Iterable[str], trainer: Any, *, words: bool = True) -> None:
    """Train the model of a tokenizer of `tokenizers`; its own pre-tokeniser, which is saved with it, stays as it is.

    Without `words` the pre-tokeniser's pieces are learned from whole, as those of several words are.
    """
    own, raised = rust.pre_tokenizer, list[BaseException]()
    if words:
        rust.pre_tokenizer = pre_tokenizers.Sequence([own, pre_tokenizers.Split(_PIECE, "isolated")])

    def work() -> None:
        try:
            rust.train_from_iterator(texts, trainer)
        except BaseException as error:  # a Rust panic is not an Exception
            raised.append(error)

    thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    thread.start()
    thread.join()
    rust.pre_tokenizer = own
    if raised:
        raise raised[0]


def tokenizer_json(rust: Any, begin: str) -> str:
    """The text of tokenizer.json, whose post-processor puts the token `begin` before each text."""
    processor = begin_template(begin, rust.token_to_id(begin))
    return json.dumps(json.loads(rust.to_str()) | {"post_processor": processor}, indent=2, ensure_ascii=False)
