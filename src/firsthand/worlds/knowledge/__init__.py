"""A knowledge graph that is asked by AgentBench's seven functions: the triples, a generator, and the questions."""
