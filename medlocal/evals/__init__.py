"""The evaluation: items, variants, prompts, formats, grading, planning, scores. Pure functions.

Nothing here knows of engines, stores or screens.
"""
