"""What a program's release settles of a row's flags."""

import pytest

from parallel.planner.validation.frameworks import settled

BEFORE_FOLDING = {"ep_overlap": "off", "dispatcher": "alltoall", "etp": 4}


@pytest.mark.parametrize(
    ("framework", "expected"),
    [
        ("megatron-core 0.8", BEFORE_FOLDING),
        ("megatron-core 2024-11", BEFORE_FOLDING),
        ("megatron-core 0.10.1", {"ep_overlap": "off", "dispatcher": "alltoall"}),
        ("NeMo 24.07", BEFORE_FOLDING),
        ("NeMo 25.02", {"ep_overlap": "off"}),
        ("megatron-core 0.13", {"ep_overlap": "off"}),
        ("Megatron-Bridge 0.4.2 (megatron-core 0.17.1)", {}),
        ("Megatron-Bridge (NeMo 25.09)", {}),
        ("Megatron-Bridge (2026-07/08)", {}),
        ("Megatron-LM dev", {}),
        ("", {}),
    ],
)
def test_releases_settle_what_they_did_not_have(
    framework: str, expected: dict[str, str | int]
) -> None:
    assert settled(framework, 4) == expected


def test_a_program_that_is_known_by_name_adds_its_own_choices() -> None:
    of_pai = settled("Megatron-LM (Pai-Megatron-Patch 2b201af)", 2)
    assert of_pai == {"dispatcher": "alltoall", "vpp": 1, "ep_overlap": "off"}
