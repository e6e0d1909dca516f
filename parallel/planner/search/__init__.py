"""The layouts that a model can run in on a number of cards, and the best of them."""
