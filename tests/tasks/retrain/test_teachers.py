from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import tasks.retrain.teachers
from runtime.artifacts import block_folder, read_block_labels, read_dataset, read_history, read_labels
from runtime.caching import checkpoint_in, stage_folder
from schemas.manifests import RunManifest
from schemas.retrain import FeaturesManifest, RetrainParameters, TrainedManifest
from tasks.retrain.teachers import train_all_teachers
from tests.tasks.builders import steps_of
from tests.tutelage.builders import small_recipe
from tutelage.data.dataset import DatasetSpec
from tutelage.distil.blocks import BLOCKS, FittedTeachers
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.pipeline import label_parts
from tutelage.distil.recipe import TrainingPlan, Views
from tutelage.distil.teachers import FIRST_TEACHER, list_teachers
from tutelage.forecasts import QUANTILE_LEVELS, Contender, Forecasts
from tutelage.model.weights import load_network

CPU = torch.device("cpu")


def test_teachers__label_every_block_and_part(
    teachers: TrainedManifest, features: FeaturesManifest, spec: DatasetSpec, parameters: RetrainParameters
) -> None:
    labels, dataset = read_block_labels(teachers.folder, CPU), read_dataset(features, spec, parameters.plan)
    assert torch.equal(labels.whole.taught.origins, dataset.whole().taught())
    for part, of in zip([dataset.whole(), *dataset.blocks(BLOCKS)], [labels.whole, *labels.blocks], strict=True):
        for name, origins in (("taught", part.taught()), ("validation", part.validation), ("test", dataset.test)):
            of_part = getattr(of, name)
            assert torch.equal(of_part.origins, origins)
            assert of_part.log_probabilities.shape == (len(origins), 2, 8)
            torch.testing.assert_close(of_part.log_probabilities.exp().sum(dim=-1), torch.ones(len(origins), 2))


def test_teachers__networks_say_the_labels_again(
    teachers: TrainedManifest, features: FeaturesManifest, spec: DatasetSpec, parameters: RetrainParameters
) -> None:
    dataset, recipe = read_dataset(features, spec, parameters.plan), parameters.recipe
    [teacher] = list_teachers(recipe.override({"teacher.ensemble_size": 1}), dataset.horizon)
    for number, block in enumerate(dataset.blocks(BLOCKS)):
        folder = block_folder(teachers.folder, number + 1)
        network = load_network(folder, CPU)
        assert network.members == 1
        again = label_parts({teacher: network}, block, seed=parameters.seed + number)
        torch.testing.assert_close(again.test.log_probabilities, read_labels(folder, CPU).test.log_probabilities)


def test_teachers__the_folder_is_that_of_the_inputs(
    teachers: TrainedManifest,
    unprivileged: TrainedManifest,
    features: FeaturesManifest,
    spec: DatasetSpec,
    parameters: RetrainParameters,
) -> None:
    def folder_of(plan: TrainingPlan) -> object:
        return stage_folder("teacher", "tasks.retrain.teachers", features=features, spec=spec, plan=plan.of_teachers)

    plan = parameters.plan
    assert teachers.folder == folder_of(plan)
    softer = plan.with_recipe(plan.recipe.override({"distillation.alpha": 0.1, "student.width": 32}))
    assert folder_of(softer) == teachers.folder, "other students take the same teachers"
    wider = plan.with_recipe(plan.recipe.override({"teacher.width": 32}))
    assert len({folder_of(wider), folder_of(plan.model_copy(update={"seed": 1})), teachers.folder}) == 3
    assert unprivileged.folder.parent.name == "unprivileged"
    assert unprivileged.digest != teachers.digest


def test_teachers__leave_no_checkpoint(teachers: TrainedManifest) -> None:
    assert not checkpoint_in(teachers.folder, FIRST_TEACHER).parent.exists()


def test_teachers__say_how_their_training_went(teachers: TrainedManifest, parameters: RetrainParameters) -> None:
    epochs = parameters.recipe.teacher.training.epochs
    [(name, rows)] = read_history(teachers).items()
    assert name is Contender.TEACHER
    assert [row["epoch"] for row in rows] == list(range(1, teachers.epochs + 1))
    assert 1 <= teachers.best_epoch[FIRST_TEACHER] <= teachers.epochs <= epochs
    lowest = min(row["validation"] for row in rows)
    assert teachers.best_validation_loss[FIRST_TEACHER] <= lowest


def test_teachers__only_the_privileged_ones_have_a_run(
    teachers: TrainedManifest, unprivileged: TrainedManifest, run: RunManifest
) -> None:
    steps = steps_of(run.children["teacher"], "validation")
    assert steps == list(range(1, teachers.epochs + 1))
    assert "unprivileged" in read_history(unprivileged)


@pytest.fixture
def childless(run: RunManifest) -> RunManifest:
    """A run without a child: unprivileged teachers need none."""
    return run.model_copy(update={"children": {}})


def one_view(seed: int, **leaves: object) -> TrainingPlan:
    return TrainingPlan(recipe=small_recipe(bins=8, **leaves), seed=seed, device="cpu").of_teachers


def test_teachers__each_view_is_a_folder_within(
    features: FeaturesManifest, spec: DatasetSpec, childless: RunManifest
) -> None:
    plan = one_view(3, more_views=(Views(future_sigma=None),), ensemble_size=1)
    trained = train_all_teachers.fn(features, spec, plan, childless, role=Contender.UNPRIVILEGED)
    assert set(trained.best_epoch) == {"teacher", "teacher-2"}
    first = block_folder(trained.folder, 1)
    widths = [load_network(first / name, CPU).config.privileged for name in ("", "teacher-2")]
    assert widths[0] - widths[1] == 2, "the second does not see the two hours of the future"


def test_teachers__killed_after_their_training_resume_from_the_checkpoint(
    features: FeaturesManifest, spec: DatasetSpec, childless: RunManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, trained_epochs = one_view(4), []

    class PowerCut(Exception):  # noqa: N818 - nobody's error
        pass

    def cut(*given: object, **named: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(tasks.retrain.teachers, "write_block_labels", cut)
        with pytest.raises(PowerCut):
            train_all_teachers.fn(features, spec, plan, childless, role=Contender.UNPRIVILEGED)
    folder = stage_folder("unprivileged", "tasks.retrain.teachers", features=features, spec=spec, plan=plan)
    assert checkpoint_in(folder, f"{FIRST_TEACHER}-block-5").is_file()
    assert not folder.exists()
    real = tasks.retrain.teachers.fit_teachers

    def counted(*given: object, **named: object) -> FittedTeachers:
        reports = named.pop("reports")

        def reported(name: str) -> Callable[[object], None]:
            report = reports(name)
            return lambda progress: (trained_epochs.append(progress.epoch), report(progress))[1]

        return real(*given, **named, reports=reported)

    monkeypatch.setattr(tasks.retrain.teachers, "fit_teachers", counted)
    resumed = train_all_teachers.fn(features, spec, plan, childless, role=Contender.UNPRIVILEGED)
    assert len(trained_epochs) == BLOCKS, "no epoch was trained again"
    assert max(trained_epochs) == resumed.epochs
    assert not checkpoint_in(folder, f"{FIRST_TEACHER}-block-5").exists()
    again = train_all_teachers.fn(features, spec, plan, childless, role=Contender.UNPRIVILEGED)
    assert again == resumed


def test_teachers__a_registered_model_labels_in_their_place(
    features: FeaturesManifest, spec: DatasetSpec, childless: RunManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def load(model: str, *given: object, digest: str | None) -> Callable[[WindowDataset, Tensor], Forecasts]:
        asked.append((model, *given, digest))

        def forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
            truth = dataset.truth(origins).double().numpy()
            return Forecasts(truth, truth[..., None] + 0.01 * (torch.tensor(QUANTILE_LEVELS).numpy() - 0.5))

        return forecast

    monkeypatch.setattr(tasks.retrain.teachers, "load_registered", load)
    plan = one_view(0, registered_model="meter-2h/3", registered_digest="0" * 64)
    trained = train_all_teachers.fn(features, spec, plan, childless, role=Contender.UNPRIVILEGED)
    assert asked == [("meter-2h/3", features, spec, "0" * 64)]
    assert not (trained.folder / "network.json").exists()
    dataset = read_dataset(features, spec, plan)
    labels = read_labels(trained.folder, CPU).test
    likely = labels.log_probabilities.argmax(dim=-1) == dataset.labels(labels.origins)
    assert likely.float().mean() > 0.95, "a model that knows the truth is sure of its bin"
    assert (trained.best_epoch, trained.epochs) == ({"teacher": 1}, 1)
