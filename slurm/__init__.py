"""Batch jobs on a SLURM cluster: submit, survive, account."""
