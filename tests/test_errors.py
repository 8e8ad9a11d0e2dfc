import pytest

from medlocal.errors import (
    Interrupted,
    MedlocalError,
    MissingError,
    RefusedError,
    UsageError,
    unknown_name,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MedlocalError, 1),
        (UsageError, 2),
        (MissingError, 3),
        (RefusedError, 4),
        (Interrupted, 130),
    ],
)
def test_each_error_carries_its_exit_code(error: type[MedlocalError], code: int) -> None:
    assert error("what").exit_code == code
    assert issubclass(error, MedlocalError)


def test_an_error_with_a_hint_prints_both() -> None:
    assert str(MissingError("it is not here", hint="get it")) == "it is not here\n  → get it"


def test_an_error_without_a_hint_prints_its_message() -> None:
    assert str(UsageError("that is wrong")) == "that is wrong"


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    error = unknown_name("suite", "startr", ["starter", "formats"])

    assert isinstance(error, UsageError)
    assert error.message == "no suite is called 'startr'"
    assert error.hint == "did you mean starter?"


def test_a_name_that_is_near_nothing_is_met_with_all_of_them_in_order() -> None:
    assert unknown_name("suite", "zzz", ["starter", "formats"]).hint == "known: formats, starter"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("optoins", ("options", "rationale", "stem"), "did you mean options?"),
        ("option", ("options", "rationale", "stem"), "did you mean options?"),
        ("revison", ("repo", "revision", "files"), "did you mean revision?"),
        (
            "smolm2",
            ("medgemma-4b-it", "smollm2-135m-instruct"),
            "did you mean smollm2-135m-instruct?",
        ),
        ("medgema", ("medgemma-4b-it", "meditron-7b"), "did you mean medgemma-4b-it?"),
    ],
)
def test_a_typo_is_met_with_the_name_that_was_meant_or_begun(
    name: str, known: tuple[str, ...], hint: str
) -> None:
    assert unknown_name("name", name, known).hint == hint


def test_no_name_at_all_is_met_with_all_of_them() -> None:
    assert unknown_name("suite", "", ["starter", "formats"]).hint == "known: formats, starter"
