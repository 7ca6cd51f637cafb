"""Topics of messages, such as `orders.paid.eu`, and patterns over them: `*` is one word, `>` at the end all further ones."""

from __future__ import annotations

import re
from functools import lru_cache

from firsthand.errors import ConfigError

MAX_CHARS = 200
_PART = re.compile(r"[\w-]+")


def check_topic(topic: str) -> str:
    """The topic; ConfigError if it is none."""
    if len(topic) > MAX_CHARS or not all(_PART.fullmatch(part) for part in topic.split(".")):
        raise ConfigError(
            f"the topic is {topic[:60]!r}: words of letters, digits, _ and - with dots between are expected"
        )
    return topic


@lru_cache(maxsize=1000)
def topic_pattern(pattern: str) -> re.Pattern[str]:
    """The expression that matches the topics of a pattern; ConfigError if it is none."""
    parts = pattern.split(".")
    last = len(parts) - 1
    good = all(
        part == "*" or (part == ">" and place == last) or _PART.fullmatch(part) for place, part in enumerate(parts)
    )
    if len(pattern) > MAX_CHARS or not good:
        raise ConfigError(
            f"the pattern of topics is {pattern[:60]!r}: words with dots between are expected, * for one word, > at the end "
            "for all further ones"
        )
    words = [r"[\w-]+" if part == "*" else r"[\w-]+(?:\.[\w-]+)*" if part == ">" else re.escape(part) for part in parts]
    return re.compile(r"\.".join(words))
