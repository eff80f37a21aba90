"""From a recipe to a saved run: the one sequence both stages go through. Imports hub, training and what lies below."""
