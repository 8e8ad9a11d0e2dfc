#!/usr/bin/env python3
"""Quantise a GGUF: `medlocal quantize` as a program of its own."""

import sys

from medlocal.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["quantize", *sys.argv[1:]]))
