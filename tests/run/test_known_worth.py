"""Whole runs of models whose worth is known: every figure of their reports was computed by hand.

The questions are eight of the starter set, two for each letter that is right, so that whoever always
answers A is right in two of eight. What the models need to know is read from the questions' file, and
what they are told from the prompt, by its own words.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from medlocal.catalog import data_root
from medlocal.evals.formats import FORMATS
from medlocal.evals.stats import wilson
from medlocal.report.load import load_report
from medlocal.report.results import Report
from medlocal.run import make_spec, preview, start_run
from medlocal.run.spec import read_items
from medlocal.store import Store
from tests.fakes import ToyBackend, saying

GOLD_AT = ("gold_at(A)", "gold_at(B)", "gold_at(C)", "gold_at(D)")
TRANSFORMS = (
    "next_label", "text_not_label", "reversed_text", "upper_text", "label_in_words",
    "sorted_wrong_labels", "append(!)",
)  # fmt: skip
NUM_ITEMS = 8
MAX_BYTES = 40
"""Of an option: a toy writes byte by byte, and would be cut where a real vocabulary is not."""


def longest_option(line: dict[str, Any]) -> int:
    return max(len(option.encode()) for code in ("en", "es") for option in line[code]["options"])


@cache
def chosen() -> tuple[frozenset[str], dict[str, str]]:
    """Ids of two questions for each right letter, and the right letter by the question's text."""
    path = data_root() / "benchmarks" / "starter" / "items.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    short = [line for line in lines if longest_option(line) <= MAX_BYTES]
    ids = [[line["id"] for line in short if line["gold"] == letter][:2] for letter in "ABCD"]
    kept = frozenset(name for found in ids for name in found)
    golds = {line[language]["stem"]: line["gold"] for line in lines for language in ("en", "es")}
    return kept, golds


@pytest.fixture(autouse=True)
def _eight_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        preview, "read_items", lambda spec: [i for i in read_items(spec) if i.id in chosen()[0]]
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that does not wait for the disk."""
    with Store(tmp_path / "medlocal.db") as found:
        found._database.execute("PRAGMA synchronous = OFF")
        yield found


def report(store: Store, answer: Callable[[str], str], **asked: Any) -> Report:
    """The report of a model.

    Args:
        store: where to keep it.
        answer: from the text of the prompt to what the model says.
        asked: formats, variants and languages.
    """
    spec = make_spec("starter", "toy", **{"arms": ("free",), **asked})
    # What fills up a batch has no prompt.
    backend = ToyBackend(saying(lambda prompt: answer(prompt) if prompt else ""))
    return load_report(store, start_run(spec, store, backend, backend.model_facts()).run_id)


def right_letter(prompt: str) -> str:
    """The letter that is right in the question of the prompt."""
    (letter,) = {gold for stem, gold in chosen()[1].items() if f"\nuser: {stem}\n" in prompt}
    return letter


def first_option(prompt: str) -> str:
    """The words of the option behind "A.", as shown."""
    (line,) = [line for line in prompt.splitlines() if line.startswith("A. ")]
    return line.removeprefix("A. ")


def first_in_form(prompt: str) -> str:
    """The first option in the form that the prompt demands, and nothing else."""
    if "copied exactly" in prompt or "copiado exactamente" in prompt:
        return first_option(prompt)
    if "Reason briefly" in prompt:
        return "It is hard to say.\nAnswer: A"
    if "Razona brevemente" in prompt:
        return "Es difícil decirlo.\nRespuesta: A"
    forms = ('{"answer": "X"}', "<answer>X</answer>", "The answer is X", "La respuesta es X")
    found = [form for form in forms if form in prompt]
    return found[0].replace("X", "A") if found else "A"


def first_transformed(prompt: str) -> str:
    """What has to be written for the first option under each transformation, as a single line."""
    words = first_option(prompt)
    replies = {
        ("after the correct one", "después de la correcta"): "B",
        ("without the letter", "copied exactly", "copiado exactamente"): words,
        ("backwards", "al revés"): words[::-1],
        ("capital letters", "en mayúsculas"): words.upper(),
        ("as a word",): "one",
        ("escrita con letras",): "uno",
        ("all the incorrect options", "todas las opciones incorrectas"): "B, C, D",
        ("directly behind it", "justo detrás"): "A!",
    }
    told = [reply for marks, reply in replies.items() if any(mark in prompt for mark in marks)]
    return told[0] if told else "A"


def test_knowing_all_and_following_no_form(store: Store) -> None:
    """Right everywhere, in a sentence that is none of the six forms."""
    found = report(
        store,
        lambda prompt: f"I think it is {right_letter(prompt)}, for sure.",
        formats=tuple(FORMATS),
    )
    assert len(found.rows) == 12
    for row in found.rows:
        assert row.outcomes == {"LENIENT_VALID": NUM_ITEMS}
        assert (row.fcr_strict, row.fcr_lenient) == (wilson(0, 8), wilson(8, 8))
        assert (row.acc_strict, row.acc_lenient) == (wilson(0, 8), wilson(8, 8))
        assert (row.acc_given_valid, row.coverage) == (wilson(8, 8), 1.0)


def test_following_every_form_and_knowing_nothing(store: Store) -> None:
    """Two of the eight questions have A for an answer, which is what guessing would get."""
    found = report(store, first_in_form, formats=tuple(FORMATS))
    assert len(found.rows) == 12
    for row in found.rows:
        assert row.outcomes == {"STRICT_VALID": NUM_ITEMS}
        assert (row.fcr_strict, row.fcr_lenient) == (wilson(8, 8), wilson(8, 8))
        assert (row.acc_strict, row.acc_lenient) == (wilson(2, 8), wilson(2, 8))
        assert (row.chance, row.majority, row.at_chance) == (0.25, 0.25, True)


class TestAlwaysA:
    """Right where the gold stands at A.

    With the gold g moved to the slot X, the options have been rotated by X - g, so that A shows the
    option g - X (mod 4). Over the four X that is every option once. The original is the same question
    as `gold_at` of the slot where the gold stands anyway, and shows option 0 at A.
    """

    def report(self, store: Store, *variants: str) -> Report:
        return report(
            store, lambda _: "A", formats=("letter",), variants=variants, languages=("en",)
        )

    def test_it_is_never_consistent_over_the_gold_positions(self, store: Store) -> None:
        """Four contents in four variants: no two of the six pairs are equal."""
        (row,) = self.report(store, *GOLD_AT).robustness
        assert (row.n, row.fewest, row.most) == (NUM_ITEMS, 4, 4)
        assert (row.reacc, row.recon) == (wilson(0, 8), wilson(0, 8))
        none_of_eight = wilson(0, 8)
        assert (row.pairwise, row.low, row.high) == (0.0, none_of_eight.low, none_of_eight.high)

    def test_the_original_is_one_of_the_four_and_no_fifth(self, store: Store) -> None:
        (row,) = self.report(store, "original", *GOLD_AT).robustness
        assert (row.n, row.fewest, row.most) == (NUM_ITEMS, 4, 4)
        assert (row.reacc, row.recon, row.pairwise) == (wilson(0, 8), wilson(0, 8), 0.0)
        assert row.worst == ("gold_at(B)", wilson(0, 8))

    def test_its_preference_for_the_first_slot_shows(self, store: Store) -> None:
        """Each slot is gold 8 times in the four variants and twice in the original.

        Recalls 1, 0, 0, 0 have the mean 1/4 and the standard deviation
        sqrt(((3/4)² + 3 · (1/4)²) / 4) = sqrt(3)/4. Chosen 1, 0, 0, 0, gold 1/4 each: half of
        3/4 + 3 · 1/4 is 3/4.
        """
        (row,) = self.report(store, "original", *GOLD_AT).positions
        assert [rate.n for rate in row.recalls] == [10, 10, 10, 10]
        assert [rate.value for rate in row.recalls] == [1.0, 0.0, 0.0, 0.0]
        assert row.rstd == pytest.approx(3**0.5 / 4)
        assert (row.gold_shares, row.chosen_shares) == ((0.25,) * 4, (1.0, 0.0, 0.0, 0.0))
        assert row.total_variation == 0.75

    def test_moving_the_gold_away_from_a_takes_what_it_got_by_luck(self, store: Store) -> None:
        """Original: 2 of 8 right, those with the gold at A, which `gold_at(A)` leaves as they are. The
        other 6 are gained: p = 2 / 2⁶, times four tests of one family. Elsewhere 2 are left as they
        are, and of the other 6 none is right and 2 are lost: p = 2 / 2², times three. In the four that
        were wrong before, another option stands at A.
        """
        to_a, *others = self.report(store, "original", *GOLD_AT).variants
        assert (to_a.n, to_a.num_verbatim) == (6, 2)
        assert (to_a.b, to_a.c, to_a.wrong_to_other, to_a.delta) == (0, 6, 0, 1.0)
        assert (to_a.p, to_a.p_holm) == (0.03125, 0.125)
        for effect in others:
            assert (effect.b, effect.c, effect.wrong_to_other) == (2, 0, 4)
            assert effect.delta == pytest.approx(-1 / 3)
            assert (effect.p, effect.p_holm) == (0.5, 1.0)
            assert effect.flip_rate == wilson(6, 6)


def test_knowing_all_and_transforming_nothing(store: Store) -> None:
    """It writes the right letter whatever is asked: its knowledge is right, and only the form wrong."""
    found = report(
        store, right_letter, formats=("letter", "json"), variants=("original", *TRANSFORMS)
    )
    splits = [split for split in found.splits if split.variant != "original"]
    assert len(splits) == 2 * 2 * len(TRANSFORMS)
    for split in splits:
        assert (split.right, split.wrong_form) == (wilson(0, 8), wilson(8, 8)), split.variant
        assert split.wrong_knowledge == split.both_wrong == split.unread == wilson(0, 8)


def test_transforming_all_and_knowing_nothing(store: Store) -> None:
    """It transforms the first option: right for two of eight, and else only its knowledge is wrong."""
    found = report(
        store, first_transformed, formats=("letter",), variants=("original", *TRANSFORMS)
    )
    splits = [split for split in found.splits if split.variant != "original"]
    assert len(splits) == 2 * len(TRANSFORMS)
    for split in splits:
        assert (split.right, split.wrong_knowledge) == (wilson(2, 8), wilson(6, 8)), split.variant
        assert split.wrong_form == split.both_wrong == split.unread == wilson(0, 8)
