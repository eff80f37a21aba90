"""Studies: the drawn corpus, the demo, the paper's tables, dominance. Not in the wheel; imports all but commands."""
