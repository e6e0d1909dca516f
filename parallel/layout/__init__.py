"""Layouts as pure arithmetic: ranks, groups, divisibility, and the model shape they divide."""
