"""Training: the loop, the trainer of a step, objectives, optimizer, guards and logs."""
