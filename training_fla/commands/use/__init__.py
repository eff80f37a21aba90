"""Commands that turn a clip into a sentence or a picture; they may import all but cli."""
