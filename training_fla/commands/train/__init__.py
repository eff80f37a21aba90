"""Commands that train; they may import all but cli."""
