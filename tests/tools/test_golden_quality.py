"""What llama.cpp's tool prints is read as it is meant."""

import pytest

from tools.golden_quality import parse

PRINTED = """
====== Perplexity statistics ======
Mean PPL(Q)                   :  36.759673 ±   4.305041
Mean PPL(base)                :  26.651602 ±   3.080793
Cor(ln(PPL(Q)), ln(PPL(base))):  94.13%
Mean ln(PPL(Q)/PPL(base))     :   0.321552 ±   0.038745
Mean PPL(Q)/PPL(base)         :   1.379267 ±   0.053441
Mean PPL(Q)-PPL(base)         :  10.108071 ±   1.708000

====== KL divergence statistics ======
Mean    KLD:   0.491168 ±   0.023995
Maximum KLD:   5.774582
99.9%   KLD:   5.012345
99.0%   KLD:   3.858564
Median  KLD:   0.314985
Minimum KLD:  -0.000013

====== Token probability statistics ======
Mean    Δp: -5.649 ± 0.611 %
Maximum Δp: 61.002%
RMS Δp    : 17.796 ± 1.007 %
Same top p: 63.922 ± 1.737 %
"""


def test_every_figure_is_read_with_its_error() -> None:
    assert parse(PRINTED) == {
        "perplexity": [36.759673, 4.305041],
        "reference_perplexity": [26.651602, 3.080793],
        "perplexity_ratio": [1.379267, 0.053441],
        "kld": [0.491168, 0.023995],
        "kld_max": [5.774582],
        "kld_99": [3.858564],
        "kld_median": [0.314985],
        "dp_mean": pytest.approx([-0.05649, 0.00611]),
        "dp_rms": pytest.approx([0.17796, 0.01007]),
        "same_top": pytest.approx([0.63922, 0.01737]),
    }


def test_a_figure_that_was_not_printed_is_missed() -> None:
    with pytest.raises(ValueError, match="did not print kld"):
        parse(PRINTED.replace("Mean    KLD", "Mean KLD"))
