"""Templates whose steps are counted."""

from __future__ import annotations

from typing import Any

from firsthand.tokens.templates.render_budget import MAX_STEPS
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate


def environment() -> Any:
    """The sandbox of an empty template."""
    return SandboxedTemplate("")._environment


def steps_of(source: str, **variables: Any) -> tuple[str, int]:
    """What a template renders, and the steps that it takes."""
    template = SandboxedTemplate(source)
    budget = template._environment._budget
    budget.start(variables)
    text = template._compiled.render(variables)
    return text, MAX_STEPS - budget._steps
