"""One answer as lm-evaluation-harness 0.4 writes it into a file of samples. Pure.

Here are the names of tasks, and what a sample holds. The prompt is the chat as JSON, as the harness gives
it to models that are reached through messages. Files, runs and what results say of a task are not known
here.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medlocal.evals.answers import Outcome
from medlocal.evals.formats import FORMATS, SCORED_ARMS
from medlocal.report.answers import messages_json, replies, stored_variant
from medlocal.store import Record, StoredGrade, StoredJob

STRICT, LENIENT, UNFILTERED = "strict-match", "flexible-extract", "none"
"""Names of filters: of generated answers, judged strictly and leniently, and of scored ones."""
TASK_FIELDS = ("dataset", "language", "variant", "prompt", "format", "arm")
"""The names that make a task."""

_INVALID = "[invalid]"
"""What the harness's filters say where they find no answer."""
_UNKNOWN = "None"
"""Stands where the harness says whether a continuation is the greedy one, which is not recorded."""
_GREEDY: Mapping[str, object] = {"do_sample": False, "temperature": 0.0, "until": []}
_PLAIN_NAME = re.compile(r"[\w.-]+(\([\w.-]+\))?(\+[\w.-]+(\([\w.-]+\))?)?", re.ASCII)


def task_name(job: StoredJob) -> str:
    """The name of a job's task: `medlocal_starter_es_rotate_1_plain_letter_free`.

    Where a name in it has signs that get lost, as in `label_style((A))`, a hash of all names follows.
    """
    names = [str(getattr(job, name)) for name in TASK_FIELDS]
    safe = [re.sub(r"[^A-Za-z0-9.-]+", "_", _unbracketed(name)).strip("_") for name in names]
    if not all(map(_PLAIN_NAME.fullmatch, names)):
        safe.append(sha256("\n".join(names))[:8])
    if not stored_variant(job)["verified"]:
        safe.append("unverified")
    return "_".join(["medlocal", *safe])


def _unbracketed(name: str) -> str:
    return name.replace(")", "").replace("(", "_").replace("+", "-")


def samples(
    doc_id: int, job: StoredJob, grade: StoredGrade, record: Record
) -> Iterator[dict[str, object]]:
    """The samples of an answer, one per filter."""
    variant = stored_variant(job)
    scored = job.arm in SCORED_ARMS
    doc = _doc(job)
    target = str(variant["gold"]) if scored else replies(variant)[variant["gold"]]
    prompt = _prompt(job)
    for name, filtered, metrics in (
        _scored(variant, job.arm, grade, record) if scored else _generated(variant, grade)
    ):
        yield {
            "doc_id": doc_id,
            "doc": doc,
            "target": target,
            "arguments": _arguments(job, prompt),
            "resps": [[response] for response in filtered] if scored else [[record.text]],
            "filtered_resps": filtered,
            "filter": name,
            "metrics": list(metrics),
            "doc_hash": sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": sha256(prompt),
            "target_hash": sha256(target),
            **metrics,
        }


_Filtered = tuple[str, Sequence[object], Mapping[str, float]]
"""Of a filter: its name, the responses after it, and the metrics."""


def _generated(variant: Mapping[str, Any], grade: StoredGrade) -> Iterator[_Filtered]:
    found = _INVALID if grade.slot is None else replies(variant)[grade.slot]
    is_strict = grade.outcome == Outcome.STRICT_VALID
    strict = {"exact_match": float(grade.correct and is_strict)}
    yield STRICT, [found if is_strict else _INVALID], strict
    yield LENIENT, [found], {"exact_match": float(grade.correct)}


def _scored(
    variant: Mapping[str, Any], arm: str, grade: StoredGrade, record: Record
) -> Iterator[_Filtered]:
    scores: Any = record.stats["scores"]
    if arm == "label":
        sums = [scores[reply] for reply in replies(variant)]
        metrics = {"acc": float(grade.correct)}
    else:
        # The harness's `acc` compares whole continuations; what is graded is per character: `acc_norm`.
        found: Any = record.stats["sums"]
        sums, right = list(found), found.index(max(found)) == variant["gold"]
        metrics = {"acc": float(right), "acc_norm": float(grade.correct)}
    yield UNFILTERED, [[str(value), _UNKNOWN] for value in sums], metrics


def _doc(job: StoredJob) -> dict[str, object]:
    """The question as it was shown; `answer` is the place of the right option among `choices`."""
    variant = stored_variant(job)
    return {
        "id": job.item_id,
        "group": job.group_id,
        "question": variant["stem"],
        "context": variant.get("context", ""),
        "choices": list(variant["options"]),
        "labels": list(variant["labels"]),
        "answer": variant["gold"],
        "origin": list(variant["origin"]),
    }


def _prompt(job: StoredJob) -> str:
    """The chat as JSON, with the beginning of the answer that the label arm gives the model."""
    messages = job.messages
    if job.arm == "label":
        language = str(stored_variant(job).get("prompt_language") or job.language)
        if place := FORMATS[job.format].place(language):
            messages = (*messages, ("assistant", place))
    return messages_json(messages)


def _arguments(job: StoredJob, prompt: str) -> dict[str, object]:
    """By request, the arguments that the harness would have given its model."""
    variant = stored_variant(job)
    if job.arm not in SCORED_ARMS:
        return {"gen_args_0": {"arg_0": prompt, "arg_1": dict(_GREEDY)}}
    texts = replies(variant) if job.arm == "label" else variant["options"]
    requests = enumerate({"arg_0": prompt, "arg_1": text} for text in texts)
    return {f"gen_args_{number}": request for number, request in requests}


def sha256(text: str) -> str:
    """The hex digest of a text, by which the harness tells documents, prompts and targets apart."""
    return hashlib.sha256(text.encode()).hexdigest()
