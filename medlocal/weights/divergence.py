"""What a model lost against its reference on one text: means, their errors, and perplexity. Pure.

Definitions are those of llama.cpp's own measurement (tools/perplexity/perplexity.cpp, `kl_divergence`), so
that figures compare. Its standard errors take every position for independent of all others. The
positions of one chunk are not: they share their text. So each error stands here twice, once as
llama.cpp has it, and once from the spread of the chunks' means; intervals come from the latter.

Arrays are (chunks, positions): every chunk has equally many. How a position was compared is not
known here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # not scipy.stats, which takes a second to import

from medlocal.weights.distances import Distances

CONFIDENCE = 0.95

Values = NDArray[np.float64]
"""(chunks, positions)."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """A mean over the positions of a text, or what follows from one."""

    value: float
    token_error: float
    """Standard error with every position taken for independent, as llama.cpp prints it."""
    chunk_error: float | None
    """Standard error from the spread of the chunks' means; None with fewer than two chunks."""
    low: float | None
    """95 % interval by Student's t over the chunks' means; None as above."""
    high: float | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """One model against its reference on one text."""

    num_chunks: int
    num_positions: int
    """Tokens that were predicted, over all chunks."""
    kld: Estimated
    """Mean Kullback-Leibler divergence from the reference, in nats per token."""
    kld_reference_error: float
    """Standard error that `kld` has because only a part of the reference's distributions is kept."""
    kld_lower: float
    """The mean is certainly not below this, nor above `kld_upper`, however the draws fell."""
    kld_upper: float
    kld_median: float
    kld_99: float
    """99 % of the positions have less than this."""
    kld_max: float
    same_top: Estimated
    """Share of the positions at which both have the same most likely token."""
    num_same_top: int
    dp_rms: Estimated
    """Root mean square of Δp, the difference in the probability of the token that follows; 0 to 1."""
    dp_mean: Estimated
    """Mean of Δp: below 0 where the model finds the text less likely than the reference does."""
    perplexity: Estimated
    reference_perplexity: Estimated
    perplexity_ratio: Estimated
    """Of the model over the reference's; its error knows that both were measured on the same text."""


def summarise(found: Distances, num_chunks: int) -> Divergence:
    """Sum up what was compared position by position.

    Args:
        found: of all positions, chunk after chunk.
        num_chunks: how many chunks these are.
    """

    def by_chunk(values: NDArray[np.float64] | NDArray[np.bool_]) -> Values:
        return values.reshape(num_chunks, -1).astype(np.float64)

    kld = by_chunk(found.divergence)
    nll, reference_nll = by_chunk(-found.next_log_q), by_chunk(-found.next_log_p)
    delta = np.exp(-nll) - np.exp(-reference_nll)
    median, high = np.quantile(kld, [0.5, 0.99])
    return Divergence(
        num_chunks=num_chunks,
        num_positions=kld.size,
        kld=mean(kld),
        kld_reference_error=float(np.sqrt(found.variance.sum()) / kld.size),
        kld_lower=float(found.lower.mean()),
        kld_upper=float(found.upper.mean()),
        kld_median=float(median),
        kld_99=float(high),
        kld_max=float(kld.max()),
        same_top=mean(by_chunk(found.is_same_top)),
        num_same_top=int(found.is_same_top.sum()),
        dp_rms=root_mean_square(delta),
        dp_mean=mean(delta),
        perplexity=exp_mean(nll),
        reference_perplexity=exp_mean(reference_nll),
        perplexity_ratio=exp_mean(nll - reference_nll),
    )


def mean(values: Values) -> Estimated:
    """The mean, with both errors."""
    value, num_chunks = float(values.mean()), len(values)
    token_error = _standard_error(values.ravel())
    if num_chunks < 2:
        return Estimated(value, token_error, None, None, None)
    chunk_error = _standard_error(values.mean(axis=1))
    half = chunk_error * _quantile(num_chunks - 1)
    return Estimated(value, token_error, chunk_error, value - half, value + half)


def exp_mean(values: Values) -> Estimated:
    """The exponential of a mean: a perplexity, or from paired differences the ratio of two.

    Errors go through the exponential by the delta method. For differences that is what llama.cpp has:
    the variance of a difference is that of both less twice their covariance.
    """
    inner = mean(values)
    value = float(np.exp(inner.value))
    bounds = [None if bound is None else float(np.exp(bound)) for bound in (inner.low, inner.high)]
    error = None if inner.chunk_error is None else value * inner.chunk_error
    return Estimated(value, value * inner.token_error, error, *bounds)


def root_mean_square(values: Values) -> Estimated:
    """The root of the mean square, its errors by the delta method; its interval does not pass 0."""
    inner = mean(values**2)
    value = float(np.sqrt(inner.value))
    slope = 0.5 / value if value else 0.0
    error = None if inner.chunk_error is None else slope * inner.chunk_error
    bounds = [
        None if bound is None else float(np.sqrt(max(0.0, bound)))
        for bound in (inner.low, inner.high)
    ]
    return Estimated(value, slope * inner.token_error, error, *bounds)


def _standard_error(values: NDArray[np.float64]) -> float:
    n = len(values)
    return float(np.sqrt(values.var(ddof=1) / n)) if n > 1 else 0.0


def _quantile(degrees_of_freedom: int) -> float:
    return float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))
