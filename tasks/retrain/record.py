"""The record of a retrain, by which it can be repeated."""

from pathlib import Path

from runtime.paths import datasets_folder
from runtime.provenance import code_digest, git_commit
from runtime.record import Record, log_record
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, ReadingsManifest, RefitManifest, RetrainParameters, TrainedManifest
from tasks.retrain.run import FLOW
from tutelage.data.dataset import DatasetSpec, load_dataset_spec
from tutelage.data.source import relative_names
from tutelage.files import file_digest


@stage("record", run_name="record {features.task}")
def record_run(
    files: dict[str, list[Path]],
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    refitted: RefitManifest | None,
    parameters: RetrainParameters,
    run: RunManifest,
) -> None:
    """Log to the run what `flows.reproduce` compares with.

    files: what has been read, by dataset
    """
    specs = {name: load_dataset_spec(datasets_folder() / f"{name}.yaml") for name in files} | {spec.name: spec}
    results = {
        "readings": readings.digest,
        "features": features.digest,
        "teachers": teachers.digest,
        "students": students.digest,
    }
    log_record(
        run.run_id,
        Record(
            parameters=parameters.model_dump(mode="json"),
            specs={name: each.model_dump(mode="json") for name, each in specs.items()},
            commit=git_commit(),
            code=code_digest(FLOW),
            files={
                dataset: {name: file_digest(path) for name, path in relative_names(of_dataset).items()}
                for dataset, of_dataset in files.items()
            },
            results=results | ({} if refitted is None else {"refit": refitted.digest}),
        ),
    )
