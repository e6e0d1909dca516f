"""Runs on a cluster.

cli.py      `moe slurm`
job/        what will run, as text: job, plan, cluster profile, batch script
cluster/    talk to SLURM: the client, submission, control
views/      what users see: status, logs, accounting
errors.py   what this room raises
"""
