"""Commands that score and compare what runs left; they may import all but cli."""
