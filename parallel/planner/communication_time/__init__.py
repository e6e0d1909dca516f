"""Seconds of communication: collectives, expert exchange, and what compute hides of them."""
