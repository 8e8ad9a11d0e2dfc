"""The engine: requests of token ids in, completions out, with every shared token computed once.

`sequence` holds the plain types, `tree` finds what prompts share, `batching` decides what runs
next, `constraint` turns a grammar into allowed tokens, `llama` is the seam to llama.cpp, `engine`
is the loop. Nothing here knows what a question is, or what an answer means.
"""
