import math

import numpy as np
import pytest

from tutelage.judge.choice import TrialResult, choose_recipe, standard_error

TWIN = (1.0, 2.0, 1.5, 1.5)


def result(alpha: float, *crps: float, name: str = "", kind: str = "") -> TrialResult:
    default = "twin" if alpha == 0 else "single"
    return TrialResult(name or f"alpha {alpha:g}", kind or default, alpha, crps, TWIN[: len(crps)])  # type: ignore[arg-type]


def scaled(alpha: float, *shares: float, **names: str) -> TrialResult:
    return result(alpha, *(twin * share for twin, share in zip(TWIN, shares, strict=False)), **names)


def test_trial_result__gain_is_of_the_means_and_its_error_paired() -> None:
    half = result(0.5, 0.8, 1.9, 1.4, 1.3)
    assert half.gain == pytest.approx(1 - 5.4 / 6)
    assert half.gain_by_fold == pytest.approx((0.2, 0.05, 1 / 15, 2 / 15))
    # differences 0.2, 0.1, 0.1, 0.2: deviation 0.05·√(4/3), over √4, over the twin's mean 1.5
    assert half.gain_standard_error == pytest.approx(0.05 * math.sqrt(4 / 3) / 2 / 1.5)


def test_standard_error__of_one_fold_is_infinite() -> None:
    assert standard_error(np.array([0.1])) == math.inf


def test_choose_recipe__takes_a_gain_that_every_fold_shows() -> None:
    results = [result(0, *TWIN), scaled(0.5, 0.99, 0.99, 0.99, 0.99), scaled(0.9, 0.95, 0.96, 0.95, 0.96)]
    choice = choose_recipe(results)
    assert choice.chosen is choice.best is results[2]
    assert choice.within == ("alpha 0.9",)


def test_choose_recipe__takes_the_twin_where_one_fold_carries_the_gain() -> None:
    results = [result(0, *TWIN), scaled(0.9, 0.8, 1.01, 1.0, 1.01)]
    choice = choose_recipe(results)
    assert (choice.best.name, choice.chosen.name) == ("alpha 0.9", "alpha 0")


def test_choose_recipe__takes_the_lowest_alpha_within_one_standard_error() -> None:
    # 0.5 is worse than 0.9 by 0.01, 0.01, −0.02, 0.01: mean 0.0025, standard error 0.0075
    results = [result(0, *TWIN), result(0.9, 0.9, 1.8, 1.4, 1.4), result(0.5, 0.91, 1.81, 1.38, 1.41)]
    choice = choose_recipe(results)
    assert (choice.best.name, choice.chosen.name) == ("alpha 0.9", "alpha 0.5")
    assert choice.within == ("alpha 0.9", "alpha 0.5")


def test_choose_recipe__compares_pairs_so_that_hard_folds_are_no_noise() -> None:
    """Unpaired, the standard error of these folds is 0.2: far wider than the gain of 0.015."""
    results = [result(0, *TWIN), scaled(1.0, 0.99, 0.99, 0.99, 0.99)]
    assert choose_recipe(results).chosen.alpha == 1.0


def test_choose_recipe__of_equal_alphas_takes_the_lower_crps_and_of_equals_the_first() -> None:
    first = scaled(0.5, 0.9, 0.9, 0.9, 0.9, name="sigma 1")
    second = scaled(0.5, 0.9, 0.9, 0.9, 0.9, name="sigma 2")
    nearly = scaled(0.5, 0.89, 0.905, 0.9, 0.91, name="sigma 3")
    assert choose_recipe([result(0, *TWIN), nearly, first, second]).chosen.name == "sigma 1"


def test_choose_recipe__takes_the_twin_where_all_are_equal() -> None:
    assert choose_recipe([scaled(0.5, 1, 1, 1, 1), result(0, *TWIN)]).chosen.name == "alpha 0"


def test_choose_recipe__takes_the_better_of_two_twins() -> None:
    worse = result(0, 1.01, 2.01, 1.51, 1.5, name="dropout 0.4")
    assert choose_recipe([worse, result(0, *TWIN), scaled(0.9, 1.1, 1.1, 1, 1)]).chosen.name == "alpha 0"


def test_choose_recipe__from_one_fold_takes_the_twin() -> None:
    assert choose_recipe([result(0, 1.0), result(0.9, 0.5)]).chosen.alpha == 0


def test_choose_recipe__average_takes_no_single_recipe() -> None:
    average = scaled(0.7, 0.96, 0.97, 0.96, 0.97, name="average", kind="average")
    results = [result(0, *TWIN), scaled(0.9, 0.9, 0.9, 0.9, 0.9), average]
    assert choose_recipe(results, "average").chosen is average
    noisy = scaled(0.7, 0.8, 1.01, 1.0, 1.01, name="average", kind="average")
    assert choose_recipe([results[0], results[1], noisy], "average").chosen.kind == "twin"


def test_choose_recipe__without_a_twin_chooses_nothing() -> None:
    with pytest.raises(ValueError, match="no twin"):
        choose_recipe([scaled(0.9, 0.9, 0.9)])


def test_choose_recipe__without_an_average_there_is_none_to_take() -> None:
    with pytest.raises(ValueError, match="no average recipe"):
        choose_recipe([result(0, *TWIN), scaled(0.9, 0.9, 0.9, 0.9, 0.9)], "average")


def test_choose_recipe__refuses_results_of_different_folds() -> None:
    with pytest.raises(ValueError, match="different folds"):
        choose_recipe([result(0, 1.0, 2.0), result(0.9, 0.9)])
