import csv
import hashlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlocal.catalog import HubItems
from medlocal.data.hub_rows import (
    cached_commit,
    fetch_hub,
    hub_files,
    read_hub_cache,
    read_hub_folder,
)
from medlocal.data.originals import ORIGINALS
from medlocal.data.readers import READERS
from medlocal.data.rows import Row
from medlocal.errors import MedlocalError, MissingError, UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
DEFAULT = [("default", "en")]
RECORDS = [{"id": n, "question": f"Q{n}?", "options": {"A": "a", "B": None}} for n in (1, 2, 3)]


def write_parquet(path: Path, records: list[Any], schema: Any = None) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, schema=schema), path)
    return path


def write_arrow(path: Path, records: list[Any]) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(records)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def write_jsonl(path: Path, records: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")


def write_json(path: Path, records: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")


def splits_of(rows: Iterator[Row], column: str = "id") -> dict[tuple[str, str], list[Any]]:
    """By configuration and split, the values of one column."""
    found: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        found.setdefault((row.config, row.split), []).append(row.values[column])
    return found


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test where anything makes a socket, even if the failure is swallowed there."""
    made: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        made.append(args)
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert made == []


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (write_parquet, "parquet"),
        (write_arrow, "arrow"),
        (write_jsonl, "jsonl"),
        (write_json, "json"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_rows_come_as_they_were_written(
    tmp_path: Path, write: Callable[[Path, list[Any]], object], suffix: str
) -> None:
    # A folder whose name the library would take for a pattern.
    write(tmp_path / f"a [b]*/data/test.{suffix}", RECORDS)

    rows = list(read_hub_folder(tmp_path / "a [b]*", DEFAULT))

    assert rows == [Row(values, "test", "en", "", n) for n, values in enumerate(RECORDS, 1)]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = write_parquet(tmp_path / "set/test.parquet", RECORDS)

    list(read_hub_folder(tmp_path / "set", DEFAULT))

    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_shards_are_one_split_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1, 0, 2):
        path = tmp_path / f"data/train-{number:05}-of-00003.parquet"
        write_parquet(path, [{"id": number}])

    rows = list(read_hub_folder(tmp_path, DEFAULT))

    assert [(row.values["id"], row.number) for row in rows] == [(0, 1), (1, 2), (2, 3)]


def test_a_split_that_the_library_wrote_keeps_its_own_name(tmp_path: Path) -> None:
    for split in ("dev", "validation", "test"):
        write_parquet(tmp_path / f"anatomy/{split}-00000-of-00001.parquet", [{"id": split}])

    rows = read_hub_folder(tmp_path, [("anatomy", "en")])

    assert splits_of(rows) == {
        ("anatomy", "dev"): ["dev"],
        ("anatomy", "test"): ["test"],
        ("anatomy", "validation"): ["validation"],
    }


def test_a_folder_saved_to_disk_by_the_library_is_read(tmp_path: Path) -> None:
    import datasets

    saved = datasets.DatasetDict(
        {split: datasets.Dataset.from_list([{"id": split}]) for split in ("train", "test")}
    )
    saved.save_to_disk(tmp_path / "saved")

    rows = read_hub_folder(tmp_path / "saved", DEFAULT)

    assert splits_of(rows) == {("", "train"): ["train"], ("", "test"): ["test"]}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("phrases_no_exclude_test.jsonl", "test"),
        ("data/es/dev.es.casimedicos.rag.jsonl", "validation"),
        ("es/validation/0000.jsonl", "validation"),
        ("test_es_ordered.jsonl", "test"),
        ("training.jsonl", "train"),
        ("contest.jsonl", "train"),
    ],
)
def test_splits_are_read_from_names_as_the_library_does(
    tmp_path: Path, name: str, split: str
) -> None:
    write_jsonl(tmp_path / name, RECORDS)

    assert set(splits_of(read_hub_folder(tmp_path, [("es", "es")]))) == {("es", split)}


def test_configurations_are_folders_or_files_of_their_name(tmp_path: Path) -> None:
    write_json(tmp_path / "CareQA_en.json", [{"id": "en"}])
    write_json(tmp_path / "CareQA_en_open.json", [{"id": "open"}])
    write_parquet(tmp_path / "data/CareQA_es/test.parquet", [{"id": "es"}])

    rows = read_hub_folder(tmp_path, [("CareQA_en", "en"), ("CareQA_es", "es")], "test")

    assert splits_of(rows) == {("CareQA_en", "test"): ["en"], ("CareQA_es", "test"): ["es"]}


def test_the_readme_says_which_files_are_a_configurations(tmp_path: Path) -> None:
    readme = """---
configs:
- config_name: absent
  data_files: [{split: test, path: "absent/*"}]
- config_name: CareQA_en
  data_files:
  - split: test
    path: CareQA_en.json
  - split: held_out
    path: ["more/*.json", "../outside.json"]
---
# A set
"""
    write_json(tmp_path / "set/CareQA_en.json", [{"id": "en"}])
    write_json(tmp_path / "set/more/a.json", [{"id": "more"}])
    write_json(tmp_path / "outside.json", [{"id": "outside"}])
    (tmp_path / "set/README.md").write_text(readme, encoding="utf-8")

    rows = read_hub_folder(tmp_path / "set", [("CareQA_en", "en")])

    assert splits_of(rows) == {("CareQA_en", "test"): ["en"], ("CareQA_en", "held_out"): ["more"]}


def test_a_readme_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", RECORDS)
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n", encoding="utf-8")

    with pytest.raises(UsageError, match=r"README\.md: its head cannot be read"):
        list(read_hub_folder(tmp_path, DEFAULT))


def test_of_several_formats_one_is_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"id": "jsonl"}])
    write_parquet(tmp_path / "test.parquet", [{"id": "parquet"}])

    assert splits_of(read_hub_folder(tmp_path, DEFAULT)) == {("", "test"): ["parquet"]}


def test_pictures_are_handed_on_undecoded(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"id": datasets.Value("int32"), "image": datasets.Image()})
    records = [
        {"id": 1, "image": {"bytes": b"no picture", "path": None}},
        {"id": 2, "image": None},
    ]
    write_parquet(tmp_path / "test.parquet", records, features.arrow_schema)

    assert [dict(row.values) for row in read_hub_folder(tmp_path, DEFAULT)] == records


@pytest.mark.parametrize("configs", [DEFAULT, [("es", "es"), ("en", "en")]])
def test_a_folder_without_files_is_told(tmp_path: Path, configs: list[tuple[str, str]]) -> None:
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")

    with pytest.raises(MissingError, match=f"(?s)configuration {configs[0][0]!r}.*original files"):
        read_hub_folder(tmp_path, configs)
    with pytest.raises(MissingError, match=r"holds no \.parquet"):
        hub_files(tmp_path)


def test_a_configuration_that_is_missing_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "es/test.jsonl", RECORDS)

    with pytest.raises(MissingError, match="of configuration 'en'"):
        read_hub_folder(tmp_path, [("es", "es"), ("en", "en")])


def test_the_files_read_are_listed(tmp_path: Path) -> None:
    for name in ("es/test.jsonl", "en/test.jsonl", "fr/test.jsonl", ".cache/es/test.jsonl"):
        write_jsonl(tmp_path / name, RECORDS)

    def names(paths: list[Path]) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in paths]

    assert names(hub_files(tmp_path)) == ["en/test.jsonl", "es/test.jsonl", "fr/test.jsonl"]
    assert names(hub_files(tmp_path, [("es", "es"), ("fr", "fr")])) == [
        "es/test.jsonl",
        "fr/test.jsonl",
    ]


def test_a_file_that_is_not_what_its_name_says_is_told(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1 not")

    with pytest.raises(UsageError, match=r"test\.parquet cannot be read: ArrowInvalid"):
        list(read_hub_folder(tmp_path, DEFAULT))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "json"])
@given(content=st.binary(max_size=60) | st.text('{}[]:,"x1eN\n', max_size=20).map(str.encode))
@settings(max_examples=25, deadline=None)
def test_random_bytes_raise_no_error_but_ours(suffix: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / f"test.{suffix}").write_bytes(content)
        with suppress(MedlocalError):
            list(read_hub_folder(Path(name), DEFAULT))


def build_cache(
    home: Path, records: list[Any], config: str = "default", commit: str = COMMIT
) -> None:
    """What `load_dataset("Own-Er/MyData")` leaves behind, by the library's own builder."""
    from datasets.data_files import DataFilesDict
    from datasets.load import configure_builder_class
    from datasets.packaged_modules.parquet.parquet import Parquet, ParquetConfig

    path = write_parquet(home / f"scratch/{config}.parquet", records)
    files = DataFilesDict.from_patterns({"test": [str(path)]})
    configs: list[Any] = [ParquetConfig(name=config, data_files=files)]
    builder_class: Any = configure_builder_class(Parquet, configs, config, "my_data")
    builder = builder_class(
        cache_dir=str(home / "built"), dataset_name="my_data", config_name=config, hash=commit
    )
    builder.download_and_prepare()
    # The owner stands in the folder's name only where the library took the files from the Hub.
    built = Path(builder.cache_dir)
    assert built.parts[-4:-2] == ("my_data", config)
    target = home / f"datasets/Own-Er___my_data/{config}/{built.parent.name}"
    target.mkdir(parents=True, exist_ok=True)
    built.rename(target / commit)


def test_the_libraries_are_loaded_only_when_something_is_read() -> None:
    code = (
        "import sys, medlocal.data.hub_rows, medlocal.data.readers, medlocal.data.originals;"
        "sys.exit(' '.join({'datasets', 'pyarrow', 'pandas', 'huggingface_hub'} & set(sys.modules)))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.stderr.strip() == ""


@pytest.mark.parametrize("revision", ["", COMMIT, "refs/convert/parquet"])
def test_what_the_library_cached_is_read_without_the_network(
    tmp_path: Path, request: pytest.FixtureRequest, revision: str
) -> None:
    build_cache(tmp_path, [{"id": "es"}], "es")
    build_cache(tmp_path, [{"id": "en"}], "en")
    request.getfixturevalue("no_network")
    configs = [("es", "es"), ("en", "en")]

    rows = list(read_hub_cache("Own-Er/MyData", configs, revision, tmp_path))

    assert rows == [
        Row({"id": "es"}, "test", "es", "es", 1),
        Row({"id": "en"}, "test", "en", "en", 1),
    ]
    assert cached_commit("Own-Er/MyData", configs, revision, tmp_path) == COMMIT


def test_another_commit_than_the_one_wanted_is_not_taken(tmp_path: Path) -> None:
    build_cache(tmp_path, RECORDS)

    with pytest.raises(MissingError, match=f"at commit {OTHER}; it is at {COMMIT}"):
        read_hub_cache("Own-Er/MyData", DEFAULT, OTHER, tmp_path)


def test_configurations_of_two_commits_are_not_mixed(tmp_path: Path) -> None:
    build_cache(tmp_path, RECORDS, "es", COMMIT)
    build_cache(tmp_path, RECORDS, "en", OTHER)

    with pytest.raises(MissingError, match=r"\(es, en\) is not in the Hub's cache"):
        read_hub_cache("Own-Er/MyData", [("es", "es"), ("en", "en")], "", tmp_path)


def test_a_cache_that_lost_a_file_is_told(tmp_path: Path) -> None:
    build_cache(tmp_path, RECORDS)
    next(tmp_path.rglob("*.arrow")).unlink()

    with pytest.raises(MissingError, match="the files of a split are gone"):
        read_hub_cache("Own-Er/MyData", DEFAULT, "", tmp_path)


@pytest.mark.usefixtures("no_network")
def test_files_that_the_hubs_client_cached_are_read(tmp_path: Path) -> None:
    repository = tmp_path / "hub/datasets--Own-Er--MyData"
    write_jsonl(repository / f"snapshots/{COMMIT}/test.jsonl", RECORDS)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT, encoding="utf-8")

    for revision in ("", COMMIT):
        rows = read_hub_cache("Own-Er/MyData", DEFAULT, revision, tmp_path)
        assert splits_of(rows) == {("", "test"): [1, 2, 3]}


@pytest.mark.usefixtures("no_network")
def test_a_set_that_is_not_cached_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"(?s)owner/nothing \(default\) is not in .*--from DIR"):
        read_hub_cache("owner/nothing", DEFAULT, "", tmp_path)


class HubOnThisMachine(BaseHTTPRequestHandler):
    """The part of the Hub's HTTP interface that a download uses, for the data set owner/tiny."""

    files: Mapping[str, bytes] = {
        "README.md": b"# Tiny\n",
        "data/test.jsonl": b'{"id": 1}\n',
        "raw.zip": b"not asked for",
    }
    gated = False

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        route = self.path.partition("?")[0]
        files = f"/datasets/owner/tiny/resolve/{COMMIT}/"
        if route.startswith("/api/datasets/owner/tiny/tree/"):
            entries = [{"type": "file", "oid": "0", **self.sized("path", n)} for n in self.files]
            self.send(json.dumps(entries).encode())
        elif route.startswith("/api/datasets/owner/tiny/revision/") and "wrong" in route:
            self.send(b"", 404, {"X-Error-Code": "RevisionNotFound"})
        elif route.startswith("/api/datasets/owner/tiny"):
            siblings = [{"blobId": "0", **self.sized("rfilename", name)} for name in self.files]
            info = {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
            self.send(json.dumps(info).encode())
        elif route.startswith(files) and self.gated:
            self.send(b"", 403, {"X-Error-Code": "GatedRepo"})
        elif route.startswith(files):
            content = self.files[route.removeprefix(files)]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            headers = {"ETag": etag, "X-Repo-Commit": COMMIT}
            self.send(content, 200, headers, with_body=with_body)
        else:
            self.send(b"", 404, {"X-Error-Code": "RepoNotFound"})

    def sized(self, key: str, name: str) -> dict[str, object]:
        return {key: name, "size": len(self.files[name])}

    def send(
        self,
        body: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        with_body: bool = True,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing on stderr."""


@contextmanager
def serving(handler: type[HubOnThisMachine] = HubOnThisMachine) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def source(repo: str = "owner/tiny", revision: str = "", files: str = "data/*") -> HubItems:
    return HubItems(
        repo=repo,
        revision=revision,
        files=("README.md", files) if files else (),
        reader="medqa",
        configs=("default",),
        config_languages=("en",),
        columns=("id",),
    )


def test_the_files_that_match_come_and_can_be_read(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []

    with serving() as endpoint:
        commit = fetch_hub(source(), tmp_path, lambda *report: seen.append(report), endpoint)

    assert commit == COMMIT
    assert splits_of(read_hub_folder(tmp_path, DEFAULT)) == {("", "test"): [1]}
    assert not (tmp_path / "raw.zip").exists()
    assert ("fetching owner/tiny", 17) in {(what, done) for what, done, _ in seen}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (source("owner/nothing"), "owner/nothing does not exist, or is private"),
        (source(revision="wrong"), "owner/tiny has no revision 'wrong'"),
    ],
)
def test_what_the_hub_does_not_have_is_told(tmp_path: Path, wanted: HubItems, message: str) -> None:
    with serving() as endpoint, pytest.raises(MissingError, match=message):
        fetch_hub(wanted, tmp_path, endpoint=endpoint)


def test_patterns_that_match_nothing_are_told(tmp_path: Path) -> None:
    class OnlyRaw(HubOnThisMachine):
        files = {"raw.zip": b"not asked for"}  # noqa: RUF012 - never changed

    with serving(OnlyRaw) as endpoint, pytest.raises(MissingError, match="has no file README"):
        fetch_hub(source(), tmp_path, endpoint=endpoint)


def test_a_gated_repository_says_what_to_do(tmp_path: Path) -> None:
    class Gated(HubOnThisMachine):
        gated = True

    with serving(Gated) as endpoint, pytest.raises(MissingError, match=r"(?s)gated.*hf auth login"):
        fetch_hub(source(), tmp_path, endpoint=endpoint)


def test_a_hub_that_is_out_of_reach_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"(?s)could not be fetched.*--from DIR"):
        fetch_hub(source(), tmp_path, endpoint="http://127.0.0.1:9")


def copy_medqa(release: Path, folder: Path) -> list[tuple[str, str]]:
    with (release / "phrases_no_exclude_test.jsonl").open(encoding="utf-8") as stream:
        write_parquet(folder / "data/test-00000-of-00001.parquet", [json.loads(x) for x in stream])
    return DEFAULT


def copy_medmcqa(release: Path, folder: Path) -> list[tuple[str, str]]:
    with (release / "dev.json").open(encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream]
    for record in records:
        record["cop"] -= 1
    write_parquet(folder / "data/validation-00000-of-00001.parquet", records)
    return DEFAULT


def copy_mmlu(release: Path, folder: Path) -> list[tuple[str, str]]:
    subjects = []
    for path in sorted(release.glob("*/*.csv")):
        subject, _, split = path.stem.rpartition("_")
        with path.open(encoding="utf-8", newline="") as stream:
            records = [
                {"question": q, "subject": subject, "choices": four, "answer": ord(key) - ord("A")}
                for q, *four, key in csv.reader(stream)
            ]
        write_parquet(folder / f"{subject}/{split}-00000-of-00001.parquet", records)
        subjects.append((subject, "en"))
    return sorted(set(subjects))


def copy_pubmedqa(release: Path, folder: Path) -> list[tuple[str, str]]:
    config = "pubmed_qa_labeled_fold0_source"
    records = json.loads((release / "ori_pqal.json").read_bytes())
    tested = json.loads((release / "test_ground_truth.json").read_bytes()).keys()
    for split, chosen in (("test", tested), ("train", records.keys() - tested)):
        path = folder / f"{config}/{split}-00000-of-00001.parquet"
        write_parquet(path, [records[pmid] for pmid in chosen])
    return [(config, "en")]


def copy_head_qa(release: Path, folder: Path) -> list[tuple[str, str]]:
    import pyarrow

    answer = pyarrow.struct([("aid", pyarrow.int32()), ("atext", pyarrow.string())])
    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in ("name", "year", "category", "qtext")]
        + [(name, pyarrow.int32()) for name in ("qid", "ra")]
        + [("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))]
        + [("answers", pyarrow.list_(answer))]
    )
    splits = {"train": "train", "dev": "validation", "test": "test"}
    for name, language in (("HEAD", "es"), ("HEAD_EN", "en")):
        for part, split in splits.items():
            exams = json.loads((release / name / f"{part}_{name}.json").read_bytes())["exams"]
            records = [
                {
                    **{key: exam[key] for key in ("name", "year", "category")},
                    **{key: question[key] for key in ("qtext", "answers")},
                    "qid": int(question["qid"]),
                    "ra": int(question["ra"]),
                    "image": {"bytes": b"\x89PNG", "path": None} if question["image"] else None,
                }
                for exam in exams.values()
                for question in exam["data"]
            ]
            write_parquet(folder / f"{language}/{split}/0000.parquet", records, schema)
    return [("es", "es"), ("en", "en")]


def copy_casimedicos(release: Path, folder: Path) -> list[tuple[str, str]]:
    languages = ["es", "en", "fr", "it"]
    for language in languages:
        for path in (release / language.upper()).glob("*.tsv"):
            cases: list[list[list[str]]] = []
            for sentence in re.split(r"\n\s*\n", path.read_text(encoding="utf-8").strip()):
                tokens = [line.split()[0] for line in sentence.splitlines()]
                if tokens[:2] == ["QUESTION", "TYPE:"]:
                    cases.append([])
                cases[-1].append(tokens)
            records = [
                {"id": str(number), "text": repr(case), "labels": "[]"}
                for number, case in enumerate(cases, start=1)
            ]
            write_parquet(folder / f"{language}/{path.stem}_{language}_ordered.parquet", records)
    return [(language, language) for language in languages]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("reader", "release", "copy", "expected"),
    [
        ("medqa", "medqa", copy_medqa, 1273),
        ("medmcqa", "medmcqa", copy_medmcqa, 4183),
        ("mmlu", "mmlu", copy_mmlu, 1089 + 30),
        ("pubmedqa", "pubmedqa", copy_pubmedqa, 1000),
        ("head-qa", "head_qa", copy_head_qa, 2 * (2657 + 1366 + 2742)),
        ("casimedicos", "casimedicos", copy_casimedicos, 4 * (381 + 55 + 117)),
    ],
)
def test_the_hubs_layout_gives_the_items_of_the_original_files(
    shared_data: Path,
    tmp_path: Path,
    reader: str,
    release: str,
    copy: Callable[[Path, Path], list[tuple[str, str]]],
    expected: int,
) -> None:
    configs = copy(shared_data / release, tmp_path)

    original = list(READERS[reader](reader, ORIGINALS[reader](shared_data / release)))
    copied = list(READERS[reader](reader, read_hub_folder(tmp_path, configs)))

    assert len(original) == len(copied) == expected
    assert set(original) == set(copied)
