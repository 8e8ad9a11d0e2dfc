"""What is told by a process of its own, and how it ends."""

import os
import signal
import sys
from collections.abc import Sequence

import pytest

from medlocal.errors import MedlocalError, MissingError
from medlocal.run.child import Message, messages


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", code]


def told(code: str) -> list[Message]:
    return list(messages("a.module", {}, python(code)))


def test_what_it_says_comes_line_by_line() -> None:
    said = messages("a.module", {}, python(
        "import json, time; print(json.dumps({'a': 1}), flush=True); time.sleep(100)"
    ))  # fmt: skip
    assert next(said) == {"a": 1}
    said.close()


def test_it_has_ended_when_nobody_listens_any_more() -> None:
    said = messages("a.module", {}, python(
        "import json, os, time; print(json.dumps({'pid': os.getpid()}), flush=True); time.sleep(100)"
    ))  # fmt: skip
    pid = next(said)["pid"]
    said.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_its_error_is_the_parents() -> None:
    code = (
        "from medlocal.errors import MissingError\n"
        "from medlocal.run.child import serve\n"
        "import sys\n"
        "sys.argv = ['', '{}']\n"
        "def work(asked, tell):\n"
        "    tell(done=1)\n"
        "    raise MissingError('no such thing', hint='get it')\n"
        "serve(work)"
    )
    with pytest.raises(MissingError, match="no such thing") as raised:
        told(code)
    assert raised.value.hint == "get it"


def test_a_crash_is_told_with_its_last_words() -> None:
    with pytest.raises(MedlocalError, match="ended with 1: ZeroDivisionError: division by zero"):
        told("1 / 0")


def test_an_end_by_a_signal_is_told() -> None:
    with pytest.raises(MedlocalError, match="was ended by SIGKILL") as raised:
        told(f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert raised.value.hint is not None
    assert "memory" in raised.value.hint


def test_ctrl_c_is_left_to_the_parent() -> None:
    code = (
        "import os, signal, sys\n"
        "from medlocal.run.child import serve\n"
        "sys.argv = ['', '{}']\n"
        "def work(asked, tell):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    tell(alive=True)\n"
        "serve(work)"
    )
    assert told(code) == [{"alive": True}]


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(MedlocalError, match="cannot be started"):
        list(messages("a.module", {}, ["/no/such/program"]))
