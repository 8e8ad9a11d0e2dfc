"""The encoding of a file: found out, or refused, never a text with other letters in it."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medlocal.data.encoding import detect_encoding, mojibake
from medlocal.errors import MissingError, UsageError

SPANISH = (
    "Pregunta;A;B;Respuesta\n"
    "¿Cuál es la causa más frecuente de hipertensión en el niño pequeño?;Riñón;Corazón;A\n"
    "Varón de 63 años con disnea: 37 °C, 5 µg/l, «grave», 3ª vez;Índice – bajo;Útil;B\n"
)
# Words with one accent each, as they may be the only ones of a file.
ACCENTED = (
    "hipertensión está días país más según también único úlcera Úlcera Ácido Índice Óptico ÁNGEL"
    " SEGÚN íleon época vía crónica pingüino niño ñoño año MÉDICO SÍNTOMA razón así allí pasó maíz"
    " café ánimo ítem éxito área él Él Éxito Único Óseo Árbol cigüeña ATENCIÓN NIÑO RAÚL óvulo"
    " álgido útil PAÍS ¿Cuál ¡Atención «fármaco»"
)
WORDS = ACCENTED.split()
OTHERS = ["cp850", "cp437", "mac-roman"]


def can_be(word: str, codec: str) -> bool:
    return word.encode(codec, "ignore").decode(codec) == word


def file_of(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    return path


class TestSureEncodings:
    @pytest.mark.parametrize(
        ("codec", "expected"),
        [
            ("utf-8", "utf-8"),
            ("utf-8-sig", "utf-8-sig"),
            ("utf-16", "utf-16"),
            ("utf-32", "utf-32"),
            ("cp1252", "cp1252"),
        ],
    )
    def test_spanish_text_is_read_as_it_was_written(
        self, tmp_path: Path, codec: str, expected: str
    ) -> None:
        path = file_of(tmp_path, SPANISH.encode(codec))
        assert detect_encoding(path) == expected
        assert path.read_text(encoding=expected) == SPANISH

    def test_utf_16_of_the_other_byte_order_is_known_by_its_mark(self, tmp_path: Path) -> None:
        assert detect_encoding(file_of(tmp_path, b"\xfe\xff\x00a")) == "utf-16"

    def test_ascii_is_utf_8(self, tmp_path: Path) -> None:
        assert detect_encoding(file_of(tmp_path, b"a,b\n")) == "utf-8"

    def test_an_empty_file_is_utf_8(self, tmp_path: Path) -> None:
        assert detect_encoding(file_of(tmp_path, b"")) == "utf-8"

    def test_a_letter_across_two_pieces_of_the_file_is_whole(self, tmp_path: Path) -> None:
        content = b"a" * ((1 << 20) - 1) + "ñ".encode()
        assert detect_encoding(file_of(tmp_path, content)) == "utf-8"


class TestWindows1252:
    @pytest.mark.parametrize(
        "text",
        [
            "La lésion du cœur n’est pas sévère : « bénigne »",
            "L’età è più avanzata, perché però",
            "The patient’s heart rate is 80 and the patient said “no”",
            "NIÑO CON TOS",
            "Síndrome de Sjögren, 5 µg/l, 10 m², 37 °C, ± 2, 1ª y 2º, ½",
        ],
    )
    def test_text_of_the_four_languages_is_accepted(self, tmp_path: Path, text: str) -> None:
        assert detect_encoding(file_of(tmp_path, text.encode("cp1252"))) == "cp1252"

    @pytest.mark.parametrize(
        ("word", "codec"), [(w, codec) for w in WORDS for codec in OTHERS if can_be(w, codec)]
    )
    def test_one_word_in_another_encoding_is_refused(
        self, tmp_path: Path, word: str, codec: str
    ) -> None:
        content = f"el caso;{word};de la tos\n".encode(codec)
        with pytest.raises(UsageError, match="its encoding cannot be told"):
            detect_encoding(file_of(tmp_path, content))

    @given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=30))
    @example(words=WORDS)
    def test_spanish_in_cp850_or_mac_roman_is_never_accepted(
        self, words: list[str], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("encoding")
        for codec in ("cp850", "mac-roman"):
            path = file_of(folder, " ".join(words).encode(codec))
            with pytest.raises(UsageError):
                detect_encoding(path)

    def test_the_error_shows_what_the_text_would_be(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"ok\n" + "hipertensión".encode("cp850"))
        with pytest.raises(UsageError) as caught:
            detect_encoding(path)
        assert caught.value.message == (
            f"{path}:2: the file is not UTF-8, and its encoding cannot be told: 'hipertensi¢n' in"
            " windows-1252, 'hipertensión' in cp850, 'hipertensi¢n' in mac-roman"
        )
        assert "--encoding" in str(caught.value.hint)

    @pytest.mark.parametrize(
        "text", ["приветствие больного", "ασθενής με πυρετό", "pacjent źle się czuje"]
    )
    def test_other_alphabets_of_one_byte_are_refused(self, tmp_path: Path, text: str) -> None:
        codec = {"п": "cp1251", "α": "cp1253", "p": "cp1250"}[text[0]]
        with pytest.raises(UsageError):
            detect_encoding(file_of(tmp_path, text.encode(codec)))

    @given(content=st.binary(max_size=200))
    def test_any_bytes_are_decoded_whole_or_refused(
        self, content: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = file_of(tmp_path_factory.mktemp("encoding"), content)
        try:
            codec = detect_encoding(path)
        except UsageError:
            return
        content.decode(codec)


class TestDamage:
    def test_a_zero_byte_is_refused_with_its_line(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"file\.csv:2: a NUL byte"):
            detect_encoding(file_of(tmp_path, b"a\nb\0"))

    def test_utf_16_that_is_cut_off_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="begins as utf-16 and is damaged"):
            detect_encoding(file_of(tmp_path, b"\xff\xfea\0b"))

    def test_utf_8_with_one_broken_letter_is_refused(self, tmp_path: Path) -> None:
        content = SPANISH.encode() + b"\xf1\n"
        with pytest.raises(UsageError, match=r"file\.csv:4: the file is UTF-8 as far as this"):
            detect_encoding(file_of(tmp_path, content))

    def test_a_missing_file_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            detect_encoding(tmp_path / "none.csv")


class TestWanted:
    def test_what_is_wanted_is_believed(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, SPANISH.replace("–", "-").encode("cp850"))
        assert detect_encoding(path, "cp850") == "cp850"

    def test_utf_8_with_a_mark_loses_the_mark(self, tmp_path: Path) -> None:
        assert detect_encoding(file_of(tmp_path, b"\xef\xbb\xbfa"), "UTF-8") == "utf-8-sig"

    def test_a_file_that_is_not_in_it_is_refused_with_the_line(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"file\.csv:2: the file is not in ascii"):
            detect_encoding(file_of(tmp_path, "a\nñ".encode()), "ascii")

    @pytest.mark.parametrize("name", ["latin-99", "hex", "rot13", "idna", "unicode_escape", "\0"])
    def test_what_is_no_encoding_of_files_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError):
            detect_encoding(file_of(tmp_path, b"a"), name)


class TestMojibake:
    @pytest.mark.parametrize("codec", ["cp1252", "latin-1", "mac-roman", "cp850"])
    @pytest.mark.parametrize("word", ["año", "razón", "¿Qué", "más", "menú"])
    def test_utf_8_that_was_read_as_another_encoding_is_found(self, word: str, codec: str) -> None:
        assert mojibake(word.encode().decode(codec)) is not None

    def test_what_was_found_is_said(self) -> None:
        assert mojibake("RazÃ³n") == "Ã³"

    @pytest.mark.parametrize("text", [SPANISH, "plain", "São Paulo, NÃO", "√2 ≥ 1", "Âge", "¬A"])
    def test_right_text_is_left_alone(self, text: str) -> None:
        assert mojibake(text) is None
