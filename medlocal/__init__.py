"""medlocal: evaluate general and clinical language models on this machine, with llama.cpp.

Importing the package does nothing but define the version: no engine, no network, no data.
"""

__version__ = "0.1.0"
