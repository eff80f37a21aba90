"""The page of `fla serve` and its copy as a Hugging Face Space. Imports viewing, hub, files and what travels."""
