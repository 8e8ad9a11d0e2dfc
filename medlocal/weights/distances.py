"""How far one model's next-token distribution is from another's, position by position. Pure.

A reference distribution has as many probabilities as there are tokens: at two bytes each, an hour of
text is tens of gigabytes. Here only a part is kept of it: the most likely tokens, what probability is
left for all others together, and a few of those others, drawn as often as they are likely. The other
model's logits are all at hand when the two are compared, so that nothing of its side is approximate.

With p the reference, q the other model, T the kept tokens, r and s the probability that p and q leave
for the tokens outside T, the divergence from p to q is

    Σ p ln(p/q) over T  +  r ln(r/s)  +  r · KL(p outside T ‖ q outside T)

Its first two terms are exact; without the third they are a lower bound, since merging tokens can
only lower a divergence (Cover and Thomas, Elements of Information Theory, 2.7.1). The third is estimated
from the drawn tokens: with w = (q/s) / (p/r), the mean of w − 1 − ln w has that divergence as its
expectation, because w itself has the expectation 1, and it is never negative. So the estimate has no
bias, its error is known from the spread of the draws, and it never falls below the lower bound.

Logits are (positions, vocabulary), float32, all finite; what follows a position is the token that the text has there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int32]

_ROWS = 32
"""Positions worked on at a time: with a vocabulary of 128,000, 16 MiB of logits."""
_LEAST = 1e-38
"""What a probability that float32 cannot tell from 0 is taken for: more than it can be, which lowers the
lower bound, and so leaves it one."""


@dataclass(frozen=True, slots=True)
class KeepOptions:
    """How much is kept of a distribution."""

    most: int = 256
    """Tokens kept at a position, at most."""
    enough: float = 1e-4
    """No more are kept once the others have no more probability than this together."""
    num_drawn: int = 32
    """Tokens drawn from the others, with replacement: 2 or more, so that their spread is known."""

    def __post_init__(self) -> None:
        assert self.most >= 1
        assert self.num_drawn >= 2


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of the distributions at some positions."""

    counts: NDArray[np.int64]
    """Tokens kept at each position, 1 or more."""
    ids: Ids
    """(sum of counts,): the kept tokens, position after position, the most likely first."""
    log_p: NDArray[np.float32]
    """(sum of counts,): their log-probabilities, in nats."""
    rest: NDArray[np.float32]
    """(positions,): probability of all other tokens together; 0 where there are none."""
    rest_log: NDArray[np.float32]
    """(positions,): Σ p ln p over the other tokens, in nats."""
    drawn_ids: Ids
    """(positions, drawn): tokens drawn from the others; without meaning where `rest` is 0."""
    drawn_log_p: NDArray[np.float32]
    """(positions, drawn): their log-probabilities."""
    next_log_p: NDArray[np.float32]
    """(positions,): log-probability of the token that follows."""

    def __len__(self) -> int:
        return len(self.counts)

    def part(self, start: int, stop: int) -> "Kept":
        """Of the positions from `start` up to `stop`."""
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        rows, tokens = slice(start, stop), slice(ends[start], ends[min(stop, len(self))])
        return Kept(
            counts=self.counts[rows],
            ids=self.ids[tokens],
            log_p=self.log_p[tokens],
            rest=self.rest[rows],
            rest_log=self.rest_log[rows],
            drawn_ids=self.drawn_ids[rows],
            drawn_log_p=self.drawn_log_p[rows],
            next_log_p=self.next_log_p[rows],
        )


@dataclass(frozen=True, slots=True)
class Distances:
    """One model against the reference at some positions; all are (positions,), in nats."""

    divergence: Floats
    """Estimate of the Kullback-Leibler divergence from the reference."""
    variance: Floats
    """Of that estimate, from drawing a few of the tokens that were not kept."""
    lower: Floats
    """The divergence is certainly not below this."""
    upper: Floats
    """Nor above this: as if the other model thought least of the tokens that were not kept."""
    next_log_p: Floats
    """Log-probability of the token that follows, by the reference."""
    next_log_q: Floats
    """The same by the other model."""
    is_same_top: NDArray[np.bool_]
    """Whether both have the same most likely token; of equals it is the one with the lowest id."""


def keep(
    logits: NDArray[np.float32], following: Ids, rng: np.random.Generator, options: KeepOptions
) -> Kept:
    """Reduce a model's distributions to what `distances` needs.

    Args:
        logits: (positions, vocabulary).
        following: (positions,) the token that follows each.
        rng: draws the tokens from those that are not kept.
        options: how much is kept.
    """
    parts = [
        _keep(logits[start : start + _ROWS], following[start : start + _ROWS], rng, options)
        for start in range(0, len(logits), _ROWS)
    ]
    return joined(parts)


def distances(kept: Kept, logits: NDArray[np.float32], following: Ids) -> Distances:
    """Compare another model's distributions with those of the reference at the same positions.

    Args:
        kept: of the reference.
        logits: (positions, vocabulary) of the other model.
        following: (positions,) the token that follows each.
    """
    parts = []
    for start in range(0, len(kept), _ROWS):
        rows = slice(start, start + _ROWS)
        parts.append(_distances(kept.part(start, start + _ROWS), logits[rows], following[rows]))
    return joined_distances(parts)


def joined(parts: Sequence[Kept]) -> Kept:
    """Several blocks of positions as one."""
    names = Kept.__slots__
    return Kept(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def joined_distances(parts: Sequence[Distances]) -> Distances:
    """The same for what was compared."""
    names = Distances.__slots__
    return Distances(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, slots=True)
class _Softmax:
    """Logits with what turns them into probabilities: p = weights / total, ln p = logits - log_total."""

    logits: NDArray[np.float32]
    top: NDArray[np.float32]
    weights: NDArray[np.float32]
    """exp(logits - top)."""
    total: Floats
    log_total: Floats

    @classmethod
    def of(cls, logits: NDArray[np.float32]) -> "_Softmax":
        top = logits.max(axis=1)
        weights = np.exp(logits - top[:, None])
        total = weights.sum(axis=1, dtype=np.float64)
        return cls(logits, top, weights, total, top + np.log(total))

    def log_p(self, rows: NDArray[np.intp], ids: Ids) -> Floats:
        """Of single tokens."""
        found: Floats = self.logits[rows, ids] - self.log_total[rows]
        return found


def _keep(
    logits: NDArray[np.float32], following: Ids, rng: np.random.Generator, options: KeepOptions
) -> Kept:
    model = _Softmax.of(logits)
    ids, log_p = _likeliest(model, options.most)
    left = 1 - np.cumsum(np.exp(log_p), axis=1)
    counts = 1 + (left[:, :-1] > options.enough).sum(axis=1)
    is_kept = np.arange(ids.shape[1]) < counts[:, None]
    all_rows = np.arange(len(logits))
    model.weights[np.repeat(all_rows, counts), ids[is_kept]] = 0.0
    rest = model.weights.sum(axis=1, dtype=np.float64)
    # Where a weight underflowed to 0 its logarithm is finite, so that the product is 0 as it should.
    inner = (model.weights * (logits - model.top[:, None])).sum(axis=1, dtype=np.float64)
    rest_log = (inner + (model.top - model.log_total) * rest) / model.total
    drawn = _draw(model.weights, rng, options.num_drawn)
    return Kept(
        counts=counts.astype(np.int64),
        ids=ids[is_kept],
        log_p=log_p[is_kept].astype(np.float32),
        rest=(rest / model.total).astype(np.float32),
        rest_log=rest_log.astype(np.float32),
        drawn_ids=drawn,
        drawn_log_p=model.log_p(all_rows[:, None], drawn).astype(np.float32),
        next_log_p=model.log_p(all_rows, following).astype(np.float32),
    )


def _likeliest(model: _Softmax, most: int) -> tuple[Ids, Floats]:
    """Ids and log-probabilities of the likeliest tokens, (positions, most), the first one first."""
    num_vocab = model.logits.shape[1]
    most = min(most, num_vocab)
    ids = np.argpartition(model.logits, num_vocab - most, axis=1)[:, num_vocab - most :]
    values = np.take_along_axis(model.logits, ids, axis=1)
    # By falling logit, then rising id: among equals the lowest id stands first, as argmax has it.
    order = np.lexsort((ids, -values), axis=1)
    likeliest: Ids = np.take_along_axis(ids, order, axis=1).astype(np.int32)
    likeliest[:, 0] = model.logits.argmax(axis=1)  # more of them may be equal than are kept
    return likeliest, model.log_p(np.arange(len(ids))[:, None], likeliest)


def _draw(weights: NDArray[np.float32], rng: np.random.Generator, number: int) -> Ids:
    """Tokens drawn in proportion to their weights, (positions, number); 0 where all weights are 0."""
    steps = np.cumsum(weights, axis=1, dtype=np.float64)
    aims = rng.random((len(weights), number)) * steps[:, -1:]
    found = np.empty(aims.shape, np.int32)
    for row, (step, aim) in enumerate(zip(steps, aims, strict=True)):
        last = np.searchsorted(step, step[-1], side="left")  # the last token that has a weight
        found[row] = np.minimum(np.searchsorted(step, aim, side="right"), last)
    return found


def _distances(kept: Kept, logits: NDArray[np.float32], following: Ids) -> Distances:
    model = _Softmax.of(logits)
    all_rows = np.arange(len(kept))
    rows = np.repeat(all_rows, kept.counts)
    starts = np.concatenate([[0], np.cumsum(kept.counts)[:-1]])
    log_p = kept.log_p.astype(np.float64)
    terms = np.exp(log_p) * (log_p - model.log_p(rows, kept.ids))
    inside = np.add.reduceat(terms, starts)
    lowest = logits.min(axis=1) - model.log_total
    drawn_log_q = model.log_p(all_rows[:, None], kept.drawn_ids)
    model.weights[rows, kept.ids] = 0.0
    others = model.weights.sum(axis=1, dtype=np.float64) / model.total
    lower, tail, variance = _outside(kept, drawn_log_q, np.maximum(others, _LEAST))
    rest = kept.rest.astype(np.float64)
    return Distances(
        divergence=inside + lower + tail,
        variance=variance,
        lower=inside + lower,
        upper=inside + kept.rest_log - rest * lowest,
        next_log_p=kept.next_log_p.astype(np.float64),
        next_log_q=model.log_p(all_rows, following),
        is_same_top=kept.ids[starts] == logits.argmax(axis=1),
    )


def _outside(kept: Kept, drawn_log_q: Floats, others: Floats) -> tuple[Floats, Floats, Floats]:
    """Outside of what is kept: r ln(r/s), the estimate of r · KL(p outside ‖ q outside), and the estimate's variance.

    Args:
        kept: of the reference.
        drawn_log_q: (positions, drawn) log-probabilities of the drawn tokens by the other model.
        others: (positions,) s, above 0.
    """
    merged, tail, variance = (np.zeros(len(kept)) for _ in range(3))
    has = kept.rest > 0
    r = kept.rest[has].astype(np.float64)
    merged[has] = r * np.log(r / others[has])
    log_w = drawn_log_q[has] - kept.drawn_log_p[has] + np.log(r / others[has])[:, None]
    excess = np.expm1(log_w) - log_w
    tail[has] = r * excess.mean(axis=1)
    variance[has] = r**2 * excess.var(axis=1, ddof=1) / excess.shape[1]
    return merged, tail, variance
