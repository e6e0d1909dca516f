"""Power samples that another device logged, and the joules under them."""
