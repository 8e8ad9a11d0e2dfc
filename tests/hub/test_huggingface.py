import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from medlocal.catalog import HubSource, ModelCard
from medlocal.errors import Interrupted, MedlocalError, MissingError, RefusedError
from medlocal.hub import HuggingFace, find_model, pull_model
from medlocal.settings import Settings
from tests.hub.conftest import CHECKPOINT, COMMIT, FakeHub, MakeCard

WEIGHTS = "model.safetensors"


def checkpoint(settings: Settings) -> Path:
    return settings.models_dir / "tiny" / "checkpoint"


def http_error(kind: Any) -> Any:
    # Made without its constructor, which wants a response of whichever HTTP library is below.
    return kind.__new__(kind)


def test_the_files_asked_for_come_with_the_commit_that_main_was(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    pulled = pull_model(hub_card, settings, client=fake_hub)

    assert pulled.path == checkpoint(settings)
    assert pulled.revision == COMMIT
    assert pulled.source == "https://huggingface.co/owner/tiny"
    assert pulled.size == 7 + 3 + 7000
    assert {path.name for path in pulled.path.iterdir()} == {"README.md", "config.json", WEIGHTS}


def test_the_checksum_of_a_folder_is_that_of_what_sha256sum_prints(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    lines = "".join(
        f"{hashlib.sha256(CHECKPOINT[name]).hexdigest()}  {name}\n"
        for name in ("README.md", "config.json", WEIGHTS)
    )

    pulled = pull_model(hub_card, settings, client=fake_hub)

    assert pulled.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_the_receipt_lists_every_file(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    pull_model(hub_card, settings, client=fake_hub)

    receipt = json.loads((settings.models_dir / "tiny" / "receipt.json").read_bytes())
    assert receipt["revision"] == COMMIT
    assert receipt["files"][1] == {
        "name": "config.json",
        "sha256": hashlib.sha256(b"{}\n").hexdigest(),
        "size": 3,
    }
    assert receipt["time"].endswith("+00:00")


def test_nothing_is_fetched_twice(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    first = pull_model(hub_card, settings, client=fake_hub)

    assert pull_model(hub_card, settings, client=fake_hub) == first
    assert fake_hub.num_downloads == 1


def test_a_file_that_is_gone_is_fetched_again(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    pull_model(hub_card, settings, client=fake_hub)
    (checkpoint(settings) / WEIGHTS).unlink()

    pull_model(hub_card, settings, client=fake_hub)

    assert (checkpoint(settings) / WEIGHTS).is_file()


@pytest.mark.usefixtures("no_network")
def test_offline_names_what_is_wanted_and_asks_nobody(
    hub_card: ModelCard, offline: Settings, fake_hub: FakeHub
) -> None:
    with pytest.raises(
        MissingError, match=r"\*\.safetensors, .* https://huggingface.co/owner/tiny"
    ):
        pull_model(hub_card, offline, client=fake_hub)

    assert fake_hub.num_downloads == 0


@pytest.mark.usefixtures("no_network")
def test_a_folder_copied_from_another_machine_is_complete_offline(
    hub_card: ModelCard, offline: Settings, fake_hub: FakeHub, tmp_path: Path
) -> None:
    elsewhere = Settings(home=tmp_path / "elsewhere")
    pulled = pull_model(hub_card, elsewhere, client=fake_hub)
    offline.home.mkdir()
    elsewhere.models_dir.rename(offline.models_dir)

    assert pull_model(hub_card, offline, client=fake_hub) == replace(
        pulled, path=checkpoint(offline)
    )


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            http_error(errors.GatedRepoError),
            "is gated",
            "accept the licence at https://huggingface.co/owner/tiny and run `hf auth login`",
        ),
        (http_error(errors.RepositoryNotFoundError), "does not exist, or is private", "hf auth"),
        (http_error(errors.RevisionNotFoundError), "has no revision", "correct the card of tiny"),
        (ConnectionError("no route to host"), "no route to host", "medlocal models pull tiny"),
        (RuntimeError("CAS service error"), "CAS service error", "goes on where it stopped"),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_way_out(
    hub_card: ModelCard,
    settings: Settings,
    fake_hub: FakeHub,
    error: Exception,
    message: str,
    hint: str,
) -> None:
    fake_hub.error = error

    with pytest.raises(MissingError, match=message) as info:
        pull_model(hub_card, settings, client=fake_hub)

    assert hint in str(info.value.hint)
    assert not (settings.models_dir / "tiny" / "receipt.json").exists()


def test_a_full_disk_is_not_called_a_missing_network(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    fake_hub.error = OSError(28, "No space left on device")

    with pytest.raises(MedlocalError, match="is full") as info:
        pull_model(hub_card, settings, client=fake_hub)

    assert info.value.exit_code == 1


def test_a_disk_that_is_too_small_is_said_before_the_download(
    hub_card: ModelCard,
    settings: Settings,
    fake_hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Usage:
        free = 7009

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)

    with pytest.raises(MedlocalError, match="is full"):
        pull_model(hub_card, settings, client=fake_hub)

    assert fake_hub.num_downloads == 0


def test_a_stop_asked_for_during_the_download_is_passed_on(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    def stop(description: str, done: int, total: int | None) -> None:
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        pull_model(hub_card, settings, stop, fake_hub)


def test_a_file_that_did_not_come_is_not_a_finished_pull(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    fake_hub.served = {WEIGHTS: b"half"}

    with pytest.raises(MissingError, match=r"model\.safetensors did not come, or not whole"):
        pull_model(hub_card, settings, client=fake_hub)


def test_a_file_with_another_checksum_is_refused_and_removed(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    fake_hub.served = {WEIGHTS: b"W" + CHECKPOINT[WEIGHTS][1:]}

    with pytest.raises(RefusedError, match=hashlib.sha256(CHECKPOINT[WEIGHTS]).hexdigest()):
        pull_model(hub_card, settings, client=fake_hub)

    assert not (checkpoint(settings) / WEIGHTS).exists()


def test_a_repository_without_weights_that_are_read_is_said(
    hub_card: ModelCard, settings: Settings, fake_hub: FakeHub
) -> None:
    del fake_hub.files[WEIGHTS]

    with pytest.raises(MissingError, match=r"has no \.safetensors and no \.gguf"):
        pull_model(hub_card, settings, client=fake_hub)

    assert fake_hub.num_downloads == 0


def test_a_shard_of_an_older_revision_does_not_stay(
    hub_card: ModelCard, make_card: MakeCard, settings: Settings, fake_hub: FakeHub
) -> None:
    pull_model(hub_card, settings, client=fake_hub)
    newer = FakeHub({"one.safetensors": b"newer", "config.json": b"{}\n"})
    assert isinstance(hub_card.source, HubSource)

    card = make_card(replace(hub_card.source, revision="v2"))
    pull_model(card, settings, client=newer)

    names = {path.name for path in checkpoint(settings).iterdir()}
    assert names == {"one.safetensors", "config.json"}


def test_a_repository_with_one_gguf_is_that_gguf(
    make_card: MakeCard, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = make_card(HubSource("owner/tiny-GGUF", "", ("*.Q8_0.gguf", "*.md")))
    hub = FakeHub({"tiny.Q8_0.gguf": b"GGUF8", "tiny.f16.gguf": b"GGUF16", "README.md": b"#"})
    monkeypatch.setattr("medlocal.hub.receipts.model_card", lambda card_id: card)

    pulled = pull_model(card, settings, client=hub)

    assert pulled.path == checkpoint(settings) / "tiny.Q8_0.gguf"
    assert (pulled.size, pulled.sha256) == (5, hashlib.sha256(b"GGUF8").hexdigest())
    assert find_model("tiny", settings) == pulled.path


class HubOnThisMachine(BaseHTTPRequestHandler):
    """The part of the Hub's HTTP interface that a download uses, for owner/tiny at COMMIT."""

    files = CHECKPOINT
    gated = False
    requests: list[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        self.requests.append(f"{self.command} {self.path}")
        route = self.path.partition("?")[0]
        if route.startswith("/api/models/owner/tiny/tree/"):
            self.send(json.dumps([self.tree_entry(name) for name in self.files]).encode())
        elif route in {"/api/models/owner/tiny", "/api/models/owner/tiny/revision/main"}:
            self.send(json.dumps(self.info()).encode())
        elif route.startswith(f"/owner/tiny/resolve/{COMMIT}/") and self.gated:
            self.send(b"", 403, {"X-Error-Code": "GatedRepo"})
        elif route.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
            content = self.files[route.rpartition("/")[2]]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            headers = {"ETag": etag, "X-Repo-Commit": COMMIT}
            self.send(content, 200, headers, with_body=with_body)
        else:
            self.send(b"", 404, {"X-Error-Code": "RepoNotFound"})

    def info(self) -> dict[str, object]:
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": "0", **self.lfs(name, "sha256")}
            for name, content in self.files.items()
        ]
        return {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}

    def tree_entry(self, name: str) -> dict[str, object]:
        size = len(self.files[name])
        return {"type": "file", "path": name, "size": size, "oid": "0", **self.lfs(name, "oid")}

    def lfs(self, name: str, key: str) -> dict[str, object]:
        if not name.endswith((".safetensors", ".bin")):
            return {}
        content = self.files[name]
        sha256 = hashlib.sha256(content).hexdigest()
        return {"lfs": {key: sha256, "size": len(content), "pointerSize": 100}}

    def send(
        self,
        body: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
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
def serving(handler: type[HubOnThisMachine]) -> Iterator[HuggingFace]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield HuggingFace(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def handler() -> type[HubOnThisMachine]:
    class Handler(HubOnThisMachine):
        requests: list[str] = []  # noqa: RUF012 - one class per test

    return Handler


def test_the_real_client_fetches_what_matches_and_reports_bytes(
    hub_card: ModelCard, settings: Settings, handler: type[HubOnThisMachine]
) -> None:
    seen: list[tuple[str, int, int | None]] = []

    with serving(handler) as hub:
        pulled = pull_model(hub_card, settings, lambda *report: seen.append(report), hub)

    assert (pulled.path / WEIGHTS).read_bytes() == CHECKPOINT[WEIGHTS]
    assert not (pulled.path / "pytorch_model.bin").exists()
    assert pulled.revision == COMMIT
    assert max(done for what, done, _ in seen if what == "fetching owner/tiny") == 7010


def test_the_real_client_fetches_only_what_is_not_there(
    hub_card: ModelCard, settings: Settings, handler: type[HubOnThisMachine]
) -> None:
    with serving(handler) as hub:
        pull_model(hub_card, settings, client=hub)
        (checkpoint(settings) / "config.json").unlink()
        handler.requests.clear()
        pull_model(hub_card, settings, client=hub)

    got = [line for line in handler.requests if line.startswith("GET /owner/tiny/resolve")]
    assert got == [f"GET /owner/tiny/resolve/{COMMIT}/config.json"]


def test_the_real_clients_refusals_are_understood(
    hub_card: ModelCard, make_card: MakeCard, settings: Settings, handler: type[HubOnThisMachine]
) -> None:
    handler.gated = True
    missing = make_card(HubSource("owner/nothing", "", ("*.safetensors",)))

    with serving(handler) as hub:
        with pytest.raises(MissingError, match="owner/tiny is gated"):
            pull_model(hub_card, settings, client=hub)
        with pytest.raises(MissingError, match="owner/nothing does not exist, or is private"):
            pull_model(missing, settings, client=hub)


def test_a_half_fetched_checkpoint_is_not_taken_for_a_whole_one_when_the_hub_is_gone(
    hub_card: ModelCard, settings: Settings
) -> None:
    checkpoint(settings).mkdir(parents=True)
    (checkpoint(settings) / "config.json").write_bytes(b"{}\n")

    with pytest.raises(MissingError, match="could not be fetched"):
        pull_model(hub_card, settings, client=HuggingFace("http://127.0.0.1:9"))
