"""A client of MCP servers: their tools, resources and prompts become tools of an agent (docs/mcp.md)."""
