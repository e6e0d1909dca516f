"""Parameters, FLOPs and bytes of a model by component, and its shape for layouts and planner."""
