#!/usr/bin/env python3
"""Compute an importance matrix from text: `medlocal imatrix` as a program of its own."""

import sys

from medlocal.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["imatrix", *sys.argv[1:]]))
