"""OpenAI's interface: its routes and the schemas of their bodies."""
