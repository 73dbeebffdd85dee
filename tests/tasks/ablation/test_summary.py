"""The words of an ablation; its figures are those of tests/flows/test_ablation.py."""

from pathlib import Path

import numpy as np
import pytest

from runtime.registry import client
from runtime.runs import experiment
from schemas.ablation import AblationParameters
from schemas.manifests import RunManifest
from tasks.ablation.summary import WHOLE, history_sentence, keeping, privileges_sentence, summarise_ablation
from tests.runtime.builders import Published, features_of, gain_of
from tests.tutelage.data.builders import meter
from tutelage.errors import GapsError
from tutelage.forecasts import Contender
from tutelage.judge.ablation import PLACEBO, DaysNeeded, Privilege, WithoutRow
from tutelage.judge.comparison import Losses

PARAMETERS = AblationParameters(dataset="meter", horizon_hours=2, lookback_hours=6, history_days=12)


def row_of(name: str, estimate: float, *, is_gain: bool = False, is_harm: bool = False) -> WithoutRow:
    return WithoutRow(name, 1.0, 1.0, gain_of(0.1), gain_of(estimate), is_gain, is_harm)


def test_privileges_sentence__says_what_is_beyond_luck() -> None:
    rows = [row_of("future", 0.03, is_gain=True), row_of("other_sites", -0.05, is_harm=True), row_of(PLACEBO, 0.5)]
    assert privileges_sentence(rows, gain_of(0.01)) == (
        "each privilege lowered the students' CRPS by (95 % CI): future 3.0 % (1.0 … 5.0 %), "
        "other sites −5.0 % (−7.0 … −3.0 %); future brought a gain and other sites did harm. "
        "All together: 1.0 % (−1.0 … 3.0 %)."
    )
    assert privileges_sentence([row_of("future", 0.01)], None).endswith("; none of these is beyond luck.")
    assert privileges_sentence([], None) == "the teachers have nothing that could be left out."


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        (None, ""),
        (DaysNeeded(50, 100), "students need 50 days of history and twins 100: 50 days saved."),
        (DaysNeeded(75, 75), "students need 75 days of history and twins 75: none is saved."),
        (DaysNeeded(100, 50), "students need 100 days of history and twins 50: 50 days more, not fewer."),
        (DaysNeeded(None, 100), "the students are not as good as their twins, so no day of history is saved."),
    ],
)
def test_history_sentence__says_what_is_saved(needed: DaysNeeded | None, said: str) -> None:
    assert history_sentence(needed, 100).endswith(said)


def test_keeping__says_what_each_takes() -> None:
    spec = meter()
    for name in (*Privilege, PLACEBO):
        assert (keeping(name, spec, PARAMETERS) == "") == (name == PLACEBO)
    for each in (spec, spec.of_student()):  # with and without privileged columns
        kept = keeping(Privilege.MINUTES, each, PARAMETERS)
        assert kept == f"{24 * spec.readings_per_step} readings a day and series of {spec.target}, in place of 24"


@pytest.fixture
def run() -> RunManifest:
    experiment_id = experiment("meter-2h-ablation-summary")
    return RunManifest(
        key="k", experiment_id=experiment_id, run_id=client().create_run(experiment_id).info.run_id, children={}
    )


def losses_of(student: float) -> Losses:
    means = {Contender.STUDENT: student, Contender.TWIN: 1.0, Contender.TEACHER: 0.5}
    wave = 1 + 0.1 * np.sin(np.arange(96))
    return Losses(np.arange(96), {name: mean * np.stack([wave, wave]) for name, mean in means.items()})


def test_summarise_ablation__names_what_is_left_out(run: RunManifest, tmp_path: Path, published: Published) -> None:
    tried = {WHOLE: losses_of(0.9), "future": "too many gaps", "minutes": losses_of(0.95), "6 days": "too <few> days"}
    done = summarise_ablation.fn(tried, [6], features_of(tmp_path), meter(), PARAMETERS, run)
    assert [row.name for row in done.result.without] == ["minutes"]
    assert (done.result.history, done.result.days_needed) == ([], None)
    assert done.result.left_out == {"future": "too many gaps", "6 days": "too <few> days"}
    page = (done.folder / "ablation.html").read_text(encoding="utf-8")
    assert "Left out: 6 days, too &lt;few&gt; days." in page
    assert "With less history" not in page
    [((text,), _)] = published.of("create_markdown_artifact", "ablation-meter-2h")
    assert "Left out: future, too many gaps." in text


def test_summarise_ablation__without_the_whole_recipe_there_is_nothing_to_compare(
    run: RunManifest, tmp_path: Path
) -> None:
    with pytest.raises(GapsError, match="too many gaps"):
        summarise_ablation.fn({WHOLE: "too many gaps"}, [], features_of(tmp_path), meter(), PARAMETERS, run)
