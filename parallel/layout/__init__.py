"""Layouts as pure arithmetic: ranks, groups, divisibility, and the shape of a model they divide."""
