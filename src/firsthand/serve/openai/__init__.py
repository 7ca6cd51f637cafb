"""OpenAI's interface: routes and the shapes of their bodies."""
