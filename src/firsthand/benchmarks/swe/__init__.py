"""Software tasks in SWE-bench's format: records and the agent's environment."""
