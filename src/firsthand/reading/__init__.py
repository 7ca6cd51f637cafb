"""The reading list as data, and the tour: papers, patterns, benchmarks and blogs, each linked to the code that implements it."""
