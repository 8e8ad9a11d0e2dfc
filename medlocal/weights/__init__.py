"""Weights on disk: what a GGUF file says about itself, and how its model wants to be spoken to.

`inspect` reads the header and refuses what is broken, `template` renders chat prompts. Nothing here
runs a model.
"""
