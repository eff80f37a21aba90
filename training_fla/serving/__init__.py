"""The page of `fla serve`, and its copy as a Hugging Face Space; it may import viewing and what lies below."""
