"""Stage 7: the winner's recipe once more on all the history; that student is registered, the judged one told beside."""

from pathlib import Path

from prefect import task
from prefect.tasks import exponential_backoff

from schemas.manifests import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RunManifest,
    TrainedManifest,
)
from tasks.caching import content_key, is_transient
from tasks.guard import guard
from tasks.home import home
from tasks.loading import load_gate, load_task, run_folder
from tasks.progress import reporter
from tasks.registered import load_registered
from tasks.tracking import log_figures
from tutelage.dataset import DatasetSpec
from tutelage.export import export_student, load_student, student_card
from tutelage.files import file_digest, folder_written_whole
from tutelage.recipe import Recipe
from tutelage.refit import refit_student, refit_teacher, whole_task
from tutelage.teachers import Chair, Teacher, chairs_of, first_states_taught, teach_taught
from tutelage.weights import save_network
from tutelage.windows import Span


@task(
    name="refit",
    task_run_name="refit {features.task}",
    retries=2,
    retry_delay_seconds=exponential_backoff(5),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def refit(
    readings: ReadingsManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    teacher: TrainedManifest,
    students: TrainedManifest,
    evaluation: EvaluationManifest,
    recipe: Recipe,
    run: RunManifest,
    *,
    seed: int,
    device: str,
) -> RefitManifest:
    """Train teacher and chosen student on train, validation and test part, and export that student.

    Raises LeakError where the exported student sees what it must not.
    """
    history = Span(features.train.start_utc, features.test.end_utc)
    judged, _ = load_task(features, spec, device, unlabelled=recipe.unlabelled)
    learning = whole_task(judged, history, bins=recipe.bins)
    chosen, folder = evaluation.chosen, run_folder(home(), run.run_id, "refit")
    epochs = {"student": students.best_epoch[chosen]}

    def kept(name: str) -> Path:
        return run_folder(home(), run.run_id, f"refit-{name}-{features.digest[:12]}.safetensors")

    soft, states = None, None
    if chosen == "student":
        teachers: dict[Chair, Teacher] = {}
        for chair in chairs_of(recipe, learning.horizon):
            if recipe.teacher_model:
                teachers[chair] = load_registered(recipe.teacher_model, features, spec)
                continue
            epochs[chair.name] = count = teacher.best_epoch[chair.name]
            report = reporter(f"refit of {chair.name}", features.task, count, {}, watched="train")
            teachers[chair] = refit_teacher(
                learning, chair, epochs=count, seed=seed, checkpoint=kept(chair.name), on_epoch=report
            )
        soft = teach_taught(teachers, learning, seed=seed)
        if recipe.terms.inside:
            states = first_states_taught(teachers, learning, seed=seed)
    network = refit_student(
        learning,
        recipe,
        soft=soft,
        gate=load_gate(students.folder, learning.panel.observed.device),
        states=states,
        epochs=epochs["student"],
        seed=seed,
        checkpoint=kept("student"),
        on_epoch=reporter(f"refit of the {chosen}", features.task, epochs["student"], {}, watched="train"),
    )
    with folder_written_whole(folder) as part:
        save_network(network, learning.scalers, part, notes={"features": features.digest, "seed": seed})
        card = student_card(network, spec, trained_until=history.end)
        export_student(network, learning.bins, card, part / "export")
        digest = file_digest(part / "weights.safetensors")
        checked = guard(readings, spec, {"refit": load_student(part / "export")}, features, seed).checked
    log_figures(run.run_id, {f"refit.{name}.epochs": float(count) for name, count in epochs.items()})
    return RefitManifest(
        folder=folder,
        digest=digest,
        start_utc=history.start,
        end_utc=history.end,
        windows=len(learning.train),
        epochs=epochs,
        leak_checks=checked,
    )
