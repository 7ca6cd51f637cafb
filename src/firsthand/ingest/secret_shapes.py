"""The shapes of keys and tokens that are known by their beginning, whatever name they stand under.

Keys without a beginning of their own (Azure, Cohere, Mistral AI, Discord, Mailchimp, AWS secret keys), and those of services
that `key_beginnings.py` does not list, are known by the name beside them alone.
"""

from __future__ import annotations

import re

from firsthand.ingest.key_beginnings import BEGINNINGS


def _shape(head: str, rest: str) -> str:
    """A pattern of what begins with `head`, of one length, where no word goes on: an escape before it is none."""
    begun = (r"(?<![A-Za-z0-9]{})", r"(?<=\\[nrtbf]{})", r"(?<=%[0-9A-Fa-f]{{2}}{})", r"(?<=\\u[0-9A-Fa-f]{{4}}{})",
             r"(?<=\[[0-9]m{})", r"(?<=\[[0-9]{{2}}m{})")  # fmt: skip
    return f"{head}(?:{'|'.join(each.format(head) for each in begun)}){rest}"


SHAPES: dict[str, tuple[tuple[str, ...], str]] = {
    "PEM key": (
        ("PRIVATE KEY-----", "PRIVATE KEY BLOCK-----"),
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    ),
    "OpenAI, Anthropic": (("sk-",), _shape("sk-", r"[A-Za-z0-9_-]{16,}")),
    "Langfuse": (("sk-lf-", "pk-lf-"), _shape("[sp]k-lf-", r"[A-Za-z0-9-]{8,}")),
    "Stripe": (("_live_", "_test_"), _shape("[rs]k_(?:live|test)_", r"[A-Za-z0-9]{10,}")),
    "AWS key id": (("AKIA", "ASIA"), _shape("(?:AKIA|ASIA)", r"[A-Z0-9]{16}(?![A-Za-z0-9])")),
    "GitHub": (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _shape("gh[pousr]_", r"[A-Za-z0-9]{20,}")),
    "GitHub, fine-grained": (("github_pat_",), _shape("github_pat_", r"[A-Za-z0-9_]{20,}")),
    "GitLab": (("glpat-",), _shape("glpat-", r"[A-Za-z0-9_-]{16,}")),
    "Slack": (("xox",), _shape("xox[abeoprs]-", r"[A-Za-z0-9-]{10,}")),
    "Google": (("AIza",), _shape("AIza", r"[A-Za-z0-9_-]{30,}")),
    "Hugging Face": (("hf_",), _shape("hf_", r"[A-Za-z0-9]{20,}")),
    "npm": (("npm_",), _shape("npm_", r"[A-Za-z0-9]{30,}")),
    "PyPI": (("pypi-",), _shape("pypi-", r"[A-Za-z0-9_-]{30,}")),
    "Groq": (("gsk_",), _shape("gsk_", r"[A-Za-z0-9]{30,}")),
    "xAI": (("xai-",), _shape("xai-", r"[A-Za-z0-9]{30,}")),
    "NVIDIA": (("nvapi-",), _shape("nvapi-", r"[A-Za-z0-9_-]{30,}")),
    "Perplexity": (("pplx-",), _shape("pplx-", r"[A-Za-z0-9]{30,}")),
    "Tavily": (("tvly-",), _shape("tvly-", r"[A-Za-z0-9-]{20,}")),
    "Replicate": (("r8_",), _shape("r8_", r"[A-Za-z0-9]{30,}")),
    "LangSmith": (("lsv2_",), _shape("lsv2_(?:pt|sk)_", r"[A-Za-z0-9_]{30,}")),
    "SendGrid": (("SG.",), _shape(r"SG\.", r"[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{30,}")),
    "Docker Hub": (("dckr_",), _shape("dckr_[op]at_", r"[A-Za-z0-9_-]{20,}")),
    "DigitalOcean": (("_v1_",), _shape("do[opr]_v1_", r"[a-f0-9]{30,}")),
    "age": (("AGE-SECRET-KEY-1",), _shape("AGE-SECRET-KEY-1", r"[A-Z0-9]{30,}")),
    "Slack, address of a hook": (
        ("hooks.slack.com",),
        r"(?:(?<=hooks\.slack\.com/services)|(?<=hooks\.slack\.com/triggers)|(?<=hooks\.slack\.com/workflows)"
        r"|(?<=hooks\.slack\.com\\/services))(?:\\?/[A-Za-z0-9]+){3,}",
    ),
    "Telegram": ((":AA",), r"(?<![0-9])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
    "Terraform": ((".atlasv1.",), r"(?<![A-Za-z0-9])[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,}"),
    **{
        f"{service} by its beginning": (heads, "|".join(_shape(re.escape(head), rest) for head in heads))
        for service, (heads, rest) in BEGINNINGS.items()
    },
    "JSON web token": (("eyJ",), _shape("eyJ", r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
    "password in a URL": (
        ("://", ":\\", "%3"),
        r"(?i)(?:(?<=://)|(?<=:\\/\\/)|(?<=:\\\\/\\\\/)|(?<=%3a%2f%2f))[^\s/@:\[\"'\\]{0,200}(?::|%3a)(?![0-9]{1,5}[/?#])"
        r"(?:[^\s/?#\"'\\]{1,400}|[^\s@\"'\\]{1,400})(?=@|%40)",
    ),
}  # fmt: skip
"""Kind of secret -> texts one of which it contains, and its pattern. Patterns take time linear in the text."""
