"""The files for lm-evaluation-harness, from a store filled by hand.

What the fields are and how hashes and standard errors are made is that of lm-eval 0.4.13.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medlocal.errors import MedlocalError, UsageError
from medlocal.evals.answers import GRADER_VERSION
from medlocal.report.lm_eval import export_lm_eval, model_folder
from medlocal.report.lm_eval_samples import task_name
from medlocal.store import Record, Store, StoredGrade, StoredJob
from tests.store_values import a_grade, a_job, a_record

VARIANT: dict[str, Any] = {
    "name": "original",
    "version": "1",
    "stem": "¿Qué causa el déficit de tiamina?",
    "context": "",
    "labels": ["A", "B", "C"],
    "options": ["Escorbuto", "Beriberi", "Pelagra"],
    "origin": [0, 1, 2],
    "gold": 1,
    "verified": True,
    "replies": ["A", "B", "C"],
    "prompt_language": "es",
}
DOC = {
    "id": "q0",
    "group": "starter/0",
    "question": "¿Qué causa el déficit de tiamina?",
    "context": "",
    "choices": ["Escorbuto", "Beriberi", "Pelagra"],
    "labels": ["A", "B", "C"],
    "answer": 1,
    "origin": [0, 1, 2],
}
PROMPT = (
    '[{"role": "system", "content": "Responda."},'
    ' {"role": "user", "content": "¿Cuál es el tratamiento?"}]'
)
TASK = "medlocal_starter_es_original_plain-0_letter_free"


def asked(number: int = 0, *, payload: dict[str, Any] | None = None, **names: Any) -> StoredJob:
    variant = {**VARIANT, **(payload or {})}
    return a_job(number, payload={"variant": variant, "examples": []}, **names)


def judged(job: StoredJob, outcome: str = "STRICT_VALID", slot: int | None = 1) -> StoredGrade:
    return a_grade(
        job, grader=GRADER_VERSION, outcome=outcome, slot=slot, content=slot, correct=slot == 1
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "medlocal.db") as opened:
        yield opened


def a_run(store: Store, *answers: tuple[StoredJob, StoredGrade | None], **stats: object) -> str:
    """A run whose answers have all the same record."""
    spec = {"suite": "quick", "limit": 3, "seed": 5, "shots": 0}
    run_id = store.create_run(spec, {"id": "demo", "sha256": "ab" * 32, "template": "{{ m }}"})
    store.add_jobs(run_id, [job for job, _ in answers])
    records: list[Record] = [
        a_record(job, text="B", stats=stats) for job, grade in answers if grade
    ]
    store.put(run_id, records, [grade for _, grade in answers if grade])
    store.set_engine(run_id, {"seconds": 12.5})
    return run_id


def export(store: Store, run_id: str, folder: Path) -> tuple[list[list[Any]], Any]:
    """The samples of each file, and the results."""
    *samples, results = export_lm_eval(store, [run_id], folder)
    lines = [path.read_text(encoding="utf-8").splitlines() for path in samples]
    return [list(map(json.loads, of_task)) for of_task in lines], json.loads(results.read_text())


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TestSamples:
    def test_a_generated_answer_is_a_strict_and_a_lenient_sample(
        self, store: Store, tmp_path: Path
    ) -> None:
        job = asked()
        ((strict, lenient),), _ = export(store, a_run(store, (job, judged(job))), tmp_path / "out")
        assert strict == {
            "doc_id": 0,
            "doc": DOC,
            "target": "B",
            "arguments": {
                "gen_args_0": {
                    "arg_0": PROMPT,
                    "arg_1": {"do_sample": False, "temperature": 0.0, "until": []},
                }
            },
            "resps": [["B"]],
            "filtered_resps": ["B"],
            "filter": "strict-match",
            "metrics": ["exact_match"],
            "doc_hash": sha256(json.dumps(DOC, indent=2, ensure_ascii=False)),
            "prompt_hash": sha256(PROMPT),
            "target_hash": sha256("B"),
            "exact_match": 1.0,
        }
        assert lenient == {**strict, "filter": "flexible-extract"}

    @pytest.mark.parametrize(
        ("outcome", "slot", "strict", "lenient"),
        [
            ("LENIENT_VALID", 1, (["[invalid]"], 0.0), (["B"], 1.0)),
            ("LENIENT_VALID", 2, (["[invalid]"], 0.0), (["C"], 0.0)),
            ("STRICT_VALID", 0, (["A"], 0.0), (["A"], 0.0)),
            ("REFUSAL", None, (["[invalid]"], 0.0), (["[invalid]"], 0.0)),
        ],
    )
    def test_only_the_lenient_filter_reads_an_answer_out_of_form(
        self,
        store: Store,
        tmp_path: Path,
        outcome: str,
        slot: int | None,
        strict: tuple[list[str], float],
        lenient: tuple[list[str], float],
    ) -> None:
        job = asked()
        run_id = a_run(store, (job, judged(job, outcome, slot)))
        (samples,), _ = export(store, run_id, tmp_path / "out")
        found = [(sample["filtered_resps"], sample["exact_match"]) for sample in samples]
        assert found == [strict, lenient]

    def test_a_label_is_scored_behind_the_beginning_of_the_answer(
        self, store: Store, tmp_path: Path
    ) -> None:
        job = asked(format="json", arm="label")
        run_id = a_run(
            store, (job, judged(job, "SCORED")), scores={"A": -3.5, "B": -0.25, "C": -1.0}
        )
        ((sample,),), _ = export(store, run_id, tmp_path / "out")
        prompt = PROMPT[:-1] + ', {"role": "assistant", "content": "{\\"answer\\": \\""}]'
        assert sample["arguments"] == {
            "gen_args_0": {"arg_0": prompt, "arg_1": "A"},
            "gen_args_1": {"arg_0": prompt, "arg_1": "B"},
            "gen_args_2": {"arg_0": prompt, "arg_1": "C"},
        }
        assert sample["resps"] == [[["-3.5", "None"]], [["-0.25", "None"]], [["-1.0", "None"]]]
        assert sample["filtered_resps"] == [["-3.5", "None"], ["-0.25", "None"], ["-1.0", "None"]]
        assert (sample["filter"], sample["target"]) == ("none", "1")
        assert (sample["metrics"], sample["acc"]) == (["acc"], 1.0)

    def test_a_cloze_has_its_sums_and_two_accuracies(self, store: Store, tmp_path: Path) -> None:
        """Per character -9/9, -8.8/8 and -8.9/7: the first is highest; of the sums, the second."""
        job = asked(format="text", arm="cloze")
        scores = {"A": -9 / 9, "B": -8.8 / 8, "C": -8.9 / 7}
        run_id = a_run(
            store, (job, judged(job, "SCORED", 0)), scores=scores, sums=[-9.0, -8.8, -8.9]
        )
        ((sample,),), _ = export(store, run_id, tmp_path / "out")
        texts = [request["arg_1"] for request in sample["arguments"].values()]
        assert texts == ["Escorbuto", "Beriberi", "Pelagra"]
        assert [value for value, _ in sample["filtered_resps"]] == ["-9.0", "-8.8", "-8.9"]
        assert (sample["acc"], sample["acc_norm"]) == (1.0, 0.0)

    def test_what_is_graded_of_a_cloze_is_its_normalised_accuracy(
        self, store: Store, tmp_path: Path
    ) -> None:
        job = asked(format="text", arm="cloze")
        run_id = a_run(store, (job, judged(job, "SCORED", 1)), scores={}, sums=[-10.0, -9.0, -8.5])
        ((sample,),), _ = export(store, run_id, tmp_path / "out")
        assert (sample["metrics"], sample["acc"], sample["acc_norm"]) == (
            ["acc", "acc_norm"],
            0.0,
            1.0,
        )

    def test_an_item_has_one_number_in_all_tasks_of_its_language(
        self, store: Store, tmp_path: Path
    ) -> None:
        jobs = [
            asked(0, item_id="x"),
            asked(1, item_id="y"),
            asked(2, item_id="y", arm="grammar"),
            asked(3, item_id="z", language="en"),
        ]
        run_id = a_run(store, *((job, judged(job)) for job in jobs))
        samples, _ = export(store, run_id, tmp_path / "out")
        found = [[(s["doc"]["id"], s["doc_id"]) for s in of_task[::2]] for of_task in samples]
        assert found == [[("z", 0)], [("x", 0), ("y", 1)], [("y", 1)]]

    def test_an_engine_error_is_no_sample_but_is_counted(
        self, store: Store, tmp_path: Path
    ) -> None:
        jobs = [asked(0), asked(1), asked(2)]
        grades = (judged(jobs[0]), judged(jobs[1], "ENGINE_ERROR", None), None)
        run_id = a_run(store, *zip(jobs, grades, strict=True))
        (samples,), results = export(store, run_id, tmp_path / "out")
        assert len(samples) == 2
        assert results["n-samples"] == {TASK: {"original": 3, "effective": 1}}
        assert results["configs"][TASK]["metadata"]["excluded"] == 2


class TestResults:
    def test_accuracies_with_standard_errors(self, store: Store, tmp_path: Path) -> None:
        """2 of 4 lenient: sqrt(0.5 * 0.5 / 3); 1 of 4 strict: sqrt(0.25 * 0.75 / 3) = 0.25."""
        jobs = [asked(number) for number in range(4)]
        outcomes = [("STRICT_VALID", 1), ("LENIENT_VALID", 1), ("STRICT_VALID", 0), ("EMPTY", None)]
        pairs = zip(jobs, outcomes, strict=True)
        run_id = a_run(store, *((job, judged(job, *outcome)) for job, outcome in pairs))
        _, results = export(store, run_id, tmp_path / "out")
        assert results["results"] == {
            TASK: {
                "name": TASK,
                "alias": TASK,
                "sample_len": 4,
                "exact_match,strict-match": 0.25,
                "exact_match_stderr,strict-match": 0.25,
                "exact_match,flexible-extract": 0.5,
                "exact_match_stderr,flexible-extract": pytest.approx(0.288675134594813),
            }
        }

    def test_one_answer_has_no_standard_error(self, store: Store, tmp_path: Path) -> None:
        job = asked()
        _, results = export(store, a_run(store, (job, judged(job))), tmp_path / "out")
        assert results["results"][TASK]["exact_match_stderr,strict-match"] == "N/A"

    def test_what_is_known_of_task_model_and_run(self, store: Store, tmp_path: Path) -> None:
        job = replace(asked(), payload={"variant": VARIANT, "examples": ["q8", "q9"]})
        run_id = a_run(store, (job, judged(job)))
        (samples,), results = export(store, run_id, tmp_path / "out")
        hashes = [s[name] for s in samples for name in ("doc_hash", "prompt_hash", "target_hash")]
        assert results["task_hashes"] == {TASK: sha256("".join(hashes))}
        assert results["configs"][TASK] == {
            "task": TASK,
            "dataset_path": "starter",
            "output_type": "generate_until",
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
            "num_fewshot": 2,
            "repeats": 1,
            "should_decontaminate": False,
            "metadata": {
                "version": GRADER_VERSION,
                "dataset": "starter",
                "language": "es",
                "variant": "original",
                "prompt": "plain-0",
                "format": "letter",
                "arm": "free",
                "variant_version": "1",
                "verified": True,
                "excluded": 0,
                "run": run_id,
            },
        }
        assert (results["versions"], results["n-shot"]) == ({TASK: GRADER_VERSION}, {TASK: 2})
        assert results["higher_is_better"] == {TASK: {"exact_match": True}}
        assert (results["model_name"], results["model_name_sanitized"]) == ("demo", "demo")
        assert (results["config"]["limit"], results["config"]["random_seed"]) == (3, 5)
        assert results["config"]["model_sha"] == "ab" * 32
        assert results["chat_template_sha"] == sha256("{{ m }}")
        assert results["total_evaluation_time_seconds"] == "12.5"

    def test_a_scored_task_is_multiple_choice(self, store: Store, tmp_path: Path) -> None:
        job = asked(arm="label")
        run_id = a_run(store, (job, judged(job, "SCORED")), scores={"A": -3, "B": -1, "C": -2})
        _, results = export(store, run_id, tmp_path / "out")
        (config,) = results["configs"].values()
        assert config["output_type"] == "multiple_choice"


class TestFiles:
    def test_names_are_those_of_the_harness(self, store: Store, tmp_path: Path) -> None:
        job = asked(model="org/demo")
        run_id = a_run(store, (job, judged(job)))
        paths = export_lm_eval(store, [run_id], tmp_path / "out")
        created = store.run(run_id).created[:19].replace(":", "-")
        assert [str(path.relative_to(tmp_path)) for path in paths] == [
            f"out/org__demo/samples_{TASK}_{time_of(paths[0])}.jsonl",
            f"out/org__demo/results_{time_of(paths[0])}.json",
        ]
        assert re.fullmatch(re.escape(created) + r"\.\d{6}", time_of(paths[0]))
        assert sorted((tmp_path / "out" / "org__demo").iterdir()) == sorted(paths)

    def test_each_run_is_an_evaluation_of_its_own(self, store: Store, tmp_path: Path) -> None:
        job = asked()
        runs = [a_run(store, (job, judged(job))) for _ in range(2)]
        paths = export_lm_eval(store, runs, tmp_path)
        assert len({time_of(path) for path in paths}) == 2
        assert [path.name.split("_")[0] for path in paths] == ["samples", "results"] * 2

    def test_many_samples_are_written_in_the_order_of_the_jobs(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("medlocal.report.lm_eval._BUFFER", 1)
        jobs = [asked(n, arm=("free", "grammar")[n % 2], item_id=f"i{n // 2}") for n in range(10)]
        run_id = a_run(store, *((job, judged(job)) for job in jobs))
        samples, _ = export(store, run_id, tmp_path / "out")
        assert [[s["doc_id"] for s in of_task[::2]] for of_task in samples] == [[0, 1, 2, 3, 4]] * 2

    def test_an_export_that_is_there_is_not_overwritten(self, store: Store, tmp_path: Path) -> None:
        job = asked()
        run_id = a_run(store, (job, judged(job)))
        paths = export_lm_eval(store, [run_id], tmp_path)
        paths[0].write_text("mine")
        with pytest.raises(
            UsageError, match=f"{tmp_path}/demo already holds run {run_id}"
        ) as caught:
            export_lm_eval(store, [run_id], tmp_path)
        assert caught.value.hint == "delete its files there, or export into another folder"
        assert paths[0].read_text() == "mine"

    def test_nothing_is_written_where_one_of_the_runs_is_there(
        self, store: Store, tmp_path: Path
    ) -> None:
        job = asked()
        first, second = (a_run(store, (job, judged(job))) for _ in range(2))
        paths = export_lm_eval(store, [second], tmp_path)
        with pytest.raises(UsageError, match="already holds"):
            export_lm_eval(store, [first, second], tmp_path)
        assert sorted((tmp_path / "demo").iterdir()) == sorted(paths)

    def test_a_failure_leaves_no_file(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        job = asked()
        run_id = a_run(store, (job, judged(job)))
        monkeypatch.setattr("medlocal.report.lm_eval._Parts.flush", refuse)
        with pytest.raises(MedlocalError, match="is full"):
            export_lm_eval(store, [run_id], tmp_path / "out")
        assert list((tmp_path / "out" / "demo").iterdir()) == []

    def test_a_run_without_graded_answers_says_what_to_do(
        self, store: Store, tmp_path: Path
    ) -> None:
        run_id = a_run(store, (asked(), None))
        with pytest.raises(UsageError, match="has no graded answer") as caught:
            export_lm_eval(store, [run_id], tmp_path / "out")
        assert caught.value.hint == f"`medlocal regrade {run_id}` grades the answers that it has"
        assert not (tmp_path / "out").exists()

    def test_a_file_is_no_folder(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(UsageError, match="is no folder"):
            export_lm_eval(store, [], tmp_path / "out")

    @pytest.mark.parametrize(
        ("model", "folder"),
        [
            ("demo-q4_k_m.gguf", "demo-q4_k_m.gguf"),
            ("org/demo", "org__demo"),
            ('a:b\\c"d', "a__b__c__d"),
            ("../..", "__"),
            ("..", "model"),
            ("médico", "médico"),
        ],
    )
    def test_a_model_names_a_folder_inside(self, model: str, folder: str) -> None:
        assert model_folder(model) == folder


def time_of(path: Path) -> str:
    """As lm-eval takes it out of a name: what stands behind the last underscore."""
    return path.name[path.name.rfind("_") + 1 :].removesuffix(".jsonl").removesuffix(".json")


class TestTaskNames:
    @pytest.mark.parametrize(
        ("variant", "name"),
        [
            ("original", "original"),
            ("rotate(1)", "rotate_1"),
            ("typos(0.2)+shuffle", "typos_0.2-shuffle"),
            ("label_style(A.)", "label_style_A."),
        ],
    )
    def test_by_hand(self, variant: str, name: str) -> None:
        job = asked(variant=variant)
        assert task_name(job) == f"medlocal_starter_es_{name}_plain-0_letter_free"

    def test_signs_that_get_lost_are_made_up_for_by_a_hash(self) -> None:
        styles = ["(A)", "A.", "A)", "[A]", "A:"]
        names = {task_name(asked(variant=f"label_style({style})")) for style in styles}
        assert len(names) == 5
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)
        key = sha256("starter\nes\nlabel_style([A])\nplain-0\nletter\nfree")[:8]
        assert f"medlocal_starter_es_label_style_A_plain-0_letter_free_{key}" in names

    def test_unverified_variants_are_a_task_of_their_own(self) -> None:
        job = asked(variant="nota_replaces_gold", payload={"verified": False})
        assert task_name(job) == (
            "medlocal_starter_es_nota_replaces_gold_plain-0_letter_free_unverified"
        )
