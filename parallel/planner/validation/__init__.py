"""The planner against published training steps: rows, what they say ran, and the errors."""
