"""Tool calls in generated text: parsed while the text comes in, and their grammars."""
