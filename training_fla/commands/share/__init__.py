"""Commands that show a model to other people: upload and page; they may import all but cli."""
