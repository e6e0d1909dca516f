"""Number formats, FP8 recipes, and which cards and sizes support them."""
