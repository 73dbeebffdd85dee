"""Stage 5: students learn from truth and teacher; their twins, the same in all else, from the truth alone."""

from functools import partial
from statistics import fmean

import torch
from prefect import task
from prefect.tasks import exponential_backoff

from schemas.manifests import FeaturesManifest, RunManifest, TrainedManifest
from tasks.caching import content_key, is_transient
from tasks.home import home
from tasks.loading import GATE, PAIR, load_soft_labels, load_task, run_folder
from tasks.progress import mean_rows, reporter
from tutelage.dataset import DatasetSpec
from tutelage.export import export_student, student_card
from tutelage.files import file_digest, folder_written_whole, value_digest, write_json
from tutelage.gating import find_gates
from tutelage.networks import select_members
from tutelage.recipe import Recipe
from tutelage.students import train_pairs
from tutelage.teachers import states_taught
from tutelage.weights import load_network, save_network


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
    control: TrainedManifest | None,
    recipe: Recipe,
    run: RunManifest,
    *,
    seed: int,
    pairs: int,
    device: str,
) -> TrainedManifest:
    """Train students, the control's students and twins side by side, and export the first pair of student and twin.

    One of the two may be registered. All others are there for the verdict alone: one pair is a draw of luck.
    """
    learning, _ = load_task(features, spec, device, unlabelled=recipe.unlabelled)
    place = learning.panel.observed.device
    sets = [load_soft_labels(one.folder, place) for one in (teacher, control) if one is not None]
    states = None
    if recipe.terms.inside:
        states = states_taught(load_network(teacher.folder, place), learning, recipe, seed=seed)
    soft, held_out = (torch.stack([own[part] for own in sets]) for part in ("taught", "validation"))
    gates = find_gates(learning, recipe, soft, held_out, seed=seed)
    folder = run_folder(home(), run.run_id, "students")
    checkpoint = run_folder(home(), run.run_id, f"students-{teacher.digest[:12]}.safetensors")
    names = ("student", "no_privilege", "twin") if control else PAIR
    members = {name: slice(at * pairs, (at + 1) * pairs) for at, name in enumerate(names)}
    runs = {run.children[name]: partial(mean_rows, members=own) for name, own in members.items()}
    report = reporter("student and twin", features.task, recipe.student_budget.epochs, runs)
    networks, progress = train_pairs(
        learning,
        soft,
        recipe,
        seed=seed,
        pairs=pairs,
        gate=gates,
        states=states,
        checkpoint=checkpoint,
        on_epoch=report,
    )
    with folder_written_whole(folder) as part:
        for name, network in zip(names, networks, strict=True):
            notes = {"features": features.digest, "teacher": teacher.digest, "seed": seed}
            save_network(network, learning.scalers, part / name, notes=notes)
            if name not in PAIR:
                continue
            card = student_card(network, spec, trained_until=features.validation.end_utc)
            first = select_members(network, learning.scalers, [0])
            export_student(first, learning.bins, card, part / name / "export")
        if gates is not None:
            write_json(part / GATE, {"mean_by_hour": gates[0].expand(-1, learning.horizon).mean(dim=0).tolist()})
        write_json(part / "history.json", {name: mean_rows(progress, own) for name, own in members.items()})
        digest = value_digest([file_digest(part / name / "weights.safetensors") for name in members])
    return TrainedManifest(
        folder=folder,
        digest=digest,
        best_epoch={name: round(fmean(progress.best_epoch[own])) for name, own in members.items()},
        best_validation_loss={name: fmean(progress.best_loss[own]) for name, own in members.items()},
        epochs=progress.epoch,
    )
