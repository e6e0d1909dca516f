"""Routing decisions: statistics, maps by source, specialization of experts, record and replay."""
