"""The arena: battles between agents, ratings with honest intervals, and leaderboards made of them."""
