"""The section that says how everything was measured: words, statistics, perturbations, runs, engine."""

from collections.abc import Mapping

from medlocal import __version__
from medlocal.evals.perturb import ORIGINAL, PERTURBATIONS, parse_variant
from medlocal.report import wording
from medlocal.report.blocks import Table
from medlocal.report.page_parts import Part, Section, heads, names
from medlocal.report.results import Report, RunFacts

_NOT_FOR_READING = frozenset({"system"})
"""Engine facts that identify a build to a program."""

WORDS = (
    ("item", "One question of a data set, with its options and its right option."),
    ("variant", "An item after no, one or two perturbations; the unperturbed one is “original”."),
    ("prompt", "The wording around a question: language, style, how options are laid out."),
    (
        "format",
        "The form that the answer must have: letter (C), phrase (The answer is C), json"
        ' ({"answer": "C"}), tag (<answer>C</answer>), text (the option’s words), reasoned (a short'
        " reasoning, the answer on the last line).",
    ),
    (
        "arm",
        "How the answer is obtained. free: the model writes what it wants. grammar: the same prompt,"
        " but only text of the demanded form can come out. label: nothing is written, the most"
        " probable label counts. cloze: nothing is written, the most probable option text counts,"
        " per character.",
    ),
    (
        "n",
        "Answers in the denominator. Only engine errors and grammars that did not act are left out;"
        " whatever else a model answers stays in, and what cannot be read counts as wrong.",
    ),
)
STATISTICS = (
    ("interval of a share", "95 % Wilson score interval."),
    (
        "interval of a difference",
        "95 % percentile bootstrap of paired differences, 10,000 resamples, clustered by source item:"
        " translations, variants and prompts of one question are drawn together. Where no resample"
        " differs, as where both got the same questions right: Newcombe’s interval for paired shares.",
    ),
    ("p", "Exact McNemar test on the questions that only one of two conditions got right."),
    ("p (Holm)", "The same, corrected for the number of tests in a family (Holm)."),
    (
        "p over all data sets",
        "Exact test of the same question for all answers together: in each source item the two models"
        " are exchanged or not. With one answer to each question it is McNemar’s.",
    ),
    ("chance", "What guessing gets: the mean of 1 / number of options."),
    (
        "majority",
        "What always choosing the most frequent right place would get. Where it is shown to be above"
        " chance, an accuracy must be above it too before it is said to be above chance.",
    ),
    ("right in all variants", "ReAcc: share of questions answered right in every variant."),
    (
        "same option in all variants",
        "ReCon: the same, right or wrong. An answer that cannot be read equals nothing.",
    ),
    (
        "RStd, TV",
        "Standard deviation of accuracy over the places of the right option; total variation between"
        " how often places are chosen and how often they are right.",
    ),
    (
        "could show",
        "The smallest true difference that the test would have shown with 80 % power at the 5 % level,"
        " corrected as its p is, from the number of questions and how many only one got right.",
    ),
)


def method_section(report: Report) -> Section:
    """How it was measured."""
    lead = (
        f"Measured with medlocal {__version__}, locally. Every answer, prompt and grade"
        " is in the run store: medlocal show KEY shows one as it was sent, medlocal export writes"
        " all of them."
    )
    parts = [
        Part("", tables=(_glossary("Words used in this report", WORDS),)),
        Part("", tables=(_glossary("Statistics", STATISTICS),)),
        *_perturbations(report),
        Part(
            "",
            tables=(_runs_table(report),),
            more=tuple(_engine_part(facts) for facts in report.runs),
            more_title="Everything recorded of the runs and their engine",
        ),
    ]
    return Section("method", "How it was measured", lead, tuple(parts))


def _glossary(title: str, entries: tuple[tuple[str, str], ...]) -> Table:
    rows = tuple(((term,), (meaning,)) for term, meaning in entries)
    return Table(title, heads("word | meaning"), rows, num_names=2)


def _perturbations(report: Report) -> list[Part]:
    """What the perturbations that were used do, and what happens to the right answer."""
    steps = {
        step.perturbation.name
        for variant in dict.fromkeys(row.variant for row in report.rows)
        if variant != ORIGINAL
        for step in parse_variant(variant).steps
    }
    rows = tuple(
        names(p.family, p.name, str(p.version), p.does, p.gold)
        for p in PERTURBATIONS.values()
        if p.name in steps
    )
    if not rows:
        return []
    headers = heads("family | perturbation | version | what it does | the right answer")
    table = Table("Perturbations in this report", headers, rows, num_names=5)
    return [Part("", more=(Part("Perturbations in this report", tables=(table,)),))]


def _runs_table(report: Report) -> Table:
    keys = ("id", "created", "state", "suite", "model", "seed", "grader")
    counts = ("jobs", "done", "reused", "errors")
    rows = tuple(
        (
            *((wording.fact(facts.run.get(key)),) for key in keys),
            *((wording.fact(facts.run.get(key)),) for key in counts),
        )
        for facts in report.runs
    )
    headers = heads(" | ".join((*keys, *counts)))
    note = "reused: answered by an earlier run. Errors are asked again when a run is resumed."
    return Table("Runs in this report", headers, rows, len(keys), note)


def _engine_part(facts: RunFacts) -> Part:
    run_id = wording.clean(str(facts.run.get("id")))
    told = {name: value for name, value in facts.engine.items() if name not in _NOT_FOR_READING}
    found = [*_facts("run", facts.run), *_facts("engine", told)]
    table = Table(
        f"Recorded of run {run_id}", heads("of | fact | value"), tuple(found), num_names=3
    )
    return Part(f"Everything recorded of run {run_id}", tables=(table,))


def _facts(of: str, values: Mapping[str, object]) -> list[tuple[tuple[str, ...], ...]]:

    return [names(of, name, value) for name, value in wording.facts(values)]
