"""What an agent may call: a file is a tool, named after it."""
