"""Conversations to a token store, by way of a chat template."""
