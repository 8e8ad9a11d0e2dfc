"""Whole runs as a user makes them: the installed command, the real model, real questions."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.weights, pytest.mark.slow]

COMMAND = [sys.executable, "-m", "medlocal"]
RUN = ["run", "starter", "--model", "smollm2-135m-instruct", "--json"]
MEBIBYTE = 2**20


def medlocal(*arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout


def records(home: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that was answered, without when and by whom."""
    with sqlite3.connect(home / "medlocal.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = database.execute(
            "SELECT job_key, text, finish, token_ids, logprobs, stats FROM records"
        ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> tuple[Path, Any]:
    """An uninterrupted run of three questions in both languages."""
    home = tmp_path_factory.mktemp("reference")
    (home / "models").mkdir()
    (home / "models" / "smollm2-135m-instruct").symlink_to(demo_model.parent)
    before = os.environ.get("MEDLOCAL_HOME")
    os.environ["MEDLOCAL_HOME"] = str(home)
    try:
        summary = medlocal(*RUN, "--limit", "3")
    finally:
        if before is None:
            del os.environ["MEDLOCAL_HOME"]
        else:
            os.environ["MEDLOCAL_HOME"] = before
    return home, summary


def test_a_run_says_how_it_ended(reference: tuple[Path, Any]) -> None:
    home, summary = reference
    assert set(summary) == {
        "run_id", "state", "jobs", "done", "reused", "errors", "seconds", "report",
    }  # fmt: skip
    assert (summary["state"], summary["jobs"], summary["done"]) == ("done", 36, 36)
    assert (summary["reused"], summary["errors"]) == (0, 0)
    assert Path(summary["report"]).read_text(encoding="utf-8").startswith("# Report of run")
    assert len(records(home)) == 36


def test_the_report_has_every_cell_and_what_the_engine_did(
    reference: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDLOCAL_HOME", str(reference[0]))
    report = medlocal("report", "last", "--json")
    cells = {(r["language"], r["format"], r["arm"]) for r in report["rows"]}
    assert len(cells) == 2 * 2 * 3
    assert all(sum(row["outcomes"].values()) == row["n"] == 3 for row in report["rows"])
    assert all(row["chance"] == 0.25 for row in report["rows"])
    grammar = [row for row in report["rows"] if row["arm"] == "grammar"]
    assert all(row["fcr_strict"]["value"] == 1.0 for row in grammar)
    assert len(report["constraint_effect"]) == 4
    engine = report["engine"]
    assert engine["liveness"] == "ok"
    assert engine["mode"] == "exact"
    assert 0 < engine["unique_prompt_tokens"] < engine["total_prompt_tokens"]
    assert engine["generated_tokens"] > 0


def test_memory_stays_within_the_file_the_cache_and_500_mb(
    reference: tuple[Path, Any], demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDLOCAL_HOME", str(reference[0]))
    engine = medlocal("report", "last", "--json")["engine"]
    most = demo_model.stat().st_size + engine["kv_bytes"] + 500 * 10**6
    assert engine["peak_memory_bytes"] <= most


def test_a_second_run_asks_nothing_again(workspace: Path) -> None:
    first = medlocal(*RUN, "--limit", "1", "--languages", "en", "--formats", "letter")
    second = medlocal(*RUN, "--limit", "1", "--languages", "en", "--formats", "letter")
    assert first["run_id"] != second["run_id"]
    assert (second["done"], second["reused"]) == (3, 3)
    assert len(records(workspace)) == 3


def test_ctrl_c_stops_cleanly_and_resume_ends_with_the_same_answers(
    workspace: Path, reference: tuple[Path, Any]
) -> None:
    process = subprocess.Popen(
        [*COMMAND, *RUN, "--limit", "3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_answers(workspace, 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert json.loads(out)["state"] == "interrupted"
    run_id = json.loads(out)["run_id"]
    assert f"medlocal run --resume {run_id}" in err
    assert medlocal("run", "--resume", run_id, "--json")["state"] == "done"
    assert records(workspace) == records(reference[0])


def test_killed_at_random_moments_a_run_still_ends_with_the_same_answers(
    workspace: Path, reference: tuple[Path, Any]
) -> None:
    """Real model, real `kill -9`; the twenty moments are in `test_kill`, on a toy that is quicker."""
    moments = random.Random(7)
    arguments = [*RUN, "--limit", "3"]
    for _ in range(3):
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        known = len(records(workspace)) if (workspace / "medlocal.db").exists() else 0
        wait_for_answers(workspace, known + moments.randrange(1, 6), process)
        process.kill()
        process.wait()
        (row,) = medlocal("runs", "--json")
        assert row["state"] in {"interrupted (crashed)", "done"}
        arguments = ["run", "--resume", row["run_id"], "--json"]
    assert medlocal(*arguments)["state"] == "done"
    assert records(workspace) == records(reference[0])


def wait_for_answers(home: Path, number: int, process: "subprocess.Popen[Any]") -> None:
    """Until so many answers are committed, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (home / "medlocal.db").exists():
            with sqlite3.connect(home / "medlocal.db", timeout=30) as database:
                try:
                    (found,) = database.execute("SELECT count(*) FROM records").fetchone()
                except sqlite3.OperationalError:
                    found = 0  # the tables are not there yet
            if found >= number:
                return
        time.sleep(0.05)


def test_two_processes_cannot_write_one_run(workspace: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, *RUN, "--limit", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_answers(workspace, 1, process)
    done = subprocess.run(
        [*COMMAND, "run", "--resume", "last"], capture_output=True, text=True, check=False
    )
    process.kill()
    process.wait()
    assert done.returncode == 1
    assert str(process.pid) in done.stderr


def test_offline_no_socket_is_opened_from_run_to_report(workspace: Path) -> None:
    code = (
        "import os, sys\n"
        "def refuse(event, _):\n"
        "    if event.startswith('socket.'): os.write(2, event.encode()); os._exit(99)\n"
        "sys.addaudithook(refuse)\n"
        "from medlocal.cli.main import run\n"
        "sys.exit(run(sys.argv[1:]) or run(['report', 'last', '--json']))"
    )
    arguments = ["--offline", *RUN, "--limit", "1", "--formats", "letter", "--languages", "es"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_all_formats_and_arms_are_answered_in_both_languages(workspace: Path) -> None:
    summary = medlocal(
        "run", "formats", "--model", "smollm2-135m-instruct", "--limit", "1", "--json"
    )
    assert summary["errors"] == 0
    # Six formats free and masked, label in four of them, cloze in one; in two languages.
    assert summary["done"] == 2 * (6 + 6 + 4 + 1)
    rows = medlocal("report", "last", "--json")["rows"]
    masked = [row for row in rows if row["arm"] == "grammar"]
    assert all(row["outcomes"] == {"STRICT_VALID": 1} for row in masked)
    keys = [job["key"] for job in medlocal("show", "--list", "last", "--json")]
    job = medlocal("show", keys[0], "--json")
    assert job["prompt"].startswith("<|im_start|>system\n")
    assert job["prompt"].endswith("<|im_start|>assistant\n")


def test_a_path_to_a_gguf_works_in_place_of_an_id(workspace: Path, demo_model: Path) -> None:
    summary = medlocal(
        "run", "starter", "--model", str(demo_model), "--limit", "1", "--languages", "en",
        "--formats", "letter", "--arms", "label", "--json",
    )  # fmt: skip
    assert summary["done"] == 1
