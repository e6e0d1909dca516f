"""Step Law: the peak learning rate and the batch that runs of a size learn best with.

Li et al. 2025 (arXiv 2503.04715), coefficients by a secondary source. That N is all parameters
without embeddings, of sparse models too, was checked on the 33 optima of the authors' own sweeps.
"""

import math

SOURCE = "Step Law (arXiv 2503.04715)"
RATE_RULE = f"{SOURCE}: 1.79 N^-0.713 D^0.307, N without embeddings"
BATCH_RULE = f"{SOURCE}: 0.58 D^0.571 tokens"


def step_law_learning_rate(non_embedding_parameters: float, tokens: float) -> float:
    """Return the peak learning rate for all parameters without embeddings, and training tokens."""
    return 1.79 * math.pow(non_embedding_parameters, -0.713) * math.pow(tokens, 0.307)


def step_law_batch_tokens(tokens: float) -> float:
    """Return the tokens of an optimizer step for so many training tokens."""
    return 0.58 * math.pow(tokens, 0.571)
