"""Variables by which users set options of their own sbatch commands; jobs of moescale take none."""

from collections.abc import Mapping

KEYS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_EXCLUSIVE": "exclusive",
    "SBATCH_GPUS_PER_NODE": "gpus_per_node",
    "SBATCH_MEM_PER_NODE": "memory",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_TIMELIMIT": "time",
}
"""The key of `[slurm]` that does what a variable does; others go into `extra`."""


def unused_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that is set here and not used, with the remedy."""
    names = sorted(
        name for name, value in environment.items() if name.startswith("SBATCH_") and value
    )
    return [
        f"{name}={environment[name]} is not used, as the job must be the same from every shell:"
        f" set slurm.{KEYS.get(name, 'extra')} in the experiment or the cluster file"
        for name in names
    ]
