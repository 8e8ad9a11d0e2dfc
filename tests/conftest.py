"""What tests share: the demo model, got through the code that a user runs."""

import os
import shutil
from pathlib import Path

import pytest

from medlocal.catalog import model_card
from medlocal.errors import MissingError
from medlocal.hub import pull_model
from medlocal.settings import Settings, load_settings

DEMO = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def weights_settings() -> Settings:
    """The workspace that keeps the weights: the user's own, so that nothing is fetched twice."""
    return load_settings()


@pytest.fixture(scope="session")
def demo_model(weights_settings: Settings) -> Path:
    """The demo model's GGUF. Where it cannot be had the test is skipped, in CI it fails."""
    try:
        return pull_model(model_card(DEMO), weights_settings).path
    except MissingError as error:
        if os.environ.get("MEDLOCAL_REQUIRE_WEIGHTS"):
            raise
        pytest.skip(f"the demo model is not here: {error.message}")


@pytest.fixture
def workspace(tmp_path: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own that sees the pulled weights."""
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / DEMO).symlink_to(demo_model.parent, target_is_directory=True)
    # Where the demo model has passed the gate already, it need not be loaded once more per test.
    if (gate := demo_model.parents[2] / "gate.json").is_file():
        shutil.copy2(gate, home)
    monkeypatch.setenv("MEDLOCAL_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of original data sets, which `MEDLOCAL_SHARED_DATA` names or lies beside us.

    Where it is not there the test is skipped; where the variable names a folder that is not there,
    it fails.
    """
    named = os.environ.get("MEDLOCAL_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if named:
        assert folder.is_dir(), f"MEDLOCAL_SHARED_DATA names {folder}, which is no folder"
    elif not folder.is_dir():
        pytest.skip(f"the original data sets are not here: {folder}")
    return folder
