"""Serving a model of ours: token ids in, token ids and log-probs out, many requests at once. It knows no text."""
