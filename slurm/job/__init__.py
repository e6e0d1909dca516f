"""What will run, as text and without side effects: job, plan, site profile, batch script."""
