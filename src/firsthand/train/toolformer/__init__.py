"""Toolformer's data: calls that a model proposes in texts, kept where their results help it to predict what follows."""
