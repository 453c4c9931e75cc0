"""The verbs of the command line, by what they are about. Importing them imports click and the nouns only.

Everything else, such as Hydra, NumPy or torch, is imported inside the verb that needs it, so that `--help` is quick.
"""
