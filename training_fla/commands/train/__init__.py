"""Commands that train, score and compare runs; they may import all but cli."""
