"""Clark et al.'s saturating transformation of a number of experts (arXiv 2202.01169)."""

from typing import Any


def saturated(experts: Any, start: Any, ceiling: Any) -> Any:
    """Return E^ with 1/E^ = 1/(E - 1 + (1/E_start - 1/E_max)^-1) + 1/E_max.

    It is E_start for one expert, grows as E, and ends at E_max. Ling et al. 2025 use the same of an
    activation ratio A without the "- 1": pass A + 1.
    """
    shifted = experts - 1 + 1 / (1 / start - 1 / ceiling)
    return 1 / (1 / shifted + 1 / ceiling)
