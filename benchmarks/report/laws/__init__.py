"""The page of `moe fit --html`: a law against its points, and what follows from it."""
