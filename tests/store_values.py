"""Jobs, records and grades for the tests of the store."""

from dataclasses import replace

from medlocal.store import Record, StoredGrade, StoredJob


def a_job(number: int = 0, **changes: object) -> StoredJob:
    job = StoredJob(
        key=f"{number:08x}",
        model="demo",
        dataset="starter",
        item_id=f"q{number}",
        group_id=f"starter/{number}",
        language="es",
        variant="original",
        prompt="plain-0",
        format="letter",
        arm="free",
        payload={"gold": 2, "labels": ["A", "B"], "stem": "¿Año? ñ"},
        messages=(("system", "Responda."), ("user", "¿Cuál es el tratamiento?")),
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def a_record(job: StoredJob, **changes: object) -> Record:
    record = Record(
        job_key=job.key,
        text="La respuesta es C",
        finish="stop",
        token_ids=(1, 49_151, 7),
        logprobs=(-0.5, -1.25, 0.0),
        stats={"tax_nats": 1.5, "scores": {"A": -1.25, "B": -2.5}},
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def a_grade(job: StoredJob, **changes: object) -> StoredGrade:
    grade = StoredGrade(job.key, 1, "STRICT_VALID", 2, 1, True, "the whole output is in the form")
    return replace(grade, **changes)  # type: ignore[arg-type]
