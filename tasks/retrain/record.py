"""The record of a retrain, by which it can be repeated."""

from runtime.paths import datasets_folder
from runtime.provenance import code_digest, git_commit
from runtime.record import Record, log_record
from runtime.stage import stage
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, ReadingsManifest, RefitManifest, RetrainParameters, TrainedManifest
from tasks.retrain.run import FLOW
from tutelage.data.dataset import DatasetSpec, load_dataset_spec, source_files
from tutelage.files import file_digest


@stage("record", run_name="record {features.task}")
def record_run(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teachers: TrainedManifest,
    students: TrainedManifest,
    refitted: RefitManifest | None,
    parameters: RetrainParameters,
    run: RunManifest,
) -> None:
    """Log to the run what `flows.reproduce` compares with."""
    specs, others = {spec.name: spec}, parameters.recipe.teacher.other_sites
    if others is not None:
        specs[others] = load_dataset_spec(datasets_folder() / f"{others}.yaml")
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
            files={path.name: file_digest(path) for each in specs.values() for path in source_files(each.source)},
            results=results | ({} if refitted is None else {"refit": refitted.digest}),
        ),
    )
