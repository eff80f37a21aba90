"""From a recipe to a saved run, in one sequence for both stages; it may import hub and what lies below."""
