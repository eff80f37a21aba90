"""What other people see of a model. Imports every other room."""
