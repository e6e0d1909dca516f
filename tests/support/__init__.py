"""What tests share: fakes, small models and stores, groups of ranks, slow references."""
