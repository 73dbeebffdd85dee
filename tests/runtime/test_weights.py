from pathlib import Path

import pytest

from runtime.runs import work_key
from runtime.weights import with_its_weights
from schemas.backtest import BacktestParameters
from schemas.retrain import RetrainParameters
from schemas.study import StudyParameters
from tests.tutelage.builders import recipe_of, small_spec
from tests.tutelage.chronos import write_chronos


@pytest.mark.parametrize("kind", [RetrainParameters, BacktestParameters, StudyParameters])
def test_with_its_weights__other_ones_are_other_work(
    kind: type[RetrainParameters | BacktestParameters | StudyParameters], tmp_path: Path
) -> None:
    folder, keys = tmp_path / "model", []
    for seed in (0, 1, 1):
        write_chronos(folder, "bolt", seed=seed)
        parameters = with_its_weights(kind(recipe=recipe_of(pretrained_folder=str(folder))))
        assert type(parameters) is kind
        keys.append(work_key("flows.retrain", parameters, small_spec(), []))
    assert keys[0] != keys[1] == keys[2]


def test_with_its_weights__without_a_folder_the_parameters_stay() -> None:
    assert with_its_weights(RetrainParameters()) == RetrainParameters()
