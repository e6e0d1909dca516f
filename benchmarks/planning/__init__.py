"""Plans for people: the planner's numbers joined with models, prices and published runs."""
