"""Models on this machine: getting them, finding them, checking them.

The only package that may use the network, and it does so in `pull_model` alone.
"""

from medlocal.files import Progress, file_sha256
from medlocal.hub.huggingface import HubClient, HuggingFace, Listing, RemoteFile
from medlocal.hub.pull import pull_model
from medlocal.hub.receipts import (
    PulledModel,
    find_model,
    is_path,
    pulled_model,
    verify_model,
)

__all__ = [
    "HubClient",
    "HuggingFace",
    "Listing",
    "Progress",
    "PulledModel",
    "RemoteFile",
    "file_sha256",
    "find_model",
    "is_path",
    "pull_model",
    "pulled_model",
    "verify_model",
]
