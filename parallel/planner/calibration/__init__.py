"""Kernel parameters from measured times: of the tables for cards; of a user's machine, `records/`."""
