"""The parts of the loop: the attempt while it runs, tool calls, journal, listener, budget, approval, concurrency."""
