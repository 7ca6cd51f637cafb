"""Tool calls in generated text: the streaming parser, and grammars for them."""
