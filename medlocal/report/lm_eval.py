"""Answers in the files that lm-evaluation-harness 0.4 writes with --log_samples. Needs no model.

A run becomes one evaluation: in a folder named after the model one `results_<time>.json`, and one
`samples_<task>_<time>.jsonl` per task, where the time is that at which the run was made (UTC). A task
is one data set × language × variant × prompt × format × arm; variants that nobody verified have tasks
of their own.

A generated answer is two samples, as in the harness's own tasks with a strict and a lenient filter:
`strict-match` knows only an answer whose whole text is in the form, `flexible-extract` every answer
that names one option. Scored answers have the filter `none`. Answers left out of every denominator
(engine errors, masks that did not act) have no sample; `n-samples` says how many were asked.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import medlocal
from medlocal.errors import UsageError
from medlocal.evals.answers import GRADER_VERSION
from medlocal.evals.formats import SCORED_ARMS
from medlocal.evals.scoring import NOT_ASKED
from medlocal.files import atomic_write, disk_errors, sync_folder
from medlocal.report.answers import full_results, stored_variant
from medlocal.report.lm_eval_samples import TASK_FIELDS, samples, sha256, task_name
from medlocal.store import RunRow, Store, StoredJob

_BUFFER = 16 << 20
"""Bytes of samples held in memory: tasks are answered side by side, and are more than files may be open."""
_UNSAFE_MODEL = re.compile(r'["<>:/|\\?*\[\]\x00-\x1f]+')


def export_lm_eval(store: Store, run_ids: Iterable[str], folder: Path) -> list[Path]:
    """Write runs in the form of lm-evaluation-harness.

    Args:
        store: the workspace's.
        run_ids: full ids.
        folder: gets one folder per model; made where it is not there.

    Returns:
        The files written: of each run the samples by task, then the results, which are written last.

    Raises:
        UsageError: there is no such run, a run has no graded answer, its export is there already, or
            the folder is a file.
        MedlocalError: the disk is full or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="give the path of a folder")
    exports = [
        export for run_id in dict.fromkeys(run_ids) for export in _Export.of(store, run_id, folder)
    ]
    written = []
    for export in exports:
        with disk_errors(folder):
            written += export.write(store)
    return written


@dataclass
class _Export:
    """One model of a run on its way into its folder."""

    run: RunRow
    model: str
    folder: Path
    """Of the model."""
    tasks: "dict[str, _Task]" = field(default_factory=dict)
    doc_ids: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """By data set and language, the items in the order in which they come up."""

    @classmethod
    def of(cls, store: Store, run_id: str, folder: Path) -> "list[_Export]":
        """The exports of a run: one for each of its models."""
        run = store.run(run_id)
        graded = (result for result in store.results(run_id, GRADER_VERSION) if result.grade)
        models = dict.fromkeys(result.job.model for result in graded)
        if not models:
            raise UsageError(
                f"run {run_id} has no graded answer to export",
                hint=f"`medlocal regrade {run_id}` grades the answers that it has",
            )
        exports = [cls(run, model, folder / model_folder(model)) for model in models]
        for export in exports:
            if old := sorted(export.folder.glob(f"*_{export.time}.json*")):
                raise UsageError(
                    f"{export.folder} already holds run {run_id}: {old[0].name}",
                    hint="delete its files there, or export into another folder",
                )
        return exports

    @property
    def time(self) -> str:
        """As the harness writes it into names: the run's own, which tells its files apart."""
        moment = datetime.fromisoformat(self.run.created).astimezone(UTC).replace(tzinfo=None)
        return moment.isoformat(timespec="microseconds").replace(":", "-")

    def write(self, store: Store) -> list[Path]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".medlocal-", dir=self.folder) as unfinished:
            parts = _Parts(Path(unfinished))
            for job, grade, record in full_results(store, self.run.id):
                if job.model != self.model:
                    continue
                task, doc_id = self._task(job), self._doc_id(job)
                if grade is None or record is None or grade.outcome in NOT_ASKED:
                    continue
                for sample in samples(doc_id, job, grade, record):
                    parts.add(task.name, task.add(sample))
            parts.flush()
            written = [self._publish(path) for path in sorted(Path(unfinished).iterdir())]
        results = self.folder / f"results_{self.time}.json"
        atomic_write(results, json.dumps(self._results(), indent=2, ensure_ascii=False))
        return [*written, results]

    def _publish(self, part: Path) -> Path:
        path = self.folder / f"samples_{part.name}_{self.time}.jsonl"
        with part.open("ab") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
        sync_folder(self.folder)
        return path

    def _task(self, job: StoredJob) -> "_Task":
        name = task_name(job)
        if name not in self.tasks:
            self.tasks[name] = _Task(name, job)
        self.tasks[name].num_jobs += 1
        return self.tasks[name]

    def _doc_id(self, job: StoredJob) -> int:
        known = self.doc_ids.setdefault((job.dataset, job.language), {})
        return known.setdefault(job.item_id, len(known))

    def _results(self) -> dict[str, object]:
        tasks = dict(sorted(self.tasks.items()))
        return {
            "results": {name: task.results() for name, task in tasks.items()},
            "group_subtasks": {},
            "configs": {name: task.config(self.run.id) for name, task in tasks.items()},
            "versions": dict.fromkeys(tasks, GRADER_VERSION),
            "n-shot": {name: task.num_shots for name, task in tasks.items()},
            "higher_is_better": {
                name: dict.fromkeys(task.metrics, True) for name, task in tasks.items()
            },
            "n-samples": {
                name: {"original": task.num_jobs, "effective": task.num_samples}
                for name, task in tasks.items()
            },
            **self._facts(),
            "task_hashes": {name: task.hash.hexdigest() for name, task in tasks.items()},
        }

    def _facts(self) -> dict[str, object]:
        """What the harness says of model and run, as far as a run recorded it."""
        run, file = self.run, self.run.model_named(self.model)
        template, engine = file.get("template"), run.engine.get(self.model, run.engine)
        seconds = engine.get("seconds") if isinstance(engine, Mapping) else None
        return {
            "config": {
                "model": "medlocal",
                "model_args": f"model={self.model}",
                "model_sha": file.get("sha256"),
                "model_num_parameters": file.get("parameters"),
                "limit": run.spec.get("limit"),
                "random_seed": run.spec.get("seed"),
            },
            "date": datetime.fromisoformat(run.created).timestamp(),
            "medlocal_version": medlocal.__version__,
            "model_source": "medlocal",
            "model_name": self.model,
            "model_name_sanitized": self.folder.name,
            "system_instruction": None,
            "system_instruction_sha": None,
            "fewshot_as_multiturn": bool(run.spec.get("shots")),
            "chat_template": template,
            "chat_template_sha": sha256(template) if isinstance(template, str) else None,
            "total_evaluation_time_seconds": None if seconds is None else str(seconds),
        }


@dataclass
class _Task:
    """What the results say of a task; its samples pass through."""

    name: str
    first: StoredJob
    """All jobs of a task have its names."""
    num_jobs: int = 0
    num_samples: int = 0
    """Items with a sample."""
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """By metric and filter."""
    hash: Any = field(default_factory=hashlib.sha256)
    """Over the hashes of the samples, in their order."""

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(metric for metric, _ in self.values))

    @property
    def num_shots(self) -> int:
        examples = self.first.payload.get("examples")
        return len(examples) if isinstance(examples, list) else 0

    def add(self, sample: Mapping[str, Any]) -> bytes:
        """Count a sample, and return its line."""
        for metric in sample["metrics"]:
            self.values.setdefault((metric, sample["filter"]), []).append(sample[metric])
        self.num_samples = max(map(len, self.values.values()))
        for name in ("doc_hash", "prompt_hash", "target_hash"):
            self.hash.update(sample[name].encode())
        return json.dumps(sample, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def results(self) -> dict[str, object]:
        found: dict[str, object] = {
            "name": self.name,
            "alias": self.name,
            "sample_len": self.num_samples,
        }
        for (metric, name), values in self.values.items():
            share, n = sum(values) / len(values), len(values)
            found[f"{metric},{name}"] = share
            # The standard error of a mean, from the sample standard deviation (divided by n - 1).
            error = math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else "N/A"
            found[f"{metric}_stderr,{name}"] = error
        return found

    def config(self, run_id: str) -> dict[str, object]:
        variant = stored_variant(self.first)
        is_scored = self.first.arm in SCORED_ARMS
        metrics = [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in self.metrics
        ]
        return {
            "task": self.name,
            "dataset_path": self.first.dataset,
            "output_type": "multiple_choice" if is_scored else "generate_until",
            "metric_list": metrics,
            "num_fewshot": self.num_shots,
            "repeats": 1,
            "should_decontaminate": False,
            "metadata": {
                "version": GRADER_VERSION,
                **{name: getattr(self.first, name) for name in TASK_FIELDS},
                "variant_version": str(variant["version"]),
                "verified": variant["verified"],
                "excluded": self.num_jobs - self.num_samples,
                "run": run_id,
            },
        }


@dataclass
class _Parts:
    """Files that grow side by side, more of them than may be open at once."""

    folder: Path
    lines: dict[str, list[bytes]] = field(default_factory=dict)
    num_bytes: int = 0

    def add(self, name: str, line: bytes) -> None:
        self.lines.setdefault(name, []).append(line)
        self.num_bytes += len(line)
        if self.num_bytes >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        for name, lines in self.lines.items():
            with (self.folder / name).open("ab") as stream:
                stream.writelines(lines)
        self.lines, self.num_bytes = {}, 0


def model_folder(model: str) -> str:
    """The name of a model's folder: signs that some file system refuses become two underscores."""
    return _UNSAFE_MODEL.sub("__", model).strip(". ") or "model"
