import os
from pathlib import Path

import pytest

DEFAULT = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def llama_vocab() -> Path:
    """The folder of llama.cpp's vocabularies, which lies beside the checkout or nowhere."""
    folder = Path(os.environ.get("MEDLOCAL_SHARED_DATA", DEFAULT)) / "llama_vocab"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}: set MEDLOCAL_SHARED_DATA")
    return folder
