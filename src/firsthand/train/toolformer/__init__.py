"""Toolformer's data: calls that a model proposes in plain texts, kept where their results help it to predict what follows."""
