"""What happens before the first step: checks, claiming the run, building the trainer."""
