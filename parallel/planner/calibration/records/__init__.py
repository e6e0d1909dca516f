"""A card of the user's own machine, from records of `moe bench`."""
