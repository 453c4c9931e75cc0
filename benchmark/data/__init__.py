"""Datasets: one file a modality, fixed splits, checksums, integer batches."""
