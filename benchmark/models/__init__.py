"""Generative models, one file each, in a folder for each family."""
