"""Studies: the drawn corpus, the demo, the paper's tables, dominance; they may import all but commands and cli."""
