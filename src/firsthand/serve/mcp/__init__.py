"""An MCP server: tools, retrieval indexes, benchmarks and agents of this package for any MCP client (docs/mcp.md)."""
