"""What a document must pass: filters, personal data, decontamination, near duplicates."""
