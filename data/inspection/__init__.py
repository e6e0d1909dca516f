"""A look at a store: a summary in numbers, and a page."""
