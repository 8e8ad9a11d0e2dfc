"""`medlocal fit` as a user types it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medlocal.cli.fitting import parse_size, verdict
from medlocal.cli.main import run as run_command
from medlocal.errors import UsageError
from medlocal.weights.memory import MemoryNeeds, plan_memory
from tests.weights.memory_shapes import CPU, device, toy
from tests.weights.tiny_llama import write_tiny_llama

CARD = "marmoka-es-llama-3.1-8b-instruct"


@dataclass
class Cli:
    """`medlocal fit`."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = run_command(["fit", *arguments])
        out, err = self.capture.readouterr()
        return code, out, err

    def json(self, *arguments: str) -> dict[str, Any]:
        code, out, _ = self(*arguments, "--json")
        assert code == 0
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setenv("MEDLOCAL_HOME", str(tmp_path / "home"))
    return Cli(capsys)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return str(write_tiny_llama(tmp_path / "tiny.gguf"))


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("8GiB", 8 * 2**30), ("8G", 8 * 2**30), ("8g", 8 * 2**30), ("8192MiB", 8 * 2**30),
        ("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("512M", 2**29), ("0", 0),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, num_bytes: int) -> None:
    assert parse_size(text, "--vram") == num_bytes


@pytest.mark.parametrize("text", ["", "8", "GiB", "8Q", "-8G", "8GiBs", "1e3M", "8 G B"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"--vram .*: that is no size") as refused:
        parse_size(text, "--vram")
    assert "8GiB" in str(refused.value)


def test_a_whole_model_on_a_gpu_fits() -> None:
    plan = plan_memory(toy(), MemoryNeeds(context=256, num_rows=8), [device(500), CPU])
    assert verdict(plan, "Q8_0") == (
        "fits: all 5 layers (the output is one) in GPU 0, with room for a context of 2,304 tokens"
    )


def test_what_would_help_is_named_where_a_part_stays_on_the_cpu() -> None:
    # The output and three blocks take 390 MiB, and 100 MiB more to copy the CPU's tensors to.
    # 40 MiB of keys and values in 10 × 256 cells are too much for 39 MiB, half of them are not.
    plan = plan_memory(toy(), MemoryNeeds(context=2560, num_rows=8), [device(500), CPU])
    told = verdict(plan, "Q4_K_M")
    assert told.startswith("fits in part: 4 of 5 layers on the GPU (GPU 0), the CPU's memory holds")
    assert told.endswith(
        "to make all of it fit: a context of 2,304 tokens (--context 2304); or keys and values in 8"
        " bits (--kv q8_0); or the quantisation Q4_K_M"
    )


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    cpu = device(300, "cpu", "CPU")
    plan = plan_memory(toy(), MemoryNeeds(context=256, num_rows=8), [cpu])
    told = verdict(plan, None)
    assert told.startswith("does not fit: it needs 514.")
    assert told.endswith("300.0 MiB can be taken\nto make all of it fit: more memory")


def test_a_card_that_is_not_here_is_planned_from_its_assumed_shape(cli: Cli) -> None:
    code, out, err = cli(CARD, "--vram", "8GiB", "--ram", "16GiB")
    assert code == 0
    assert "the shape of Llama 3.1 8B is assumed" in err
    assert "fits in part: 15 of 33 layers on the GPU (GPU 0)" in out
    assert "or the quantisation" not in out
    assert "to make all of it fit: the quantisation Q6_K" in out


def test_a_context_beyond_the_trained_one_is_noted(cli: Cli, tiny: str) -> None:
    _, _, err = cli(tiny, "--context", "4096")
    assert "a context of 4,096 tokens is longer than the 128 it was trained for" in err


def test_that_a_model_does_not_fit_is_an_answer(cli: Cli) -> None:
    code, out, _ = cli(CARD, "--vram", "0", "--ram", "4GiB")
    assert code == 0
    # 14.96 GiB of weights, 1 of keys and values, 0.28 to compute, 0.24 of logits.
    assert "does not fit: it needs 16.48 GiB" in out
    assert "3.75 GiB can be taken" in out


def test_devices_stand_side_by_side_within_80_columns(cli: Cli) -> None:
    sizes = [argument for size in ("8GiB", "6GiB", "4GiB") for argument in ("--vram", size)]
    _, out, _ = cli(CARD, *sizes, "--ram", "16GiB")
    table = out.partition("\n\n")[0].splitlines()
    assert table[0].split() == ["memory", "GPU", "0", "GPU", "1", "GPU", "2", "CPU"]
    assert table[2].split() == [
        "free",
        *(part for size in ("8.00", "6.00", "4.00", "16.00") for part in (size, "GiB")),
    ]
    assert [line.split()[0] for line in table[2:]] == [
        "free", "kept", "layers", "weights", "keys", "to", "logits", "needed", "fits"
    ]  # fmt: skip
    assert max(map(len, table)) <= 80


def test_more_devices_than_a_table_holds_get_another(cli: Cli) -> None:
    sizes = [argument for _ in range(5) for argument in ("--vram", "4GiB")]
    _, out, _ = cli(CARD, *sizes, "--ram", "16GiB")
    heads = [line.split()[1:] for line in out.splitlines() if line.startswith("memory")]
    assert heads == [["GPU", "0", "GPU", "1", "GPU", "2", "GPU", "3"], ["GPU", "4", "CPU"]]


def test_types_tell_what_fits_and_whose_loss_is_published(cli: Cli) -> None:
    _, out, err = cli(CARD, "--vram", "8GiB", "--ram", "16GiB")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "published for Llama-3-8B: perplexity" in out
    assert "27 of 33 layers" in lines["Q8_0"]
    assert "yes, the largest" in lines["Q6_K"]
    assert "+0.0217" in lines["Q6_K"]
    assert "IQ2_M" not in lines
    assert "of Llama-3-8B and not of this model" in err


def test_all_types_are_listed_when_asked(cli: Cli) -> None:
    _, out, _ = cli(CARD, "--vram", "8GiB", "--ram", "16GiB", "--all-types")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "needs an imatrix" in lines["IQ1_S"]


def test_json_holds_the_plan_and_the_types(cli: Cli) -> None:
    found = cli.json(CARD, "--vram", "6GiB", "--vram", "6GB", "--ram", "16G", "--sequences", "2")
    assert [device["name"] for device in found["devices"]] == ["GPU 0", "GPU 1", "CPU"]
    placed = [layer for device in found["devices"] for layer in device["layers"]]
    assert sorted(placed) == list(range(33))
    assert found["gpu_layers"] == sum(found["tensor_split"])
    assert found["needs"]["num_sequences"] == 2
    (largest,) = (size for size in found["types"] if size["is_largest_that_fits"])
    assert largest["fits_best"]
    assert found["published"]["for"] == "Llama-3-8B"


def test_of_the_types_that_fit_the_one_with_the_least_loss_is_advised(cli: Cli) -> None:
    found = cli.json(CARD, "--vram", "7.2GiB", "--ram", "16G", "--context", "8192")
    types = {size["type"]: size for size in found["types"]}
    assert types["Q5_1"]["is_largest_that_fits"]
    assert types["Q5_K_M"]["is_advised"]


def test_a_gguf_is_planned_for_this_machine(cli: Cli, tiny: str) -> None:
    found = cli.json(tiny)
    assert found["devices"][-1]["name"] == "CPU"
    assert found["needs"]["context"] == 128  # what it was trained for
    assert found["fits"]


def test_a_load_is_measured_and_compared(cli: Cli, tiny: str) -> None:
    code, out, err = cli(tiny, "--measure", "--context", "512", "--rows", "64")
    assert code == 0
    *_, line = (line for line in out.splitlines() if line.startswith("keys and values"))
    # 512 cells in two layers of 16 + 16 elements in F16: 64 KiB, 0.06 in the log's MiB.
    assert line.split()[3:] == ["64.0", "KiB", "61.4", "KiB", "1.042"]
    assert "the process grew by" in err


def test_costs_that_were_measured_stand_before_published_ones(
    cli: Cli, tiny: str, tmp_path: Path
) -> None:
    _, out, _ = cli(tiny, "--quality", str(_report(tmp_path, _tiny_parameters())))
    (line,) = (line for line in out.splitlines() if line.startswith("Q8_0"))
    assert "en ×1.012, es ×1.034" in line


def test_costs_of_another_model_are_refused(cli: Cli, tiny: str, tmp_path: Path) -> None:
    code, out, err = cli(tiny, "--quality", str(_report(tmp_path, 8_030_261_248)))
    assert (code, out) == (2, "")
    assert "is about a model of 8,030,261,248 parameters" in err


def _tiny_parameters() -> int:
    # Embeddings 264 × 32, norm 32; two blocks of 2 × 32 × 32, 2 × 32 × 16, 3 × 32 × 64 and 2 × 32.
    return 264 * 32 + 32 + 2 * (2 * 1024 + 2 * 512 + 3 * 2048 + 64)


def _report(folder: Path, num_parameters: int) -> Path:
    """As `medlocal quality` writes it, only what is read of it."""
    ratios = {"en": 1.012, "es": 1.034}
    languages = {name: {"perplexity_ratio": {"value": ratio}} for name, ratio in ratios.items()}
    file = {
        "type": "Q8_0",
        "loaded_bytes": num_parameters * 34 // 32,
        "bits_per_weight": 8.5,
        "languages": languages,
    }
    path = folder / "quality.json"
    path.write_text(json.dumps({"files": [file]}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nosuch",), 2, "no model is called 'nosuch'"),
        (("none.gguf",), 3, "there is no file none.gguf"),
        (("meditron-7b", "--vram", "8"), 2, "--vram 8: that is no size"),
        (("meditron-7b", "--ram", "much"), 2, "--ram much: that is no size"),
        (("meditron-7b", "--context", "0"), 2, "→ as in --context 8192 --sequences 1"),
        (("meditron-7b", "--sequences", "100000"), 2, "100,000 sequences are more than"),
        (("meditron-7b", "--kv", "q4_0"), 2, "no type of keys and values is called 'q4_0'"),
        (("meditron-7b", "--measure"), 2, "--measure loads a GGUF"),
        (("meditron-7b", "--quality", "none.json"), 2, "no report of `medlocal quality`"),
    ],
)
def test_what_is_wrong_is_told_with_its_exit_code(
    cli: Cli, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended, out, err = cli(*arguments)
    assert (ended, out) == (code, "")
    assert message in err


def test_measuring_is_for_this_machine(cli: Cli, tiny: str) -> None:
    code, _, err = cli(tiny, "--measure", "--ram", "8G")
    assert code == 2
    assert "leave out --vram and --ram" in err
