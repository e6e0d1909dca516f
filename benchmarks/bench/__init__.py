"""Timed parts of training and inference, and what imposes or measures their conditions."""
