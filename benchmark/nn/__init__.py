"""Blocks that models are written on: they know integers and tensors, never a specification."""
