"""How an agent thinks: a file is a pattern, a plain async function named after it."""
