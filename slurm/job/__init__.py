"""What will run, as text and without side effects: job, plan, cluster profile, batch script."""
