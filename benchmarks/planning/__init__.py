"""The planner joined with models, prices and laws."""
