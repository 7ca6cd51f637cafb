"""Search and cited answers over HTTP, beside OpenAI's interface."""
