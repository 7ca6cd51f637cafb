"""Anthropic's Messages API over the chats of `serve/openai`: schema, route, stream and errors."""
