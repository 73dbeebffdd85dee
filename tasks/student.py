"""Stage 5: the student learns from truth and teacher; its twin, the same in all else, from the truth alone."""

from functools import partial

from prefect import task
from prefect.tasks import exponential_backoff

from schemas.manifests import FeaturesManifest, RunManifest, TrainedManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tasks.loading import load_soft_labels, load_task, run_folder
from tasks.progress import reporter, rows_of
from tutelage.dataset import DatasetSpec
from tutelage.export import export_student, student_card
from tutelage.files import file_digest, folder_written_whole, value_digest, write_json
from tutelage.gating import find_gate
from tutelage.recipe import Recipe
from tutelage.students import train_pair
from tutelage.teachers import states_taught
from tutelage.weights import load_network, save_network

MEMBERS = ("student", "twin")


@task(
    name="distil student",
    task_run_name="student {features.task}",
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def distil_student(
    features: FeaturesManifest,
    spec: DatasetSpec,
    teacher: TrainedManifest,
    recipe: Recipe,
    run: RunManifest,
    *,
    seed: int,
    device: str,
) -> TrainedManifest:
    """Train student and twin side by side, and export both: what is evaluated is what may be registered."""
    learning, _ = load_task(features, spec, device, unlabelled=recipe.unlabelled)
    place = learning.panel.observed.device
    labels = load_soft_labels(teacher.folder, place)
    states = None
    if recipe.terms.inside:
        states = states_taught(load_network(teacher.folder, place), learning, recipe, seed=seed)
    gate = find_gate(learning, recipe, labels["taught"], labels["validation"], seed=seed)
    folder = run_folder(home(), run.run_id, "students")
    checkpoint = run_folder(home(), run.run_id, f"students-{teacher.digest[:12]}.safetensors")
    runs = {run.children[name]: partial(rows_of, member=member) for member, name in enumerate(MEMBERS)}
    report = reporter("student and twin", features.task, recipe.student_budget.epochs, runs)
    *pair, progress = train_pair(
        learning, labels["taught"], recipe, seed=seed, gate=gate, states=states, checkpoint=checkpoint, on_epoch=report
    )
    with folder_written_whole(folder) as part:
        for name, network in zip(MEMBERS, pair, strict=True):
            notes = {"features": features.digest, "teacher": teacher.digest, "seed": seed}
            save_network(network, learning.scalers, part / name, notes=notes)
            card = student_card(network, spec, trained_until=features.validation.end_utc)
            export_student(network, learning.bins, card, part / name / "export")
        if gate is not None:
            write_json(part / "gate.json", {"mean_by_hour": gate.expand(-1, learning.horizon).mean(dim=0).tolist()})
        write_json(part / "history.json", {name: rows_of(progress, member) for member, name in enumerate(MEMBERS)})
        digest = value_digest([file_digest(part / name / "weights.safetensors") for name in MEMBERS])
    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch=dict(zip(MEMBERS, progress.best_epoch, strict=True)),
        best_validation_loss=dict(zip(MEMBERS, progress.best_loss, strict=True)),
        epochs=progress.epoch,
    )
