"""Number formats and kernel sets, FP8 recipes, and which cards and sizes support them."""
