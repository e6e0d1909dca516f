"""The token store's format: manifest, Arrow writer and reader, Megatron's .bin and .idx."""
