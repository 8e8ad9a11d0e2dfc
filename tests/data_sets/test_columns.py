"""Which column is which: by its name, or asked; never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlocal.data.columns import FIELDS, ColumnMap, folded, parse_map, recognise
from medlocal.errors import UsageError


def recognised(names: str, *told: str) -> ColumnMap:
    return recognise(names.split("|"), parse_map(told))


class TestNames:
    @pytest.mark.parametrize(
        ("names", "question", "options", "answer"),
        [
            ("question|A|B|C|D|answer", "question", "A|B|C|D", "answer"),
            ("Stem|option_a|option_b|Key", "Stem", "option_a|option_b", "Key"),
            ("Pregunta|Opción A|Opción B|Opción C|Respuesta", "Pregunta",
             "Opción A|Opción B|Opción C", "Respuesta"),
            ("ENUNCIADO|a)|b)|c)|Solución", "ENUNCIADO", "a)|b)|c)", "Solución"),
            ("Texto|respuesta_1|respuesta_2|Respuesta correcta", "Texto",
             "respuesta_1|respuesta_2", "Respuesta correcta"),
            ("question|op1|op2|op3|op4|cop", "question", "op1|op2|op3|op4", "cop"),
            ("question|opa|opb|opc|opd|gold", "question", "opa|opb|opc|opd", "gold"),
            ("question|choice1|choice2|correct", "question", "choice1|choice2", "correct"),
            ("pregunta|1|2|3|clave", "pregunta", "1|2|3", "clave"),
            ("stem|ending0|ending1|ending2|label", "stem", "ending0|ending1|ending2", "label"),
            ("answer|B|question|A", "question", "A|B", "answer"),
        ],
    )  # fmt: skip
    def test_english_and_spanish_names_are_known(
        self, names: str, question: str, options: str, answer: str
    ) -> None:
        found = recognised(names)
        assert (found.question, "|".join(found.option_columns), found.answer) == (
            question,
            options,
            answer,
        )

    @pytest.mark.parametrize("name", ["options", "Opciones", "choices", "Alternativas"])
    def test_one_column_may_hold_all_options(self, name: str) -> None:
        found = recognised(f"question|{name}|answer")
        assert (found.option_columns, found.options) == ((), name)

    def test_the_other_columns_are_known_too(self) -> None:
        found = recognised(
            "Nº|Especialidad|Idioma|Caso clínico|Explicación|Dificultad|Caso ID|Partición|Etiquetas"
            "|Pregunta|A|B|Clave"
        )
        assert found.used() == {
            "question": ("Pregunta",),
            "answer": ("Clave",),
            "id": ("Nº",),
            "subject": ("Especialidad",),
            "language": ("Idioma",),
            "context": ("Caso clínico",),
            "rationale": ("Explicación",),
            "difficulty": ("Dificultad",),
            "group": ("Caso ID",),
            "split": ("Partición",),
            "flags": ("Etiquetas",),
            "options": ("A", "B"),
        }

    def test_a_name_may_say_that_the_answers_are_letters(self) -> None:
        assert recognised("question|A|B|answer_letter").answer_is_letter
        assert recognised("pregunta|A|B|Letra correcta").answer_is_letter
        assert not recognised("question|A|B|answer").answer_is_letter

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("Opción A)", "opciona"), ("  NÚMERO_de-caso ", "numerodecaso"), ("n.º", "no"), ("", "")],
    )
    def test_accents_case_spaces_and_signs_do_not_count(self, name: str, expected: str) -> None:
        assert folded(name) == expected

    def test_a_word_that_ends_like_an_option_is_none(self) -> None:
        assert recognised("question|A|B|alta|answer").option_columns == ("A", "B")


class TestAmbiguity:
    @pytest.mark.parametrize(
        ("names", "message", "hint"),
        [
            ("question|stem|A|B|answer", "could be the question: 'question', 'stem'",
             "--map question=question"),
            ("question|A|B|answer|answer_idx", "could be the answer: 'answer', 'answer_idx'",
             "--map answer=answer"),
            ("question|A|B|answer|answer_letter", "could be the answer: 'answer', 'answer_letter'",
             "--map 'answer=answer_letter'"),
            ("id|código|question|A|B|answer", "could be the id: 'id', 'código'", "--map id=id"),
            ("pregunta|respuesta_1|respuesta_2|respuesta", "could be the answer or one of the options",
             "--map answer=respuesta"),
            ("question|A|B|op1|op2|answer", "the options: A B; op1 op2", "--map A=COLUMN"),
            ("question|options|A|B|answer", "the options: options; A B", "--map options=COLUMN"),
            ("question|A|a|B|answer", "could be the same option: 'A', 'a'", None),
            ("question|A|B|D|answer", "the options have a gap: 'A', 'B', 'D'", "--map A=COLUMN"),
        ],
    )  # fmt: skip
    def test_it_is_refused_with_what_to_write(
        self, names: str, message: str, hint: str | None
    ) -> None:
        with pytest.raises(UsageError) as caught:
            recognised(names)
        assert message in caught.value.message
        assert (hint or "") in (caught.value.hint or "")

    def test_saying_which_settles_it(self) -> None:
        names = "pregunta|respuesta_1|respuesta_2|respuesta"
        found = recognised(names, "answer=respuesta")
        assert found.option_columns == ("respuesta_1", "respuesta_2")
        assert found.answer == "respuesta"

    def test_eleven_options_are_refused(self) -> None:
        options = "|".join(f"op{i}" for i in range(1, 12))
        with pytest.raises(UsageError, match="11 columns of options: at most 10"):
            recognised(f"question|{options}|answer")


class TestMissing:
    def test_the_columns_that_there_are_are_named(self) -> None:
        with pytest.raises(UsageError) as caught:
            recognised("Foo|A|B|Correcta")
        assert caught.value.message == (
            "no column for the question among: 'Foo', 'A', 'B', 'Correcta'"
        )
        assert "--map question=Pregunta" in str(caught.value.hint)

    def test_all_that_is_missing_is_named_at_once(self) -> None:
        with pytest.raises(UsageError, match="the question and the answer and the options among"):
            recognised("x|y")

    def test_one_option_is_not_enough(self) -> None:
        with pytest.raises(UsageError, match="no column for the options"):
            recognised("question|A|answer")


class TestTold:
    def test_a_column_is_taken_for_what_it_is_said_to_be(self) -> None:
        found = recognised("q1|first|second|key", "question=q1", "A=first", "option_b=second")
        assert found == ColumnMap("q1", "key", ("first", "second"))

    def test_it_is_found_without_accents_and_case(self) -> None:
        assert recognised("Título|A|B|key", "question=titulo").question == "Título"

    def test_a_column_that_was_told_is_taken_for_nothing_else(self) -> None:
        found = recognised("stem|texto|A|B|key", "context=texto")
        assert (found.question, found.context) == ("stem", "texto")

    def test_a_field_can_be_said_to_have_no_column(self) -> None:
        assert not recognised("question|A|B|key|tema|materia", "subject=").subject

    def test_a_list_of_options_is_preferred_if_told(self) -> None:
        found = recognised("question|A|B|lista|key", "options=lista")
        assert (found.option_columns, found.options) == ((), "lista")

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            (["question"], "not FIELD=COLUMN"),
            (["questoin=x"], r"no field is called 'questoin'\n  → did you mean question"),
            (["id=x", "id=y"], "names id twice"),
            (["question=Pregnta"], r"no column \(for question\) (.|\n)*did you mean pregunta"),
            (["A=pregunta"], "from A on, at least two"),
            (["A=pregunta", "C=x"], "from A on, at least two"),
            (["options=x", "A=pregunta", "B=x"], "all options and columns of single ones"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, told: list[str], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            recognised("pregunta|x|key", *told)


@given(
    names=st.lists(
        st.sampled_from(["question", "stem", "A", "B", "C", "op1", "op2", "answer", "key", "respuesta",
                         "respuesta_1", "respuesta_2", "options", "id", "x"])
        | st.text(max_size=4),
        max_size=8,
        unique=True,
    ),
    told=st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(["", "A", "x", "stem"]), max_size=3),
)  # fmt: skip
def test_any_names_give_a_map_or_our_own_error(names: list[str], told: dict[str, str]) -> None:
    try:
        found = recognise(names, told)
    except UsageError:
        return
    used = [column for columns in found.used().values() for column in columns]
    assert set(used) <= set(names)
    assert found.question
    assert found.answer
    assert bool(found.option_columns) != bool(found.options)
