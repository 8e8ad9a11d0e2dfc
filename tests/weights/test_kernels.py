"""Which types are slow on which machine."""

from medlocal.weights.kernels import slow_on, slow_types

EPYC = (
    "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | AVX512 = 1 | AVX512_VNNI = 1 | REPACK = 1 |"
)


def test_q4_1_is_slow_on_a_processor_with_avx2_and_says_how_slow() -> None:
    found = slow_on(EPYC, has_gpu=False, names=["Q4_0", "Q4_1", "Q4_K"])
    assert list(found) == ["Q4_1"]
    assert "row by row" in found["Q4_1"]
    assert "prompts at 24% of Q4_0's speed" in found["Q4_1"]


def test_a_type_that_only_generates_slowly_says_so() -> None:
    reason = slow_on(EPYC, has_gpu=False, names=["IQ3_S"])["IQ3_S"]
    assert "generated text at 27%" in reason
    assert "prompts" not in reason


def test_amx_has_a_kernel_for_q4_1_and_none_for_q5_1() -> None:
    assert list(slow_on(EPYC + " AMX_INT8 = 1 |", False, ["Q4_1", "Q5_1"])) == ["Q5_1"]


def test_nothing_is_said_of_a_gpu() -> None:
    assert slow_on(EPYC, has_gpu=True, names=["Q4_1"]) == {}


def test_nothing_is_said_of_processors_of_which_nothing_is_known() -> None:
    assert slow_on("CPU : NEON = 1 | ARM_FMA = 1 | DOTPROD = 1 |", False, ["Q4_1"]) == {}
    assert slow_on("CPU : SSE3 = 1 | AVX = 1 | AVX2 = 0 |", False, ["Q4_1"]) == {}


def test_this_machine_can_be_asked() -> None:
    assert slow_types(["F16", "Q8_0", "Q4_0"]) == {}
