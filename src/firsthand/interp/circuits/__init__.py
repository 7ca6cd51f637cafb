"""Causal methods on parts of a model: patching, induction heads, causal scrubbing."""
