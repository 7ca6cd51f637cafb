"""Answers with citations: evidence in a prompt, what a model may write, and the check of every quotation."""
