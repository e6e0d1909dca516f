"""To how many ranks or nodes the experts of one token belong, with even routing."""

from math import comb

from parallel.errors import ParallelError


def expected_bins(
    bins: int, experts: int, top_k: int, groups: int = 1, groups_per_token: int = 1
) -> float:
    """Return the expected number of different bins (ranks, nodes) among a token's experts.

    Experts lie evenly in order. A router limited to groups chooses `groups_per_token` of `groups`
    first, then `top_k` experts in them (DeepSeek-V3, arXiv:2412.19437, 2.1.2), each with equal
    chances and none twice.

    Args:
        bins: Ranks or nodes that share the experts.
        experts: Routed experts.
        top_k: Experts of a token.
        groups: Groups of experts; 1 without limit.
        groups_per_token: Groups that a token may reach.
    """
    if min(bins, experts, top_k, groups, groups_per_token) < 1 or experts % bins:
        raise ParallelError(
            f"bins {bins}, experts {experts}, top_k {top_k}, groups {groups}: counts of at least "
            "1, and experts in equal parts"
        )
    if experts % groups or groups_per_token > groups:
        raise ParallelError(
            f"groups {groups}, groups_per_token {groups_per_token}: experts ({experts}) must be in "
            "equal groups, and no more groups chosen than there are"
        )
    in_group = experts // groups
    open_experts = in_group * groups_per_token
    if top_k > open_experts:
        raise ParallelError(
            f"top_k {top_k}: more than the {open_experts} experts of {groups_per_token} groups"
        )
    in_bin = experts // bins
    return bins * (1.0 - _missed(in_bin, in_group, groups, groups_per_token, top_k))


def _missed(in_bin: int, in_group: int, groups: int, chosen: int, top_k: int) -> float:
    """Return the probability that none of a token's experts is in one bin."""
    if in_bin < in_group:
        # The bin is a part of one group, taken to lie in one.
        parts = {0: 1.0 - chosen / groups, 1: chosen / groups}
        size = in_bin
    else:
        held = in_bin // in_group
        size = in_group
        ways = comb(groups, chosen)
        parts = {
            hit: comb(held, hit) * comb(groups - held, chosen - hit) / ways
            for hit in range(max(0, chosen - groups + held), min(held, chosen) + 1)
        }
    total = in_group * chosen
    all_ways = comb(total, top_k)
    return sum(chance * comb(total - hit * size, top_k) / all_ways for hit, chance in parts.items())
