"""The commands as a user types them: exit codes, what is said where, and the shape of the JSON."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from medlocal import __version__, libllama
from medlocal.catalog import data_root
from medlocal.cli import running
from medlocal.cli.main import run as run_command
from medlocal.engine.sequence import Logits
from medlocal.libllama import Device
from medlocal.run import RunSpec
from medlocal.settings import Settings
from medlocal.store import Store
from tests.fakes import LogitsOf, ToyBackend, random_logits, saying
from tests.weights.gguf_files import write_model

COMMANDS = (
    "", "run", "demo", "quick", "runs", "report", "compare", "export", "perturbations", "show", "regrade",
    "bench", "convert", "imatrix", "quantize", "quality", "inspect", "fit", "doctor", "models", "models list",
    "models show", "models pull", "models verify", "data", "data list", "data show",
    "data pull", "data check", "data import", "data export",
)  # fmt: skip
RUN = ("run", "starter", "--model", "toy", "--limit", "1")
NUM_JOBS = 12
"""Of `RUN`: a question in two languages, in two forms, through three arms."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """All of stdout: where JSON is asked for, nothing else stands there."""
        return json.loads(self.out)


@dataclass
class Cli:
    """The command line in a workspace of its own."""

    home: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Ended:
        self.capture.readouterr()
        code = run_command(list(arguments))
        said = self.capture.readouterr()
        return Ended(code, said.out, said.err)

    def store(self) -> Store:
        return Store(self.home / "medlocal.db")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    home = tmp_path / "home"
    monkeypatch.setenv("MEDLOCAL_HOME", str(home))
    # Set, and not removed: `--offline` writes it, and it must be undone after the test.
    monkeypatch.setenv("MEDLOCAL_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("MEDLOCAL_THREADS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Cli(home, capsys)


@dataclass
class Toys:
    """What the command line gets in place of a model on llama.cpp."""

    logits_of: LogitsOf = random_logits
    specs: list[RunSpec] = field(default_factory=list)
    """What was asked for."""

    def backend(self, here: Settings, spec: RunSpec, model: str) -> ToyBackend:
        self.specs.append(spec)
        context, mode = spec.context or 4096, spec.mode or "exact"
        # The model called "knows" says what the other ones do not.
        logits_of = saying(lambda _: "B") if model == "knows" else self.logits_of
        return ToyBackend(logits_of, name=model, context=context, mode=mode)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Toys:
    found = Toys()
    monkeypatch.setattr(running, "_backend", found.backend)
    return found


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_explains_itself(self, cli: Cli, command: str) -> None:
        ended = cli(*command.split(), "--help")
        assert ended.code == 0
        assert ended.out.startswith(" ".join(["Usage: medlocal", *command.split()]))
        assert ended.err == ""
        assert not cli.home.exists(), "help needs no workspace"

    def test_no_command_is_answered_with_the_commands(self, cli: Cli) -> None:
        ended = cli()
        assert ended.code == 2
        assert "Commands:" in ended.out + ended.err

    def test_the_version_is_told(self, cli: Cli) -> None:
        assert cli("--version") == Ended(0, f"{__version__}\n", "")

    def test_the_exit_codes_are_told(self, cli: Cli) -> None:
        assert "130 stopped and resumable" in " ".join(cli("--help").out.split())


class TestWrongNames:
    @pytest.mark.parametrize(
        ("arguments", "message", "hint"),
        [
            ("run startr -m toy", "no suite is called 'startr'", "did you mean starter?"),
            ("run starter -m smolm2", "no model is called", "did you mean smollm2-135m-instruct?"),
            ("run starter -m toy --formats jsn", "no format is called", "did you mean json?"),
            ("run starter -m toy --arms gramar", "no arm is called", "did you mean grammar?"),
            ("run starter -m toy --prompts plane", "no prompt style is", "did you mean plain?"),
            ("run starter -m toy --languages fr", "no language is called", "known: en, es"),
            ("run starter -m toy --dataset star", "no data set is called", "did you mean starter?"),
            ("run starter -m toy --mode exat", "no mode is called", "did you mean exact?"),
            ("run starter -m toy --limit 0", "--limit must be 1 or more", ""),
            ("run starter -m toy --formats ,", "was given none", ""),
            ("run starter", "a suite and a model are needed", "medlocal run starter --model"),
            ("run starter --resume last", "takes everything else from the run", "leave it out"),
            ("run --resume last", "holds no run yet", "`medlocal run` makes one"),
            ("report", "holds no run yet", "`medlocal run` makes one"),
            ("regrade nobody", "holds no run yet", "`medlocal run` makes one"),
            ("show", "which job?", "`medlocal show --list last` lists them"),
            ("show abc", "holds no job yet", "`medlocal run` makes some"),
            ("models show smolm2", "no model is called", "did you mean smollm2-135m-instruct?"),
            ("models pull smolm2", "no model is called", "did you mean smollm2-135m-instruct?"),
            ("data show starer", "no data set is called", "did you mean starter?"),
            ("data show starter --item cardiology-1", "no item is called", "cardiology-01"),
        ],
    )
    def test_they_are_refused_with_what_would_have_been_right(
        self, cli: Cli, arguments: str, message: str, hint: str
    ) -> None:
        ended = cli(*arguments.split())
        assert ended.code == 2
        assert ended.out == ""
        first, _, rest = ended.err.partition("\n")
        assert first.startswith("error: ")
        assert message in first
        assert hint in rest

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("ruun", "No such command 'ruun'"),
            ("run starter --limt 3", "No such option: --limt"),
            ("run starter -m toy --limit few", "Invalid value for '--limit'"),
        ],
    )
    def test_a_command_that_cannot_be_read_is_refused(
        self, cli: Cli, arguments: str, message: str
    ) -> None:
        ended = cli(*arguments.split())
        assert ended.code == 2
        assert message in ended.err

    def test_a_wrong_setting_is_refused_with_its_file(self, cli: Cli) -> None:
        cli.home.mkdir()
        (cli.home / "config.toml").write_text("ofline = true\n", encoding="utf-8")
        ended = cli("runs")
        assert ended.code == 2
        assert "config.toml" in ended.err
        assert "did you mean offline?" in ended.err


class TestModelFiles:
    def test_a_model_that_was_not_pulled_is_missing(self, cli: Cli) -> None:
        ended = cli("run", "starter", "-m", "smollm2-135m-instruct")
        assert ended.code == 3
        assert "smollm2-135m-instruct is not on this machine" in ended.err
        assert "→ medlocal models pull smollm2-135m-instruct" in ended.err

    def test_nothing_is_fetched_offline(self, cli: Cli) -> None:
        ended = cli("models", "pull", "llama3-med42-8b", "--offline")
        assert ended.code == 3
        assert "offline, and llama3-med42-8b is not on this machine" in ended.err

    def test_what_was_not_pulled_cannot_be_verified(self, cli: Cli) -> None:
        assert cli("models", "verify", "smollm2-135m-instruct").code == 3

    def test_a_path_to_nothing_is_missing(self, cli: Cli, tmp_path: Path) -> None:
        ended = cli("run", "starter", "-m", str(tmp_path / "none.gguf"))
        assert ended.code == 3
        assert "there is no file" in ended.err

    def test_a_folder_is_no_model(self, cli: Cli, tmp_path: Path) -> None:
        assert cli("run", "starter", "-m", str(tmp_path)).code == 2

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"GGUF\x03\x00", "a GGUF header has 24"),
            (b"<!DOCTYPE html><html>", "it looks like a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "it looks like a git-lfs pointer"),
            (b"not a model at all, by any means", "is not a GGUF file"),
        ],
    )
    def test_a_file_that_is_no_model_is_refused(
        self, cli: Cli, tmp_path: Path, content: bytes, message: str
    ) -> None:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        self.refused(cli, path, message)

    @pytest.mark.parametrize("share", [0.3, 0.9])
    def test_a_download_that_broke_off_is_refused(
        self, cli: Cli, tmp_path: Path, share: float
    ) -> None:
        path = write_model(tmp_path / "model.gguf")
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        self.refused(cli, path, str(path))

    def test_a_base_model_is_refused(self, cli: Cli, tmp_path: Path) -> None:
        path = write_model(tmp_path / "model.gguf", chat_template=None)
        self.refused(cli, path, "has no chat template")

    def refused(self, cli: Cli, path: Path, message: str) -> None:
        ended = cli("run", "starter", "-m", str(path))
        assert ended.code == 4
        assert message in ended.err
        assert "  → " in ended.err, "there is a hint"
        assert not (cli.home / "medlocal.db").exists(), "no run is begun"


class TestQuestionFiles:
    @pytest.fixture
    def items(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The starter questions in a copy that may be broken."""
        root = tmp_path / "data"
        for folder in ("models", "benchmarks"):
            shutil.copytree(data_root() / folder, root / folder)
        monkeypatch.setattr("medlocal.catalog.data_root", lambda: root)
        monkeypatch.setattr("medlocal.run.spec.data_root", lambda: root)
        monkeypatch.setattr("medlocal.data.library.data_root", lambda: root)
        return root / "benchmarks" / "starter" / "items.jsonl"

    @pytest.mark.usefixtures("toys")
    @pytest.mark.parametrize("command", [RUN, ("data", "show", "starter")])
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('{"id"', '"id"', "not JSON"),
            ('"gold": "', '"gold": "X', "is not the label of an option"),
            ('"subject"', '"sujbect"', "unknown key 'sujbect'"),
            ('"stem"', '"stam"', "unknown key 'stam'"),
        ],
    )
    def test_a_malformed_line_is_named(
        self, cli: Cli, items: Path, command: tuple[str, ...], old: str, new: str, message: str
    ) -> None:
        lines = items.read_text(encoding="utf-8").split("\n")
        lines[2] = lines[2].replace(old, new, 1)
        items.write_text("\n".join(lines), encoding="utf-8")
        ended = cli(*command)
        assert ended.code == 2
        assert f"error: {items}:3: " in ended.err
        assert message in ended.err

    @pytest.mark.usefixtures("toys")
    def test_a_file_that_is_gone_is_missing(self, cli: Cli, items: Path) -> None:
        items.unlink()
        assert cli(*RUN).code == 3
        with cli.store() as store:
            assert store.runs() == []

    def test_a_card_with_an_unknown_key_is_refused(self, cli: Cli, items: Path) -> None:
        card = items.with_name("card.toml")
        card.write_text("lisence = 'x'\n" + card.read_text(encoding="utf-8"), encoding="utf-8")
        ended = cli("data", "list")
        assert ended.code == 2
        assert str(card) in ended.err
        assert "did you mean licence" in ended.err


class TestRun:
    def test_it_reports_on_stdout_and_narrates_on_stderr(self, cli: Cli, toys: Toys) -> None:
        ended = cli(*RUN)
        assert ended.code == 0
        assert "Report of run" in ended.out
        assert f"{NUM_JOBS} of {NUM_JOBS} answers (0 reused, 0 errors)" in ended.err
        assert [spec.limit for spec in toys.specs] == [1]

    @pytest.mark.usefixtures("toys")
    def test_as_json_stdout_holds_one_value(self, cli: Cli) -> None:
        ended = cli(*RUN, "--json")
        assert ended.json.keys() == {
            "run_id", "state", "jobs", "done", "reused", "errors", "seconds", "report",
        }  # fmt: skip
        assert (ended.json["state"], ended.json["done"]) == ("done", NUM_JOBS)
        report = Path(ended.json["report"])
        assert report == cli.home / "reports" / f"{ended.json['run_id']}.md"
        assert report.read_text(encoding="utf-8").startswith("# Report of run")

    @pytest.mark.usefixtures("toys")
    def test_a_second_one_reuses_every_answer(self, cli: Cli) -> None:
        cli(*RUN)
        assert cli(*RUN, "--json").json["reused"] == NUM_JOBS

    @pytest.mark.usefixtures("toys")
    def test_the_options_reach_the_run(self, cli: Cli, toys: Toys) -> None:
        options = ("--languages", "es", "--formats", "tag, letter", "--arms", "free", "--prompts")
        values = ("exam", "--dataset", "starter", "--mode", "fast", "--context", "2000")
        assert cli(*RUN, *options, *values).code == 0
        (spec,) = toys.specs
        assert (spec.languages, spec.formats, spec.arms) == (("es",), ("tag", "letter"), ("free",))
        assert (spec.prompts, spec.datasets) == (("exam",), ("starter",))
        assert (spec.mode, spec.context) == ("fast", 2000)

    @pytest.mark.usefixtures("toys")
    def test_it_says_which_pairs_make_no_sense(self, cli: Cli) -> None:
        ended = cli(*RUN, "--formats", "letter,text", "--arms", "free,label,cloze")
        told = [line for line in ended.err.splitlines() if line.startswith("not asked:")]
        assert [line.split(":")[1].strip() for line in told] == [
            "letter through cloze",
            "text through label",
        ]

    @pytest.mark.usefixtures("toys")
    def test_errors_of_single_questions_do_not_fail_it(self, cli: Cli) -> None:
        ended = cli(*RUN, "--context", "20", "--json")
        assert ended.code == 0
        assert (ended.json["done"], ended.json["errors"]) == (0, NUM_JOBS)

    def test_ctrl_c_stops_it_and_resume_ends_it(self, cli: Cli, toys: Toys) -> None:
        toys.logits_of = interrupting(after=40)
        before = signal.getsignal(signal.SIGINT)
        ended = cli(*RUN, "--json")
        assert ended.code == 130
        assert signal.getsignal(signal.SIGINT) is before
        run_id = ended.json["run_id"]
        assert ended.json["state"] == "interrupted"
        assert 0 < ended.json["done"] < NUM_JOBS
        assert f"→ medlocal run --resume {run_id}" in ended.err
        assert "error:" not in ended.err
        assert cli("runs", "--json").json[0]["state"] == "interrupted"

        toys.logits_of = random_logits
        resumed = cli("run", "--resume", "last", "--json")
        assert (resumed.code, resumed.json["run_id"]) == (0, run_id)
        assert (resumed.json["state"], resumed.json["done"]) == ("done", NUM_JOBS)
        assert toys.specs[1] == toys.specs[0]

    def test_a_stopped_run_reports_on_itself_whatever_began_since(
        self, cli: Cli, toys: Toys
    ) -> None:
        interrupt = interrupting(after=40)
        others: list[str] = []

        def logits_of(history: tuple[int, ...]) -> Logits:
            if not others:
                with cli.store() as store:
                    others.append(store.create_run({}))
            return interrupt(history)

        toys.logits_of = logits_of
        assert cli(*RUN, "--json").json["run_id"] != others[0]

    @pytest.mark.usefixtures("toys")
    @pytest.mark.parametrize(
        "option",
        [
            "--model toy", "--languages es", "--formats tag", "--arms free", "--prompts exam",
            *(
                o
                for o in ("--dataset starter", "--limit 5", "--mode fast", "--context 900")
            ),
        ],
    )  # fmt: skip
    def test_resume_takes_no_other_wishes(self, cli: Cli, option: str) -> None:
        cli(*RUN)
        assert cli("run", "--resume", "last", *option.split()).code == 2

    def test_resume_with_another_model_is_refused(self, cli: Cli, toys: Toys) -> None:
        toys.logits_of = interrupting(after=40)
        run_id = cli(*RUN, "--json").json["run_id"]
        with cli.store() as store:
            store._database.execute("UPDATE runs SET model = '{\"identity\": {}}'")
        ended = cli("run", "--resume", run_id)
        assert ended.code == 2
        assert "another model file, build, machine or mode" in ended.err


def interrupting(after: int) -> LogitsOf:
    """Random logits; at a row, the user presses Ctrl-C."""
    rows = iter(range(after))
    pressed: list[int] = []

    def logits_of(history: tuple[int, ...]) -> Logits:
        if next(rows, None) is None and not pressed:
            pressed.append(os.getpid())
            os.kill(os.getpid(), signal.SIGINT)
        return random_logits(history)

    return logits_of


@pytest.fixture
def run_id(cli: Cli, toys: Toys) -> str:
    """A finished run of a model that says `B`."""
    toys.logits_of = saying(lambda _: "B")
    ended = cli(*RUN, "--json")
    assert ended.code == 0
    return str(ended.json["run_id"])


class TestReport:
    def test_as_json(self, cli: Cli, run_id: str) -> None:
        found = cli("report", "--json").json
        parts = {"variants", "robustness", "positions", "answer_splits", "prompt_spreads"}
        parts |= {"interactions", "comparisons"}
        assert found.keys() == {"run", "rows", "constraint_effect", "engine", "runs", *parts}
        assert found["run"]["id"] == run_id
        assert {row["format"] for row in found["rows"]} == {"letter", "json"}
        assert {"arm", "language", "n", "acc_lenient", "fcr_strict"} <= found["rows"][0].keys()
        assert found["engine"]["liveness"] == "ok"

    def test_as_markdown(self, cli: Cli, run_id: str, tmp_path: Path) -> None:
        path = tmp_path / "report.md"
        ended = cli("report", run_id, "--output", str(path))
        assert (ended.code, ended.out) == (0, "")
        assert f"written: {path}" in ended.err
        assert path.read_text(encoding="utf-8").startswith(f"# Report of run {run_id}\n")

    def test_in_the_terminal(self, cli: Cli, run_id: str) -> None:
        ended = cli("report", "last")
        assert ended.code == 0
        assert f"Report of run {run_id}" in ended.out
        assert "\x1b" not in ended.out, "stdout is no terminal"

    def test_of_a_beginning_of_an_id(self, cli: Cli, run_id: str) -> None:
        assert cli("report", run_id[:9], "--json").json["run"]["id"] == run_id

    def test_of_a_run_that_does_not_exist(self, cli: Cli, run_id: str) -> None:
        ended = cli("report", run_id[:-4] + "zzzz")
        assert ended.code == 2
        assert f"did you mean {run_id}?" in ended.err

    def test_into_a_folder_that_does_not_exist(self, cli: Cli, run_id: str, tmp_path: Path) -> None:
        ended = cli("report", run_id, "--output", str(tmp_path / "none" / "report.md"))
        assert ended.code == 1
        assert "none" in ended.err

    def test_the_runs_are_listed_newest_first(self, cli: Cli, run_id: str) -> None:
        newer = cli(*RUN, "--json").json["run_id"]
        rows = cli("runs", "--json").json
        assert [row["run_id"] for row in rows] == [newer, run_id]
        assert rows[0].keys() == {
            "run_id", "state", "suite", "model", "jobs", "done", "reused", "errors", "created",
            "error",
        }  # fmt: skip
        assert [row["reused"] for row in rows] == [NUM_JOBS, 0]
        assert run_id in cli("runs").out

    def test_no_runs_are_no_error(self, cli: Cli) -> None:
        ended = cli("runs")
        assert (ended.code, ended.out) == (0, "")
        assert "no runs yet" in ended.err
        assert cli("runs", "--json").json == []


class TestShow:
    @pytest.fixture
    def jobs(self, cli: Cli, run_id: str) -> dict[tuple[str, str], str]:
        """Keys of the Spanish jobs by format and arm."""
        rows = cli("show", "--list", run_id, "--json").json
        assert len(rows) == NUM_JOBS
        return {(r["format"], r["arm"]): r["key"] for r in rows if r["language"] == "es"}

    def test_a_job_is_shown_as_it_was_sent_and_answered(
        self, cli: Cli, jobs: dict[tuple[str, str], str]
    ) -> None:
        found = cli("show", jobs["letter", "free"], "--json").json
        assert (found["format"], found["arm"], found["language"]) == ("letter", "free", "es")
        (_, system), (_, user) = found["messages"]
        assert found["prompt"] == f"system: {system}\nuser: {user}\n\x02"
        assert (found["output"], found["outcome"]) == ("B", "STRICT_VALID")
        assert [(token["id"], token["text"]) for token in found["tokens"]] == [(66, "B")]
        assert (found["finish"], found["error"]) == ("stop", "")
        assert (found["answer"], found["grader"]) == ("B", 3)
        assert found["correct"] == (found["gold"] == "B")
        assert found["why"]

    def test_what_a_model_says_cannot_steer_the_terminal(self, cli: Cli, toys: Toys) -> None:
        toys.logits_of = saying(lambda _: "\x1b[2J\u202eB")
        cli(*RUN)
        key = cli("show", "--list", "last", "--json").json[0]["key"]
        assert cli("show", key, "--json").json["output"] == "\x1b[2J\u202eB"
        ended = cli("show", key)
        assert ended.code == 0
        assert "--- output ---\n[2JB\n" in ended.out
        assert not {"\x1b", "\u202e"} & set(ended.out)

    def test_a_scored_job_shows_its_scores(
        self, cli: Cli, jobs: dict[tuple[str, str], str]
    ) -> None:
        found = cli("show", jobs["json", "label"], "--json").json
        assert (found["finish"], found["outcome"], found["output"]) == ("scored", "SCORED", "")
        assert list(found["stats"]["scores"]) == ["A", "B", "C", "D"]
        assert "scores" in cli("show", jobs["json", "label"]).out

    def test_a_job_that_does_not_exist_is_refused_with_its_neighbours(
        self, cli: Cli, jobs: dict[tuple[str, str], str]
    ) -> None:
        key = jobs["letter", "free"]
        ended = cli("show", key[:-1] + ("0" if key[-1] != "0" else "1"))
        assert ended.code == 2
        assert key in ended.err

    def test_a_job_that_waits_is_shown_without_an_answer(self, cli: Cli, toys: Toys) -> None:
        toys.logits_of = interrupting(after=1)
        cli(*RUN)
        key = cli("show", "--list", "last", "--json").json[0]["key"]
        assert "(not asked yet)" in cli("show", key).out
        assert "output" not in cli("show", key, "--json").json

    def test_the_jobs_of_a_run_are_listed(self, cli: Cli, run_id: str) -> None:
        rows = cli("show", "--list", "last", "--json").json
        assert {"key", "item", "language", "format", "arm", "outcome", "correct"} <= rows[0].keys()
        assert cli("show", "--list", run_id).out.count("\n") > NUM_JOBS


class TestRegrade:
    def test_as_json(self, cli: Cli, run_id: str) -> None:
        with cli.store() as store:
            store._database.execute("UPDATE grades SET outcome = 'EMPTY', slot = NULL")
        found = cli("regrade", run_id, "--json").json
        counts = {"records", "changed", "new", "right_before", "right_now"}
        assert found.keys() == {*counts, "graders", "changes"}
        assert (found["records"], found["changed"], found["new"]) == (NUM_JOBS, NUM_JOBS, 0)
        told = {"key", "before", "now", "right_before", "right_now", "why"}
        assert found["changes"][0].keys() == told
        assert cli("regrade", "--json").json["changed"] == 0

    def test_for_people(self, cli: Cli, run_id: str) -> None:
        ended = cli("regrade", run_id)
        assert (ended.code, ended.out) == (0, "")
        assert f"{NUM_JOBS} answers judged, 0 changed, 0 new" in ended.err


class TestPlanning:
    def test_a_dry_run_asks_nothing(self, cli: Cli, toys: Toys) -> None:
        ended = cli(*RUN, "--dry-run")
        assert (ended.code, ended.out.splitlines()[:2]) == (0, ["model: toy", f"jobs: {NUM_JOBS}"])
        assert "smallest difference between two models that 1 questions of starter" in ended.out
        assert cli("runs", "--json").json == []

    def test_as_json(self, cli: Cli, toys: Toys) -> None:
        found = cli(*RUN, "--dry-run", "--json").json["toy"]
        assert (found["num_jobs"], found["num_answered"]) == (NUM_JOBS, 0)
        assert found["by_part"] == {"starter": NUM_JOBS}
        assert 0 < found["unique_prompt_tokens"] < found["total_prompt_tokens"]

    def test_a_run_says_what_it_takes_before_it_asks(self, cli: Cli, toys: Toys) -> None:
        said = cli(*RUN).err
        assert f"jobs: {NUM_JOBS}" in said
        assert said.index("prompt tokens: ") < said.index("asking ")

    def test_variants_are_asked(self, cli: Cli, toys: Toys) -> None:
        variants = "original,rotate(1),typos(0.1)+shuffle"
        ended = cli(*RUN, "--variants", variants, "--json")
        assert ended.json["jobs"] == 3 * NUM_JOBS
        found = cli("report", "--json").json
        assert {row["variant"] for row in found["variants"]} == {"rotate(1)", "typos(0.1)+shuffle"}
        assert found["robustness"][0]["variants"] == ["original", "rotate(1)"]

    def test_a_variant_that_does_not_exist_is_refused(self, cli: Cli, toys: Toys) -> None:
        ended = cli(*RUN, "--variants", "rotat(1)")
        assert ended.code == 2
        assert "did you mean rotate" in ended.err

    def test_perturbations_are_listed(self, cli: Cli) -> None:
        found = cli("perturbations", "--json").json
        assert {"name", "family", "does", "gold", "back", "arguments"} == found[0].keys()
        assert len(found) == 25
        assert any(
            "transformed" in pair["why"] for pair in cli("perturbations", "--pairs", "--json").json
        )
        assert "rotate" in cli("perturbations").out


class TestSeveralModels:
    ASK = ("run", "starter", "-m", "toy", "-m", "knows", "--limit", "3", "--arms", "free")

    def test_they_are_asked_in_one_run_and_reported_together(self, cli: Cli, toys: Toys) -> None:
        ended = cli(*self.ASK, "--json")
        assert (ended.json["state"], ended.json["jobs"]) == ("done", 24)
        found = cli("report", "--json").json
        assert {row["model"] for row in found["rows"]} == {"toy", "knows"}
        assert set(found["engine"]) == {"toy", "knows"}
        assert [(pair["first"], pair["second"]) for pair in found["comparisons"]] == [
            ("toy", "knows")
        ]

    def test_two_models_of_one_run_are_compared(self, cli: Cli, toys: Toys) -> None:
        cli(*self.ASK)
        found = cli("compare", "last", "--json").json
        assert (found["first"], found["second"]) == ("toy", "knows")
        assert found["comparison"]["num_pairs"] == 12
        assert found["comparison"]["only_first"] == 0
        text = cli("compare", "last").out
        assert "knows against toy" in text
        assert "English, starter, letter/free" in text

    def test_two_runs_are_compared_on_what_both_were_asked(self, cli: Cli, toys: Toys) -> None:
        cli("run", "starter", "-m", "toy", "--limit", "3", "--arms", "free")
        cli(
            "run", "starter", "-m", "knows", "--limit", "2", "--arms", "free", "--formats", "letter"
        )
        first, second = (run["run_id"] for run in reversed(cli("runs", "--json").json))
        found = cli("compare", first, second, "--json").json
        assert (found["comparison"]["num_pairs"], found["comparison"]["only_first"]) == (4, 8)

    def test_a_model_that_the_run_does_not_hold_is_refused(self, cli: Cli, toys: Toys) -> None:
        cli(*self.ASK)
        ended = cli("compare", "last", "--models", "toy,know")
        assert ended.code == 2
        assert "did you mean knows?" in ended.err

    def test_one_model_is_not_compared_with_nothing(self, cli: Cli, toys: Toys) -> None:
        cli(*RUN)
        ended = cli("compare", "last")
        assert ended.code == 2
        assert "holds 1 models: toy" in ended.err

    def test_a_model_named_twice_is_refused(self, cli: Cli, toys: Toys) -> None:
        assert "a model is named twice" in cli("run", "starter", "-m", "toy", "-m", "toy").err

    def test_a_stopped_run_goes_on_with_both(self, cli: Cli, toys: Toys) -> None:
        cli(*self.ASK)
        resumed = cli("run", "--resume", "last", "--json")
        assert (resumed.json["state"], resumed.json["done"]) == ("done", 24)


class TestExport:
    @pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
    def test_every_answer_is_a_row(
        self, cli: Cli, run_id: str, tmp_path: Path, ending: str
    ) -> None:
        path = tmp_path / f"answers.{ending}"
        ended = cli("export", run_id, "-o", str(path))
        assert (ended.code, ended.out) == (0, "")
        assert f"{NUM_JOBS} answers" in ended.err
        assert path.stat().st_size > 0

    def test_as_lm_eval_writes_it(self, cli: Cli, run_id: str, tmp_path: Path) -> None:
        assert cli("export", "--to", "lm-eval", "-o", str(tmp_path / "out")).code == 0
        assert len(list((tmp_path / "out" / "toy").glob("samples_*.jsonl"))) == NUM_JOBS

    @pytest.mark.parametrize("arguments", ["export", "export -o x.doc", "export --to xml -o x"])
    def test_no_kind_of_export_is_refused(self, cli: Cli, run_id: str, arguments: str) -> None:
        ended = cli(*arguments.split())
        assert ended.code == 2
        assert ".parquet" in ended.err


class TestReportFiles:
    @pytest.mark.parametrize(
        ("ending", "begins"),
        [
            ("md", "# Report of run"),
            ("csv", "model,dataset,language"),
            ("json", "{"),
            ("tex", "%"),
            ("html", "<!doctype html>"),
        ],
    )
    def test_the_ending_says_what_is_written(
        self, cli: Cli, run_id: str, tmp_path: Path, ending: str, begins: str
    ) -> None:
        path = tmp_path / f"report.{ending}"
        assert cli("report", run_id, "-o", str(path)).code == 0
        assert path.read_text(encoding="utf-8").startswith(begins)

    def test_variants_have_a_table_of_their_own_beside_the_scores(
        self, cli: Cli, toys: Toys, tmp_path: Path
    ) -> None:
        cli(*RUN, "--variants", "original,rotate(1)")
        cli("report", "-o", str(tmp_path / "report.csv"))
        names = {path.name for path in tmp_path.glob("report*.csv")}
        assert names == {"report.csv", "report-variants.csv"}

    def test_another_ending_is_refused_before_anything_is_read(
        self, cli: Cli, tmp_path: Path
    ) -> None:
        ended = cli("report", "-o", str(tmp_path / "report.doc"))
        assert ended.code == 2
        assert "end the name in .html, .md" in ended.err

    def test_runs_that_asked_one_model_in_two_ways_are_not_pooled(
        self, cli: Cli, toys: Toys
    ) -> None:
        cli(*RUN)
        cli(*RUN, "--mode", "fast")
        first, second = (run["run_id"] for run in cli("runs", "--json").json)
        ended = cli("report", first, second)
        assert ended.code == 2
        assert "medlocal compare RUN_A RUN_B" in ended.err


class TestData:
    def test_the_list_as_json(self, cli: Cli) -> None:
        found = cli("data", "list", "--json").json
        assert found.keys() == {"datasets", "suites"}
        (starter,) = (card for card in found["datasets"] if card["id"] == "starter")
        assert {"id", "title", "languages", "split", "licence", "citation", "num_items"} <= (
            starter.keys()
        )
        assert {suite["id"] for suite in found["suites"]} >= {"starter", "formats"}

    def test_the_list_for_people(self, cli: Cli) -> None:
        ended = cli("data", "list")
        assert ended.code == 0
        assert "starter" in ended.out

    def test_a_data_set_is_counted_per_language(self, cli: Cli) -> None:
        found = cli("data", "show", "starter", "--json").json
        assert found["per_language"].keys() == {"en", "es"}
        spanish = found["per_language"]["es"]
        assert spanish["items"] == found["num_items"] == 128
        assert sum(spanish["gold"].values()) == 128
        assert spanish["gold"] == found["per_language"]["en"]["gold"]
        assert "es.items" in cli("data", "show", "starter").out

    def test_a_question_is_shown_in_all_languages(self, cli: Cli) -> None:
        found = cli("data", "show", "starter", "--item", "cardiology-01", "--json").json
        assert [item["language"] for item in found] == ["en", "es"]
        ended = cli("data", "show", "starter", "--item", "cardiology-01")
        assert "* B. Intravenous crystalloid" in ended.out
        assert "* B. Cristaloide intravenoso" in ended.out


class TestModels:
    def test_the_list_as_json(self, cli: Cli) -> None:
        rows = cli("models", "list", "--json").json
        assert {"id", "name", "role", "languages", "licence", "source", "state", "path"} <= (
            rows[0].keys()
        )
        assert {row["state"] for row in rows} == {"not here"}
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)

    def test_the_list_for_people(self, cli: Cli) -> None:
        assert "smollm2-135m-instruct" in cli("models", "list").out

    def test_a_card_as_json(self, cli: Cli) -> None:
        found = cli("models", "show", "smollm2-135m-instruct", "--json").json
        assert (found["demo"], found["source"]["kind"]) == (True, "wheel")
        assert "source.sha256" in cli("models", "show", "smollm2-135m-instruct").out


class TestDoctor:
    @pytest.fixture
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine with llama.cpp and one processor, without loading either."""
        device = Device("CPU", "some processor", "cpu", free_bytes=2**30, total_bytes=2**31)
        build = {"commit": "abc", "llama_cpp_python": "0.3", "system": "AVX2", "gpu_offload": "no"}
        monkeypatch.setattr(libllama, "devices", lambda: [device])
        monkeypatch.setattr(libllama, "build_info", lambda: build)

    @pytest.mark.usefixtures("machine")
    def test_as_json(self, cli: Cli) -> None:
        ended = cli("doctor", "--json")
        assert ended.code == 0
        found = ended.json
        assert {
            "medlocal", "python", "system", "cores", "memory", "home", "free_disk", "offline",
            "llama_cpp", "llama_cpp_system", "gpu_offload", "devices", "models_here", "problems",
        } <= found.keys()  # fmt: skip
        assert (found["medlocal"], found["home"]) == (__version__, str(cli.home))
        assert found["llama_cpp"] == "abc (llama-cpp-python 0.3)"
        assert found["devices"] == ["CPU: some processor, 1.00 GiB of 2.00 GiB free"]
        assert any("medlocal models pull" in problem for problem in found["problems"])

    @pytest.mark.usefixtures("machine")
    def test_for_people(self, cli: Cli) -> None:
        ended = cli("--offline", "doctor")
        assert ended.code == 0
        assert [line.split() for line in ended.out.splitlines() if "offline" in line] == [
            ["offline", "yes"]
        ]
        assert "! no model is here" in ended.out

    def test_without_llama_cpp(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> dict[str, str]:
            raise OSError("libllama.so: cannot open shared object file")

        monkeypatch.setattr(libllama, "build_info", broken)
        ended = cli("doctor", "--json")
        assert ended.code == 1
        assert ended.json["llama_cpp"] is None
        assert "cannot open" in ended.json["llama_cpp_error"]
        assert "→ make venv builds it" in ended.err


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from medlocal.cli import main; main()", *arguments]


@pytest.mark.parametrize("arguments", ["models list --json", "data show starter --json"])
def test_a_reader_that_has_gone_is_no_failure(arguments: str, tmp_path: Path) -> None:
    """As in `medlocal models list --json | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command(*arguments.split()),
        stdout=write,
        stderr=subprocess.PIPE,
        env={"PATH": "", "MEDLOCAL_HOME": str(tmp_path)},
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_exit_code_is_that_of_the_process(tmp_path: Path) -> None:
    done = subprocess.run(
        command("run", "starter", "-m", "/none.gguf"),
        capture_output=True,
        env={"PATH": "", "MEDLOCAL_HOME": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"Traceback" not in done.stderr


@pytest.mark.weights
@pytest.mark.parametrize("command", ["show", "verify", "pull"])
def test_a_path_to_a_gguf_works_wherever_an_id_does(
    cli: Cli, demo_model: Path, command: str
) -> None:
    values = cli("models", command, str(demo_model), "--json").json
    assert values["path"] == str(demo_model)
    assert values["sha256"] == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (values["architecture"], values["quantisation"]) == ("llama", "Q4_1")


@pytest.mark.parametrize("command", ["show", "verify", "pull"])
def test_a_path_to_what_is_no_gguf_is_refused(cli: Cli, tmp_path: Path, command: str) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("no model", encoding="utf-8")
    assert cli("models", command, str(path)).code == 4
    assert cli("models", command, str(tmp_path / "none.gguf")).code == 3
