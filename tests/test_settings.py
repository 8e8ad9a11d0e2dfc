import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from medlocal.errors import UsageError
from medlocal.settings import Settings, default_home, load_settings


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"MEDLOCAL_HOME": str(home), **more}


def configure(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, encoding="utf-8")


def test_home_is_what_the_environment_names(tmp_path: Path) -> None:
    assert default_home({"MEDLOCAL_HOME": str(tmp_path), "XDG_DATA_HOME": "/x"}) == tmp_path


def test_home_is_else_in_the_users_data_folder() -> None:
    assert default_home({"XDG_DATA_HOME": "/data"}) == Path("/data/medlocal")


def test_home_is_else_below_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ana")

    assert default_home({}) == Path("/home/ana/.local/share/medlocal")
    assert default_home({"MEDLOCAL_HOME": "~/work"}) == Path("/home/ana/work")


def test_a_relative_home_does_not_move_with_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert default_home({"MEDLOCAL_HOME": "here"}) == tmp_path / "here"


def test_everything_lies_under_home() -> None:
    settings = Settings(home=Path("/h"))

    assert settings.store_path == Path("/h/medlocal.db")
    assert settings.models_dir == Path("/h/models")
    assert settings.reports_dir == Path("/h/reports")


def test_without_a_file_or_variables_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(environ(tmp_path)) == Settings(home=tmp_path, offline=False, threads=0)


def test_the_file_is_read(tmp_path: Path) -> None:
    configure(tmp_path, "offline = true\nthreads = 3\n")

    assert load_settings(environ(tmp_path)) == Settings(home=tmp_path, offline=True, threads=3)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    configure(tmp_path, "offline = true\n")

    assert not load_settings(environ(tmp_path, MEDLOCAL_OFFLINE="0")).offline


def test_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    assert load_settings(environ(tmp_path, MEDLOCAL_OFFLINE="0"), offline=True).offline


def test_the_hubs_own_offline_switch_is_respected(tmp_path: Path) -> None:
    assert load_settings(environ(tmp_path, HF_HUB_OFFLINE="1")).offline


def test_medlocals_switch_wins_over_the_hubs(tmp_path: Path) -> None:
    settings = load_settings(environ(tmp_path, HF_HUB_OFFLINE="1", MEDLOCAL_OFFLINE="0"))

    assert not settings.offline


@pytest.mark.parametrize(
    ("word", "offline"),
    [("1", True), ("TRUE", True), (" yes ", True), ("on", True), ("0", False), ("", False)],
)
def test_the_words_for_yes_and_no(tmp_path: Path, word: str, offline: bool) -> None:
    assert load_settings(environ(tmp_path, MEDLOCAL_OFFLINE=word)).offline is offline


def test_a_word_that_is_neither_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MEDLOCAL_OFFLINE='maybe' is neither yes nor no"):
        load_settings(environ(tmp_path, MEDLOCAL_OFFLINE="maybe"))


def test_a_broken_file_is_named_with_the_line(tmp_path: Path) -> None:
    configure(tmp_path, "threads = 1\noffline = \n")

    with pytest.raises(UsageError, match=r"config\.toml.*line 2"):
        load_settings(environ(tmp_path))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"threads = \xff")

    with pytest.raises(UsageError, match=r"config\.toml"):
        load_settings(environ(tmp_path))


def test_an_unknown_setting_is_met_with_the_nearest(tmp_path: Path) -> None:
    configure(tmp_path, "ofline = true\n")

    with pytest.raises(UsageError, match="'ofline'") as info:
        load_settings(environ(tmp_path))

    assert info.value.hint == "did you mean offline?"


@pytest.mark.parametrize("threads", ["-1", '"two"', "1.5", "true"])
def test_threads_in_the_file_must_be_a_whole_number(tmp_path: Path, threads: str) -> None:
    configure(tmp_path, f"threads = {threads}\n")

    with pytest.raises(UsageError, match=r"config\.toml: threads must be a whole number from 0 up"):
        load_settings(environ(tmp_path))


@pytest.mark.parametrize("offline", ['"false"', "0", "[]"])
def test_offline_in_the_file_must_be_true_or_false(tmp_path: Path, offline: str) -> None:
    configure(tmp_path, f"offline = {offline}\n")

    with pytest.raises(UsageError, match=r"config\.toml: offline must be true or false"):
        load_settings(environ(tmp_path))


@pytest.mark.parametrize(("text", "threads"), [("3", 3), (" 4 ", 4), ("0", 0), ("", 2)])
def test_the_environments_threads_win_over_the_file(
    tmp_path: Path, text: str, threads: int
) -> None:
    configure(tmp_path, "threads = 2\n")

    assert load_settings(environ(tmp_path, MEDLOCAL_THREADS=text)).threads == threads


@pytest.mark.parametrize("text", ["-1", "two", "1.5"])
def test_threads_in_the_environment_that_are_no_whole_number_are_refused_by_name(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(UsageError, match=f"MEDLOCAL_THREADS='{text}' is not a whole number"):
        load_settings(environ(tmp_path, MEDLOCAL_THREADS=text))


def test_no_threads_means_the_cores_this_process_may_use() -> None:
    assert Settings(home=Path("/h")).num_threads == len(os.sched_getaffinity(0))
    assert Settings(home=Path("/h"), threads=3).num_threads == 3


def test_settings_do_not_change() -> None:
    settings = Settings(home=Path("/h"))

    with pytest.raises(FrozenInstanceError):
        settings.offline = True  # type: ignore[misc]
