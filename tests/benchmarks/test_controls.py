from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.controls import (
    CONTENDERS,
    RECIPE,
    RESULTS,
    STARTS,
    SYSTEM,
    System,
    best_crps,
    draw_samples,
    draw_system,
    make_dataset,
    null_control,
    positive_control,
    run_trial,
    summarise_trial,
)
from tutelage.data.windows import gather_past
from tutelage.distil.recipe import Recipe
from tutelage.distil.views import privileged_values
from tutelage.files import read_json
from tutelage.forecasts import Contender, Forecasts, crps
from tutelage.judge.metrics import LEVELS

SAMPLES = 40_000


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    rotation, beta = draw_system(SYSTEM, random)
    return rotation, beta, *draw_samples(SYSTEM, rotation, beta, SAMPLES, random)


def test_draw_samples__the_covariances_are_as_stated(samples: tuple[np.ndarray, ...]) -> None:
    rotation, beta, states, outcome = samples
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(SYSTEM.dimensions), atol=1e-12)
    carried = np.sqrt(1 - SYSTEM.process_noise)
    for step in range(SYSTEM.states):
        np.testing.assert_allclose(np.cov(states[:, step].T), np.eye(SYSTEM.dimensions), atol=0.04)
        towards = np.linalg.matrix_power(carried * rotation, SYSTEM.states - 1 - step)
        np.testing.assert_allclose(states[:, step].T @ outcome / SAMPLES, beta @ towards, atol=0.04)
    assert outcome.var() == pytest.approx(1 + SYSTEM.outcome_noise**2, rel=0.03)


def test_best_crps__is_that_of_the_true_distribution(samples: tuple[np.ndarray, ...]) -> None:
    rotation, beta, states, outcome = samples
    mean = (
        states[:, 0] @ np.linalg.matrix_power(np.sqrt(1 - SYSTEM.process_noise) * rotation, SYSTEM.states - 1).T @ beta
    )
    deviation = best_crps(SYSTEM) * np.sqrt(np.pi)
    assert np.std(outcome - mean) == pytest.approx(deviation, rel=0.02)
    normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(LEVELS)).numpy()
    quantiles = mean[:, None] + deviation * normal
    loss = crps(Forecasts(mean[:, None], quantiles[:, None]), outcome[:, None]).mean()
    assert loss == pytest.approx(best_crps(SYSTEM), rel=0.02)


def test_make_dataset__a_window_is_a_sample_and_shares_no_hour_with_another(samples: tuple[np.ndarray, ...]) -> None:
    system = replace(SYSTEM, train=20, validation=10, test=30)
    states, outcome = samples[2][:60], samples[3][:60]
    dataset = make_dataset(states, outcome, system, bins=8)
    origins = torch.cat([dataset.train, dataset.validation, dataset.test])
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [20, 10, 30]
    assert origins.diff().eq(2).all()
    np.testing.assert_allclose(gather_past(dataset.panel.observed, origins, 1)[:, 0, 1:], states[:, 0], rtol=1e-6)
    np.testing.assert_allclose(dataset.truth(origins)[:, 0], outcome, rtol=1e-6)
    past, _ = dataset.student_inputs(origins)
    assert past[:, 0, 0].eq(0).all()  # nothing of the target
    seen = privileged_values(
        dataset.panel,
        dataset.train,
        RECIPE.teacher.views,
        dataset.scalers,
        lookback=1,
        horizon=1,
        generator=torch.Generator(),
    )
    middle = states[:20, 1:].reshape(20, -1)
    np.testing.assert_allclose(seen, (middle - middle.mean(0)) / middle.std(0, ddof=1), rtol=1e-3, atol=1e-4)


def test_run_trial__follows_seed_and_number() -> None:
    system = replace(SYSTEM, test=100)
    first, again, other = (
        run_trial(trial, seed=3, noise=False, system=system, recipe=RECIPE)[0] for trial in (0, 0, 1)
    )
    assert first.shape == (STARTS, len(CONTENDERS), 100)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_summarise_trial__gains_are_those_of_the_losses() -> None:
    setting = {"seed": 3, "noise": False, "system": replace(SYSTEM, test=100), "recipe": RECIPE}
    losses, teacher_losses = run_trial(0, **setting)
    student, unprivileged, twin = (losses[:, CONTENDERS.index(name)] for name in CONTENDERS)
    figures = summarise_trial(0, **setting)
    assert figures["crps_unprivileged_student"] == pytest.approx(unprivileged.mean())
    assert figures["gain_vs_twin"] == pytest.approx(1 - student.mean() / twin.mean())
    assert figures["one_gain_vs_twin"] == pytest.approx(1 - student[0].mean() / twin[0].mean())
    assert figures["one_gain_vs_unprivileged"] == pytest.approx(1 - student[0].mean() / unprivileged[0].mean())
    assert figures["low_vs_twin"] < figures["gain_vs_twin"]
    assert figures["unprivileged_teacher_loss"] == teacher_losses[Contender.UNPRIVILEGED]


def test_results__are_of_this_system_and_recipe() -> None:
    results = read_json(RESULTS)
    assert Recipe.model_validate(results["recipe"]) == RECIPE
    assert System(**results["system"]) == SYSTEM
    assert results["starts"] == STARTS


def test_positive_control__mostly_wins() -> None:
    figures = positive_control(8, seed=50, processes=1)
    assert figures["win_rate"]["rate"] >= 0.75
    assert figures["mean_teacher_loss"] < figures["mean_unprivileged_teacher_loss"]
    assert figures["best_crps"] < figures["mean_crps_student"] < figures["mean_crps_twin"]


def test_null_control__noise_teaches_nothing() -> None:
    figures = null_control(6, seed=50, processes=1)
    # The teacher of noise is no better than an unprivileged one, and privilege, which isn't there, is not found.
    assert figures["mean_teacher_loss"] > figures["mean_unprivileged_teacher_loss"] - 0.02
    assert figures["promotion_rate"]["rate"] <= 1 / 6
    assert figures["promotion_rate"]["rate"] <= figures["promoted_vs_twin"]["rate"]


def test_summarise_trial__the_privilege_of_the_positive_control_is_what_the_null_control_lacks() -> None:
    true, noise = (
        summarise_trial(0, seed=50, noise=noise, system=SYSTEM, recipe=RECIPE)["teacher_loss"]
        for noise in (False, True)
    )
    assert true < noise
