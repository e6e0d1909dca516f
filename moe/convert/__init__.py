"""Hugging Face models in and out, family by family; sparse models from dense ones."""
