"""Feature extractors: small classifiers that scripts/train_extractor.py trained, shipped as package data."""
