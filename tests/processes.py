"""Child processes of the tests."""

import signal


def heed_ctrl_c() -> None:
    """Let a child be stopped: where the tests run in a shell's background, SIGINT is ignored, and a
    child inherits that. For `preexec_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
