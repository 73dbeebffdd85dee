import datetime as dt
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tutelage.builders import (
    START,
    dataset_of,
    random_labels,
    recipe_of,
    small_recipe,
    synthetic_panel,
    target_alone,
)
from tests.tutelage.data.builders import REPOSITORY, meter, random_readings, write_readings
from tests.tutelage.data.builders import START as METER_START
from tutelage.data.windows import Span, window_origins
from tutelage.distil.boosted import BoostedTeacher
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.ensemble import train_ensemble
from tutelage.distil.losses import hard_label_loss
from tutelage.distil.pipeline import (
    PartLabels,
    distil_students,
    gates_of,
    label_parts,
    read_dataset,
    train_teachers,
)
from tutelage.distil.plans import StudentPlan
from tutelage.distil.recipe import UNPRIVILEGED, Recipe, Terms, Views, load_recipe
from tutelage.distil.students import train_students
from tutelage.distil.teachers import label_part, label_taught, progress_of, quantile_labels, states_taught
from tutelage.errors import DataError, SpecError
from tutelage.forecasts import QUANTILE_LEVELS, Contender, Forecasts
from tutelage.judge.verdict import conclude, find_gains, gains_sentence, score_baselines, score_contenders
from tutelage.model.kinds import Budget
from tutelage.model.networks import Forecaster, select_members
from tutelage.model.training import Progress

BUDGET = Budget(epochs=15, patience=15, batch_size=32, learning_rate=0.01, dropout=0.0)
PAST = Views(future_sigma=None, minutes_hours=2, auxiliary=True)
REGISTERED = {"registered_model": "home-24h/3"}


@pytest.fixture(scope="module")
def dataset() -> WindowDataset:
    return dataset_of(synthetic_panel([160]), train_hours=100, validation_hours=40)


def random_parts(dataset: WindowDataset, *, seed: int = 0) -> PartLabels:
    """Random soft labels of every part."""
    return PartLabels(
        taught=random_labels(dataset, seed=seed),
        validation=random_labels(dataset, dataset.validation, seed=seed),
        test=random_labels(dataset, dataset.test, seed=seed),
    )


def ungated(**leaves: object) -> Recipe:
    """A small recipe without a gate: soft labels drawn at random would shut it."""
    return small_recipe(**({"gate": "none"} | leaves))


def pair_of(
    dataset: WindowDataset, recipe: Recipe, *, seed: int = 0, label_seed: int = 0, **options: object
) -> tuple[Forecaster, Forecaster, Progress]:
    """Students of random soft labels, their twins, and how their training went."""
    labels = {Contender.STUDENT: random_parts(dataset, seed=label_seed)}
    students = distil_students(dataset, labels, recipe, seed=seed, **options)
    return students.networks[Contender.STUDENT], students.networks[Contender.TWIN], students.progress


def flat_forecast(dataset: WindowDataset, origins: Tensor) -> Forecasts:
    """A model that exists already: of every hour uniform between 0 and 6."""
    quantiles = np.broadcast_to(6 * np.array(QUANTILE_LEVELS), (len(origins), dataset.horizon, 99)).copy()
    return Forecasts(quantiles.mean(axis=-1), quantiles)


def test_read_dataset__cuts_the_parts_from_the_end_of_the_data(tmp_path: Path) -> None:
    spec = meter(source={"path": str(tmp_path / "meter.csv")})
    write_readings(tmp_path / "meter.csv", random_readings(spec, days=14), spec)
    lengths = {"horizon": 3, "lookback": 24, "history_days": 10, "test_days": 3}
    dataset = read_dataset(spec, recipe_of(bins=8), **lengths)
    assert (dataset.horizon, dataset.lookback, len(dataset.bins)) == (3, 24, 8)
    first = int(METER_START.timestamp() // 3600)
    for part, hours in (
        (dataset.train, (24, 24 + 8 * 24)),
        (dataset.validation, (8 * 24, 24 + 10 * 24)),  # the past reaches back into the part before
        (dataset.test, (10 * 24, 24 + 13 * 24)),
    ):
        touched = dataset.panel.step[part[:, None] + torch.arange(-24, 3)]
        assert (int(touched.min()) - first, int(touched.max()) + 1 - first) == hours
        assert len(part) == hours[1] - hours[0] - 24 - 3 + 1
    inside = (dataset.panel.step >= first + 24) & (dataset.panel.step < first + 24 + 8 * 24)
    target = dataset.panel.observed[inside, 0]
    assert dataset.bins.edges[-1] == pytest.approx(float(target.max()))
    assert dataset.scalers.observed.mean[0] == pytest.approx(float(target.mean()), abs=1e-5)
    assert len(dataset.unlabelled) == 0
    with pytest.raises(DataError, match="the history is too short"):
        read_dataset(spec, recipe_of(), **(lengths | {"history_days": 12}))


def test_train_teachers__each_ends_as_it_does_alone_and_says_how_it_went(dataset: WindowDataset) -> None:
    recipe = small_recipe(more_views=(UNPRIVILEGED,), horizons=(1,))
    reported: dict[str, list[int]] = {}

    def report(name: str) -> Callable[[Progress], None]:
        return lambda progress: reported.setdefault(name, []).append(progress.epoch)

    trained = train_teachers(dataset, recipe, seed=3, reports=report)
    names = ["teacher-1h", "teacher", "teacher-2-1h", "teacher-2"]
    assert [spec.name for spec in trained.teachers] == list(trained.progress) == names
    assert reported == {name: [1, 2, 3, 4] for name in names}
    for spec, teacher in trained.teachers.items():
        expected, progress = train_ensemble(dataset.shortened(spec.horizon), spec.recipe, seed=3)
        assert isinstance(teacher, Forecaster)
        assert torch.equal(teacher.last.weight, expected.last.weight)
        assert vars(trained.progress[spec.name]) == vars(progress)


def test_train_teachers__goes_on_from_its_checkpoints(dataset: WindowDataset, tmp_path: Path) -> None:
    def checkpoint(name: str) -> Path:
        return tmp_path / f"{name}.safetensors"

    recipe = small_recipe(more_views=(PAST,))
    first = train_teachers(dataset, recipe, seed=3, checkpoints=checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher-2.safetensors", "teacher.safetensors"]
    before = checkpoint("teacher").stat().st_mtime_ns
    again = train_teachers(dataset, recipe, seed=3, checkpoints=checkpoint)
    for whole, resumed in zip(first.teachers.values(), again.teachers.values(), strict=True):
        assert torch.equal(whole.last.weight, resumed.last.weight)
    assert checkpoint("teacher").stat().st_mtime_ns == before


def test_train_teachers__with_epochs_trains_exactly_that_long_and_ends_with_the_last_weights(
    dataset: WindowDataset,
) -> None:
    """More epochs than its budget has, without patience, and each teacher its number."""
    impatient = {"epochs": 2, "patience": 1, "batch_size": 32, "learning_rate": 0.03, "dropout": 0.0}
    recipe = small_recipe(more_views=(UNPRIVILEGED,), teacher_training=impatient)
    trained = train_teachers(dataset, recipe, seed=5, epochs={"teacher": 12, "teacher-2": 9})
    for (spec, teacher), epochs in zip(trained.teachers.items(), (12, 9), strict=True):
        progress = trained.progress[spec.name]
        assert progress.epoch == len(progress.history) == epochs
        assert max(progress.best_epoch) < epochs  # it learns noise by heart: the last weights are not the best
        assert isinstance(teacher, Forecaster)
        inputs = dataset.teacher_inputs(dataset.validation, spec.recipe, torch.Generator().manual_seed(5))
        with torch.no_grad():
            losses = hard_label_loss(teacher(*inputs), dataset.labels(dataset.validation))
        assert losses.tolist() == progress.history[-1]["validation"] != progress.best_loss


def test_train_teachers__with_epochs_nothing_is_chosen_by_the_validation_part(dataset: WindowDataset) -> None:
    other = replace(dataset, validation=dataset.train[:20])
    recipe = small_recipe(teacher_training=BUDGET)
    [first], [second] = (
        train_teachers(windows, recipe, seed=5, epochs={"teacher": 12}).teachers.values()
        for windows in (dataset, other)
    )
    assert torch.equal(first.last.weight, second.last.weight)


def test_train_teachers__trees_have_no_epochs() -> None:
    dataset = dataset_of(synthetic_panel([160]), train_hours=120)
    trained = train_teachers(dataset, small_recipe(kind="boosted", views=PAST), seed=0, epochs={"teacher": 1})
    [teacher] = trained.teachers.values()
    assert isinstance(teacher, BoostedTeacher)
    assert trained.progress["teacher"].epoch == 1


def test_train_teachers__a_registered_forecast_function_teaches(dataset: WindowDataset) -> None:
    recipe, reported = ungated(**REGISTERED, student_training=BUDGET, alpha=1.0), []
    trained = train_teachers(dataset, recipe, seed=0, registered=flat_forecast, reports=lambda name: reported.append)
    assert list(trained.teachers.values()) == [flat_forecast]
    assert vars(trained.progress["teacher"]) == vars(progress_of(flat_forecast, dataset, recipe, seed=0))
    assert reported == [trained.progress["teacher"]]
    labels = label_parts(trained.teachers, dataset, seed=0)
    for part, origins in ((labels.taught, dataset.train), (labels.test, dataset.test)):
        assert torch.equal(part.log_probabilities, quantile_labels(flat_forecast, dataset, origins).log_probabilities)
    students = distil_students(dataset, {Contender.STUDENT: labels}, recipe, seed=0)
    losses = [epoch["train"][0] for epoch in students.progress.history]
    assert losses[-1] < 0.1 * losses[0]


def test_train_teachers__refuses_a_registered_model_that_is_not_given(dataset: WindowDataset) -> None:
    with pytest.raises(ValueError, match="the model home-24h/3 is not given"):
        train_teachers(dataset, small_recipe(**REGISTERED), seed=0)


def test_train_teachers__refuses_a_horizon_that_is_too_short_for_the_recipe(dataset: WindowDataset) -> None:
    with pytest.raises(ValueError, match=r"recipe\.teacher\.horizons: 2 h is not shorter than the horizon, 2 h"):
        train_teachers(dataset, small_recipe(horizons=(2,)), seed=0)
    with pytest.raises(SpecError, match=r"recipe\.distillation\.terms\.period: it needs a horizon of 4 student_steps"):
        train_teachers(dataset, small_recipe(terms=Terms(period=1.0)), seed=0)


def test_label_parts__labels_each_part_by_itself(dataset: WindowDataset) -> None:
    recipe = small_recipe(views=PAST.model_copy(update={"placebo": True}))
    teachers = train_teachers(dataset, recipe, seed=2).teachers
    further = replace(dataset, train=dataset.train[:-9], unlabelled=dataset.train[-9:])
    labels = label_parts(teachers, further, seed=2)
    expected = {
        "taught": label_taught(teachers, further, seed=2),
        "validation": label_part(teachers, further, dataset.validation, seed=2),
        "test": label_part(teachers, further, dataset.test, seed=2),
    }
    for name, part in expected.items():
        assert torch.equal(getattr(labels, name).origins, part.origins), name
        assert torch.equal(getattr(labels, name).log_probabilities, part.log_probabilities), name
    assert torch.equal(labels.taught.origins, further.taught())


def test_distil_students__student_and_twin_differ_in_alpha_alone(dataset: WindowDataset) -> None:
    student, twin, progress = pair_of(dataset, ungated(alpha=0.0))
    for name, weight in student.named_parameters():
        assert torch.equal(weight, twin.get_parameter(name)), name
    for epoch in progress.history:
        assert epoch["train"][0] == epoch["train"][1]
        assert epoch["validation"][0] == epoch["validation"][1]


def test_distil_students__the_teacher_moves_the_student_and_not_the_twin(dataset: WindowDataset) -> None:
    first, other = (pair_of(dataset, ungated(), label_seed=seed) for seed in (0, 1))
    assert not torch.allclose(first[0].last.weight, other[0].last.weight)
    torch.testing.assert_close(first[1].last.weight, other[1].last.weight)


def test_distil_students__of_trained_teachers(dataset: WindowDataset) -> None:
    recipe = ungated()
    labels = label_parts(train_teachers(dataset, recipe, seed=0).teachers, dataset, seed=0)
    students = distil_students(dataset, {Contender.STUDENT: labels}, recipe, seed=0)
    progress = students.progress
    assert students.gates is None
    assert students.members == {Contender.STUDENT: slice(0, 1), Contender.TWIN: slice(1, 2)}
    assert len(progress.history) == recipe.student.training.epochs
    for network, best in zip(students.networks.values(), progress.best_loss, strict=True):
        assert network.config == dataset.student_config(recipe)
        assert network.config.privileged == 0
        with torch.no_grad():
            logits = network.eval()(*dataset.student_inputs(dataset.validation))
        assert hard_label_loss(logits, dataset.labels(dataset.validation)).item() == pytest.approx(best, rel=1e-5)


def test_distil_students__is_two_of_three_plans(dataset: WindowDataset) -> None:
    recipe = ungated(student_training=BUDGET.model_copy(update={"dropout": 0.3, "epochs": 4}))
    student, twin, progress = pair_of(dataset, recipe, seed=6)
    distillation = recipe.distillation
    plan = StudentPlan(seed=6, alpha=distillation.alpha, temperature=distillation.temperature, dropout=0.3)
    plans = [StudentPlan(seed=1), plan.twin, plan]
    network, together = train_students(dataset, [random_labels(dataset)], plans, recipe, seed=6)
    assert progress.best_loss == pytest.approx([together.best_loss[2], together.best_loss[1]], rel=1e-4)
    for place, member in ((2, student), (1, twin)):
        chosen = select_members(network, dataset.scalers, [place])
        torch.testing.assert_close(member.last.weight, chosen.last.weight, rtol=1e-3, atol=1e-4)
        assert member.config == chosen.config == dataset.student_config(recipe)


def test_distil_students__each_replicate_ends_as_it_does_alone_and_has_its_twin(dataset: WindowDataset) -> None:
    recipe = ungated(student_training=BUDGET.model_copy(update={"dropout": 0.3, "epochs": 4}))
    students, twins, progress = pair_of(dataset, recipe, seed=6, replicates=3)
    assert (students.members, twins.members, len(progress.best_loss)) == (3, 3, 6)
    student, twin, alone = pair_of(dataset, recipe, seed=6)
    assert [progress.best_loss[0], progress.best_loss[3]] == pytest.approx(alone.best_loss, rel=1e-4)
    for network, first in ((students, student), (twins, twin)):
        chosen = select_members(network, dataset.scalers, [0])
        torch.testing.assert_close(first.last.weight, chosen.last.weight, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(network.last.weight[0], network.last.weight[1])
    untaught, _, _ = pair_of(dataset, recipe.override({"distillation.alpha": 0.0}), seed=6, replicates=3)
    torch.testing.assert_close(untaught.last.weight, twins.last.weight, rtol=1e-3, atol=1e-4)
    later, _, _ = pair_of(dataset, recipe, seed=6, replicates=2)
    torch.testing.assert_close(later.last.weight, students.last.weight[:2], rtol=1e-3, atol=1e-4)


def test_distil_students__a_control_beside_them_changes_nothing_and_is_taught_by_its_labels(
    dataset: WindowDataset,
) -> None:
    recipe = ungated(student_training=BUDGET.model_copy(update={"dropout": 0.3, "epochs": 4}))
    gates = torch.stack([torch.ones(1, dataset.horizon), torch.full((1, dataset.horizon), 0.5)])
    control = {Contender.UNPRIVILEGED: random_parts(dataset, seed=2)}
    labels = {Contender.STUDENT: random_parts(dataset, seed=1)} | control
    every = distil_students(dataset, labels, recipe, seed=6, replicates=2, gates=gates)
    assert [(name, network.members) for name, network in every.networks.items()] == [
        (Contender.STUDENT, 2),
        (Contender.UNPRIVILEGED, 2),
        (Contender.TWIN, 2),
    ]
    assert every.members == {
        Contender.STUDENT: slice(0, 2),
        Contender.UNPRIVILEGED: slice(2, 4),
        Contender.TWIN: slice(4, 6),
    }
    alone = distil_students(dataset, control, recipe, seed=6, replicates=2, gates=gates[1:])
    assert every.progress.best_loss[2:] == pytest.approx(alone.progress.best_loss, rel=1e-4)
    for name, network in alone.networks.items():
        torch.testing.assert_close(every.networks[name].last.weight, network.last.weight, rtol=1e-3, atol=1e-4)
    first, second, _ = (network.last.weight for network in every.networks.values())
    assert not torch.allclose(first, second, rtol=1e-3, atol=1e-4)


def test_distil_students__a_gate_is_the_students_alone(dataset: WindowDataset) -> None:
    student, twin, _ = pair_of(dataset, ungated(), gates=torch.zeros(1, 1, dataset.horizon))
    assert torch.equal(student.last.weight, twin.last.weight)


def test_distil_students__finds_the_gates_that_are_not_given(dataset: WindowDataset) -> None:
    recipe, labels = small_recipe(gate="hours"), {Contender.STUDENT: random_parts(dataset)}
    gates = gates_of(dataset, labels, recipe, seed=0)
    assert gates is not None
    assert gates.shape == (1, 1, dataset.horizon)
    assert gates.max() < 0.5  # random soft labels are no teacher
    searched, given = (distil_students(dataset, labels, recipe, seed=0, gates=each) for each in (None, gates))
    assert searched.gates is not None
    assert torch.equal(searched.gates, gates)
    for name, network in searched.networks.items():
        assert torch.equal(network.last.weight, given.networks[name].last.weight)
    assert gates_of(dataset, labels, ungated(), seed=0) is None


def test_distil_students__alpha_is_less_where_there_are_few_windows(dataset: WindowDataset) -> None:
    limited, plain, low = (
        pair_of(dataset, ungated(alpha=alpha, small_data_alpha=limit))[0].last.weight
        for alpha, limit in ((0.9, 0.5), (0.9, None), (0.5, None))
    )
    assert torch.equal(limited, low)
    assert not torch.allclose(limited, plain)


def test_distil_students__for_exact_numbers_of_epochs(dataset: WindowDataset) -> None:
    labels = {Contender.STUDENT: random_parts(dataset)}
    students = distil_students(dataset, labels, ungated(), seed=0, epochs={Contender.STUDENT: 3, Contender.TWIN: 2})
    assert (students.progress.epoch, students.progress.best_epoch) == (3, [3, 2])


def test_distil_students__a_recursive_pair_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    alone = dataset_of(target_alone(synthetic_panel([160])), train_hours=100)
    recipe = ungated(recursive=True, student_training=BUDGET.model_copy(update={"epochs": 7, "dropout": 0.2}))
    before = pair_of(alone, recipe, seed=4)

    def killed(progress: Progress) -> None:
        if progress.epoch == 6:
            raise KeyboardInterrupt

    def checkpoint(name: str) -> Path:
        return tmp_path / f"{name}.safetensors"

    with pytest.raises(KeyboardInterrupt):
        pair_of(alone, recipe, seed=4, checkpoints=checkpoint, reports=lambda name: killed)
    assert [path.name for path in tmp_path.iterdir()] == ["students.safetensors"]
    resumed = pair_of(alone, recipe, seed=4, checkpoints=checkpoint)
    for whole, again in zip(before[:2], resumed[:2], strict=True):
        assert torch.equal(whole.last.weight, again.last.weight)


PERIOD_HOURS = 17  # so that the calendar does not give it away


def noisy_sine(hours: int) -> WindowDataset:
    """A sine under noise, and a privileged sensor of the next two hours without noise."""
    clean = torch.sin(2 * math.pi * torch.arange(hours) / PERIOD_HOURS)
    noise = 0.5 * torch.randn(hours, generator=torch.Generator().manual_seed(0))
    sensors = torch.stack([clean.roll(-1), clean.roll(-2)], dim=1)
    panel = replace(synthetic_panel([hours]), observed=(clean + noise)[:, None], auxiliary=sensors)
    return dataset_of(panel, train_hours=100, validation_hours=100, lookback=24)


def test_pipeline__from_teachers_to_the_verdict() -> None:
    dataset = noisy_sine(600)
    budget = Budget(epochs=60, patience=10, batch_size=32, learning_rate=3e-3, dropout=0.0)
    views = Views(future_sigma=None, minutes_hours=0, auxiliary=True)
    recipe = ungated(views=views, alpha=1.0, teacher_training=budget, student_training=budget)
    labels = {
        name: label_parts(train_teachers(dataset, of_teachers, seed=0).teachers, dataset, seed=0)
        for name, of_teachers in ((Contender.STUDENT, recipe), (Contender.UNPRIVILEGED, recipe.unprivileged))
    }
    students = distil_students(dataset, labels, recipe, seed=0, replicates=3)
    scored = score_contenders(dataset, students.networks, labels[Contender.STUDENT].test)
    assert set(scored) == {Contender.STUDENT, Contender.UNPRIVILEGED, Contender.TWIN, Contender.TEACHER}
    scored |= score_baselines(dataset)
    assert scored[Contender.STUDENT].losses.shape == (3, len(dataset.test))
    assert scored[Contender.TEACHER].scores.crps < scored[Contender.STUDENT].scores.crps
    assert scored[Contender.TWIN].scores.crps < scored[Contender.SEASONAL_NAIVE_168H].scores.crps
    gains = find_gains(dataset, scored)
    assert conclude(gains.over_twin, gains.over_unprivileged) == "the privileged data were worth it"
    sentence = gains_sentence(gains, test_start=START, test_end=START + dt.timedelta(days=16))
    gain = r"\d\.\d % lower than"
    assert re.match(rf"The students' CRPS is {gain} their twins' .* and {gain} that of students of unpriv", sentence)
    assert ", on the 16 days from 2024-01-01 (mean of 3 replicates, " in sentence


def test_pipeline__needs_neither_prefect_nor_mlflow() -> None:
    program = (
        "import sys, tutelage.distil.pipeline, tutelage.judge.champion, tutelage.judge.study\n"
        "assert not {'prefect', 'mlflow', 'pandera'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


TIMEKD = REPOSITORY / "deployments" / "recipes" / "timekd.yaml"


def test_timekd__trains_on_a_small_series() -> None:
    dataset = dataset_of(synthetic_panel([160]), train_hours=100)
    budget = Budget(epochs=1, patience=1, batch_size=1024, learning_rate=1e-9, dropout=0.0)
    recipe = load_recipe(TIMEKD).override(
        {"teacher.width": 16, "student.width": 16, "teacher.training": budget, "student.training": budget}
    )
    recipe = recipe.override({"teacher.more_views": ()})  # with alpha 0 the states of the first ensemble alone teach
    teachers = train_teachers(dataset, recipe, seed=0).teachers
    labels = {Contender.STUDENT: label_parts(teachers, dataset, seed=0)}
    states = states_taught(teachers, dataset, seed=0)

    def beyond_the_twin(**weights: float) -> float:
        """What a student's loss has more than its twin's, before either has learnt anything."""
        taught = recipe.override({"distillation.terms": Terms(**weights)}) if weights else recipe
        students = distil_students(dataset, labels, taught, seed=0, states=states)
        assert students.networks[Contender.STUDENT].config.head == "point"
        first, twin = students.progress.history[0]["train"]
        return first - twin

    # SmoothL1 of the twin: half the square of misses below one standard deviation, what is beyond them straight.
    students = distil_students(dataset, labels, recipe, seed=0, states=states)
    twin = students.networks[Contender.TWIN]
    mean, std = dataset.scale()
    with torch.no_grad():
        forecast = twin(*dataset.student_inputs(dataset.train)).squeeze()
    missed = (forecast - (dataset.truth(dataset.train) - mean) / std).abs()
    smooth = torch.where(missed < 1, missed**2 / 2, missed - 0.5).mean().item()
    assert students.progress.history[0]["train"][1] == pytest.approx(smooth, rel=1e-4)
    feature, attention = beyond_the_twin(features=1.0), beyond_the_twin(attention=1.0)
    assert min(feature, attention) > 0
    assert beyond_the_twin() == pytest.approx(0.1 * feature + 0.01 * attention, rel=1e-2)


def test_distil_students__windows_without_a_target_are_taught_too(dataset: WindowDataset) -> None:
    panel = replace(dataset.panel, observed=dataset.panel.observed.clone())
    panel.observed[[20, 40, 60], 0] = torch.nan
    span = Span(START, START + dt.timedelta(hours=100))
    unlabelled = window_origins(panel, span, lookback=dataset.lookback, horizon=dataset.horizon, labelled=False)
    whole = replace(dataset_of(panel, train_hours=100, validation_hours=40), unlabelled=unlabelled)
    recipe = small_recipe(unlabelled=True, views=PAST)
    labels = label_parts(train_teachers(whole, recipe, seed=0).teachers, whole, seed=0)
    students = distil_students(whole, {Contender.STUDENT: labels}, recipe, seed=0)
    assert len(labels.taught.origins) == len(whole.train) + 6
    assert students.networks[Contender.STUDENT].last.weight.isfinite().all()
