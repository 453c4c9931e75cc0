"""Normalising flows, in discrete steps."""
