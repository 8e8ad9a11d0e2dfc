#!/usr/bin/env python3
"""Convert a Llama or Mistral checkpoint in Hugging Face form to GGUF: `medlocal convert`.

    python tools/convert.py SRC OUT [--type f16|bf16|f32|q8_0|auto] [--pre NAME] [--force] [--json]

The same command with the same arguments, for whoever works in a checkout.
"""

import sys

from medlocal.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["convert", *sys.argv[1:]]))
