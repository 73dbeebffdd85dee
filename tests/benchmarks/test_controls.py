from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.controls import (
    RECIPE,
    SYSTEM,
    best_crps,
    draw_samples,
    draw_system,
    make_task,
    null_control,
    positive_control,
    run_trial,
    summarise_trial,
)
from tutelage.metrics import LEVELS, Forecasts, crps
from tutelage.views import privileged_values
from tutelage.windows import gather_past

SAMPLES = 40_000


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    rotation, beta = draw_system(SYSTEM, random)
    return rotation, beta, *draw_samples(SYSTEM, rotation, beta, SAMPLES, random)


def test_draw_samples__the_covariances_are_as_stated(samples: tuple[np.ndarray, ...]) -> None:
    rotation, beta, states, outcome = samples
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(SYSTEM.dimensions), atol=1e-12)
    kept = np.sqrt(1 - SYSTEM.process_noise)
    for step in range(SYSTEM.states):
        np.testing.assert_allclose(np.cov(states[:, step].T), np.eye(SYSTEM.dimensions), atol=0.04)
        towards = np.linalg.matrix_power(kept * rotation, SYSTEM.states - 1 - step)
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
    found = crps(Forecasts(mean[:, None], quantiles[:, None]), outcome[:, None]).mean()
    assert found == pytest.approx(best_crps(SYSTEM), rel=0.02)


def test_make_task__a_window_is_a_sample_and_shares_no_hour_with_another(samples: tuple[np.ndarray, ...]) -> None:
    system = replace(SYSTEM, train=20, validation=10, test=30)
    states, outcome = samples[2][:60], samples[3][:60]
    task, test = make_task(states, outcome, system, bins=8)
    origins = torch.cat([task.train, task.validation, test])
    assert [len(task.train), len(task.validation), len(test)] == [20, 10, 30]
    assert origins.diff().eq(2).all()
    np.testing.assert_allclose(gather_past(task.panel.observed, origins, 1)[:, 0, 1:], states[:, 0], rtol=1e-6)
    np.testing.assert_allclose(task.truth(origins)[:, 0], outcome, rtol=1e-6)
    past, _ = task.student_inputs(origins)
    assert past[:, 0, 0].eq(0).all()  # nothing of the target
    seen = privileged_values(
        task.panel, task.train, RECIPE.views, task.scalers, lookback=1, horizon=1, generator=torch.Generator()
    )
    middle = states[:20, 1:].reshape(20, -1)
    np.testing.assert_allclose(seen, (middle - middle.mean(0)) / middle.std(0, ddof=1), rtol=1e-3, atol=1e-4)


def test_run_trial__follows_seed_and_number() -> None:
    system = replace(SYSTEM, test=100)
    first, again, other = (
        run_trial(trial, seed=3, noise=False, system=system, recipe=RECIPE)[0] for trial in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_positive_control__mostly_wins() -> None:
    found = positive_control(8, seed=50, processes=1)
    assert found["win_rate"]["rate"] >= 0.75
    assert found["mean_teacher_loss"] < found["mean_blind_teacher_loss"]
    assert found["best_crps"] < found["mean_crps_student"] < found["mean_crps_twin"]


def test_null_control__noise_teaches_nothing() -> None:
    found = null_control(6, seed=50, processes=1)
    # The teacher of noise is no better than a blind one, and privilege, which isn't there, is not found.
    assert found["mean_teacher_loss"] > found["mean_blind_teacher_loss"] - 0.02
    assert found["promotion_rate"]["rate"] <= 1 / 6
    assert found["promotion_rate"]["rate"] <= found["promoted_vs_twin"]["rate"]


def test_summarise_trial__the_privilege_of_the_positive_control_is_what_the_null_control_lacks() -> None:
    true, noise = (
        summarise_trial(0, seed=50, noise=noise, system=SYSTEM, recipe=RECIPE)["teacher_loss"]
        for noise in (False, True)
    )
    assert true < noise
