"""Talk to SLURM: the client, a submission's folder, submitting and controlling jobs."""
