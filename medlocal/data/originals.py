"""Original releases of data sets: their files found in a folder, and put into the Hub's columns.

Each set's files are read as its authors published them and come out as rows with the columns that the
set has on the Hub, so that one reader per set serves both. What the columns mean, and which records
can be asked, is not known here; only what must be checked to name the line at fault is checked.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlocal.data import casimedicos
from medlocal.data.rows import Row
from medlocal.errors import MissingError, UsageError

MMLU_SUBJECTS = (
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
)
"""The six of MMLU's 57 subjects that the field reports as medical."""

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
"""Names in file names, and what the Hub calls them. MMLU's `dev` is `dev` there too."""


@dataclass(frozen=True, slots=True)
class _Release:
    """Where the files of a release lie."""

    subfolders: tuple[str, ...]
    """Folders that the usual copies put them in."""
    needed: tuple[str, ...]
    """Files that hold what is asked."""
    further: tuple[str, ...] = ()
    """Files that are read where they are there."""


_RELEASES: Mapping[str, _Release] = {
    "medqa": _Release(
        ("medqa", "questions/US/4_options", "data_clean/questions/US/4_options"),
        ("phrases_no_exclude_test.jsonl",),
        ("phrases_no_exclude_train.jsonl", "phrases_no_exclude_dev.jsonl"),
    ),
    "medmcqa": _Release(("medmcqa", "data"), ("dev.json",), ("train.json", "test.json")),
    "mmlu": _Release(
        ("mmlu", "data"),
        tuple(f"test/{subject}_test.csv" for subject in MMLU_SUBJECTS),
        tuple(f"{part}/{name}_{part}.csv" for part in ("dev", "val") for name in MMLU_SUBJECTS),
    ),
    "pubmedqa": _Release(("pubmedqa", "data"), ("ori_pqal.json", "test_ground_truth.json")),
    "head-qa": _Release(
        ("head_qa", "head-qa", "data"),
        ("HEAD/test_HEAD.json", "HEAD_EN/test_HEAD_EN.json"),
        tuple(f"{name}/{part}_{name}.json" for name in ("HEAD", "HEAD_EN") for part in _SPLITS),
    ),
    "casimedicos": _Release(
        ("casimedicos", "data"),
        tuple(f"{language}/test.tsv" for language in ("EN", "ES", "FR", "IT")),
        tuple(f"{name}/{part}.tsv" for name in ("EN", "ES", "FR", "IT") for part in _SPLITS),
    ),
}


def has_original(reader: str, folder: Path) -> bool:
    """True where the original release of a set lies in the folder or its usual subfolder.

    Raises:
        MissingError: a part of it lies there, and files that are needed do not.
    """
    if reader not in _RELEASES:
        return False
    release = _RELEASES[reader]
    if _base(release, folder) is not None:
        return True
    for place in (folder, *(folder / name for name in release.subfolders)):
        missing = [name for name in release.needed if not (place / name).is_file()]
        if len(missing) < len(release.needed):
            raise MissingError(
                f"{place} holds a part of the original release; missing: {', '.join(missing)}",
                hint="copy the rest",
            )
    return False


def original_files(reader: str, folder: Path) -> list[Path]:
    """The files that are read of a release, each once: those needed first.

    Raises:
        MissingError: one that is needed is not there.
    """
    base, release = _found(reader, folder), _RELEASES[reader]
    further = [base / name for name in release.further if (base / name).is_file()]
    return list(dict.fromkeys([*(base / name for name in release.needed), *further]))


def _found(reader: str, folder: Path) -> Path:
    base = _base(_RELEASES[reader], folder)
    if base is None:
        needed = ", ".join(_RELEASES[reader].needed)
        raise MissingError(
            f"{folder} does not hold the original files {needed}",
            hint=f"give the folder of the original release, or run `medlocal data pull {reader}`",
        )
    return base


def _base(release: _Release, folder: Path) -> Path | None:
    places = (folder, *(folder / name for name in release.subfolders))
    for place in places:
        if all((place / name).is_file() for name in release.needed):
            return place
    return None


def _medqa(folder: Path) -> Iterator[Row]:
    columns = {"question": str, "options": dict, "answer_idx": str}
    for path in original_files("medqa", folder):
        split = _SPLITS[path.stem.rpartition("_")[2]]
        for number, (where, values) in enumerate(_json_lines(path), start=1):
            _require(where, values, columns)
            yield Row(values, split, "en", "", number)


def _medmcqa(folder: Path) -> Iterator[Row]:
    for path in original_files("medmcqa", folder):
        for number, (where, values) in enumerate(_json_lines(path), start=1):
            _require(where, values, {"id": str, "question": str})
            row = {**values, "cop": _zero_based(where, values.get("cop"))}
            yield Row(row, _SPLITS[path.stem], "en", "", number)


def _zero_based(where: str, cop: object) -> int:
    """The release counts options from 1, the Hub from 0; -1 in both senses = not published."""
    if cop is None:
        return -1
    if not isinstance(cop, int) or isinstance(cop, bool) or not 1 <= cop <= 4:
        raise UsageError(f"{where}: cop must be 1, 2, 3 or 4, not {cop!r}")
    return cop - 1


def _mmlu(folder: Path) -> Iterator[Row]:
    for path in original_files("mmlu", folder):
        subject, _, part = path.stem.rpartition("_")
        split = "validation" if part == "val" else part
        for number, (where, cells) in enumerate(_csv_rows(path), start=1):
            if len(cells) != 6 or cells[5] not in set("ABCD"):
                raise UsageError(
                    f"{where}: not a question, four options and one of A, B, C and D",
                    hint="fetch the file again",
                )
            values = {
                "question": cells[0],
                "subject": subject,
                "choices": cells[1:5],
                "answer": "ABCD".index(cells[5]),
            }
            yield Row(values, split, "en", subject, number)


def _pubmedqa(folder: Path) -> Iterator[Row]:
    records, truth = (_json_object(path) for path in original_files("pubmedqa", folder))
    path = original_files("pubmedqa", folder)[0]
    numbers = {"test": 0, "train": 0}
    for place, (pmid, values) in enumerate(records.items(), start=1):
        where = f"{path}, record {place} ({pmid})"
        _require(where, values, {"QUESTION": str, "CONTEXTS": list, "final_decision": str})
        split = "test" if pmid in truth else "train"
        if truth.get(pmid, values["final_decision"]) != values["final_decision"]:
            raise UsageError(f"{where}: final_decision is another than in the ground truth")
        numbers[split] += 1
        yield Row(values, split, "en", "", numbers[split])
    if numbers["test"] != len(truth):
        raise UsageError(
            f"{path} holds {numbers['test']} of the {len(truth)} questions of the test split",
            hint="give the folder with both files of one release",
        )


def _head_qa(folder: Path) -> Iterator[Row]:
    for path in original_files("head-qa", folder):
        part, _, name = path.stem.partition("_")
        language = "es" if name == "HEAD" else "en"
        for number, values in enumerate(_head_qa_questions(path), start=1):
            yield Row(values, _SPLITS[part], language, language, number)


def _head_qa_questions(path: Path) -> Iterator[dict[str, Any]]:
    exams = _json_object(path).get("exams")
    if not isinstance(exams, dict):
        raise UsageError(f"{path}: it holds no object 'exams'", hint="fetch the file again")
    for key, exam in exams.items():
        _require(f"{path}, exam {key!r}", exam, {"name": str, "category": str, "data": list})
        of_exam = {"name": exam["name"], "year": exam.get("year"), "category": exam["category"]}
        for place, values in enumerate(exam["data"], start=1):
            where = f"{path}, exam {key!r}, record {place}"
            _require(where, values, {"qtext": str, "answers": list})
            yield {**values, **of_exam}


def _casimedicos(folder: Path) -> Iterator[Row]:
    return casimedicos.read_original(_found("casimedicos", folder))


ORIGINALS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    "medqa": _medqa,
    "medmcqa": _medmcqa,
    "mmlu": _mmlu,
    "pubmedqa": _pubmedqa,
    "head-qa": _head_qa,
    "casimedicos": _casimedicos,
}
"""By the name of the set's reader: from a folder with the release to rows in the Hub's columns.

Raises MissingError where a needed file is not there, and UsageError, with file and line or record,
where one is malformed."""


def _require(where: str, values: object, columns: Mapping[str, type]) -> None:
    if not isinstance(values, dict):
        raise UsageError(f"{where}: not a JSON object", hint="fetch the file again")
    for name, expected in columns.items():
        if not isinstance(values.get(name), expected):
            raise UsageError(
                f"{where}: {name!r} is missing or no {expected.__name__}",
                hint="fetch the file again",
            )


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of the lines that are not blank, each with FILE:LINE; never all in memory."""
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if raw.strip():
                    yield f"{path}:{number}", _json(f"{path}:{number}", raw)
    except OSError as error:
        raise _unreadable(path, error) from error


def _json_object(path: Path) -> dict[str, Any]:
    values = _json(str(path), _content(path))
    if not isinstance(values, dict):
        raise UsageError(f"{path}: not a JSON object", hint="fetch the file again")
    return values


def _json(where: str, raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"))
    # ValueError is also what UTF-8 and a number of too many digits raise.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}", hint="fetch the file again") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The records of a CSV file, each with FILE:LINE of its beginning."""
    begin = 1
    try:
        reader = csv.reader(io.StringIO(_content(path).decode("utf-8"), newline=""), strict=True)
        for cells in reader:
            yield f"{path}:{begin}", cells
            begin = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{path}:{begin}: not CSV: {error}", hint="fetch the file again"
        ) from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> MissingError:
    return MissingError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions")
