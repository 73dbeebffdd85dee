from html import unescape
from pathlib import Path

import pytest

from runtime.paths import home
from runtime.registry import CHALLENGER, CHAMPION, client
from schemas.manifests import RunManifest
from schemas.retrain import (
    EvaluationManifest,
    FeaturesManifest,
    ReadingsManifest,
    RefitManifest,
    RegisteredManifest,
    RuleCount,
    ValidatedManifest,
)
from schemas.verdict import Verdict
from tasks.retrain.report import _point_latest, _quality, _registration, report
from tests.runtime.builders import DAY, Published, features_of
from tests.tasks.builders import artifacts_of, mlflow_run
from tests.tutelage.data.builders import START
from tutelage.files import read_json
from tutelage.forecasts import Contender


def registered_as(*aliases: str, source: Contender = Contender.STUDENT) -> RegisteredManifest:
    return RegisteredManifest(name="meter-2h", version="4", aliases=list(aliases), source=source, reason="a reason")


REFIT = RefitManifest(
    folder=Path("nowhere"),
    digest="r",
    start_utc=START,
    end_utc=START + 16 * DAY,
    windows=300,
    epochs={"student": 3, "teacher": 2},
    leak_checks=32,
)


def test_registration__says_which_network_and_as_what() -> None:
    text = _registration(None, registered_as(CHALLENGER, source=Contender.TWIN))
    assert "the twin was registered as version 4" in text
    assert text.endswith("challenger.")
    assert "refit" not in text


def test_registration__says_how_far_a_refit_has_seen() -> None:
    text = _registration(REFIT, registered_as(CHALLENGER, CHAMPION))
    assert "the student was refit on all data until 2024-07-17 00:00 UTC and registered as version 4" in text
    assert text.endswith("challenger and champion.")


def test_quality__counts_by_rule_over_all_columns() -> None:
    counts = {
        ("repeated", None): 1,
        ("frozen", None): 2,
        ("missing_row", None): 3,
        ("missing_value", "power_kw"): 4,
        ("missing_value", "indoor_c"): 5,
        ("out_of_range", "power_kw"): 6,
        ("out_of_range", "voltage_v"): 7,
        ("duplicate_time", None): 8,
        ("off_grid_time", None): 9,
        ("unreadable_time", None): 10,
    }
    rules = [
        RuleCount(rule=rule, column=column, rows=rows, share=0, tolerance=1, action="counted", first_utc=None)
        for (rule, column), rows in counts.items()
    ]
    path = Path("nowhere")
    validated = ValidatedManifest(path=path, digest="v", rows=90, quarantine_path=path, quarantined_rows=5, rules=rules)
    readings = ReadingsManifest(
        path=path, digest="r", rows=100, series=1, first_utc=START, last_utc=START, source_files=[]
    )
    assert _quality(readings, validated, features_of(path)).model_dump() == {
        "readings": 100,
        "filled_rows": 1,
        "frozen_rows": 2,
        "missing_rows": 3,
        "missing_values": 9,
        "out_of_range_values": 13,
        "duplicate_rows": 8,
        "off_grid_rows": 9,
        "unreadable_rows": 10,
        "steps": 384,
        "null_steps": 3,
    }


def test_report__writes_the_verdict(
    reported: tuple[Verdict, Published], run: RunManifest, taught: EvaluationManifest, refitted: RefitManifest
) -> None:
    verdict, _ = reported
    folder = home() / "reports" / run.run_id
    assert Verdict.model_validate(read_json(folder / "verdict.json")) == verdict
    assert verdict.evaluation == taught.evaluation
    assert verdict.sentence.startswith(f"stage-meter-2h: {verdict.conclusion}. The chosen ")
    assert "on the 7 days from 2024-07-18" in verdict.sentence
    assert verdict.sentence.endswith("registered as version 1, challenger and champion.")
    assert (verdict.registered.alias, verdict.registered.source) == (CHAMPION, Contender.STUDENT)
    assert verdict.refit is not None
    assert (verdict.refit.until_utc, verdict.refit.epochs) == (refitted.end_utc, refitted.epochs)
    assert set(verdict.parts) == {"train", "validation", "test"}


def test_report__the_page_stands_alone(reported: tuple[Verdict, Published]) -> None:
    verdict, _ = reported
    page = (home() / "reports" / "latest" / verdict.task / "report.html").read_text()
    assert "the day before it is left unused (history_days)." in page
    assert page.count("data:image/png;base64,") == 5
    assert verdict.sentence in unescape(page)
    assert "seasonal naive 24h" in page


def test_report__is_published_in_both_places(reported: tuple[Verdict, Published], run: RunManifest) -> None:
    verdict, published = reported
    [((text,), values)] = published.of("create_markdown_artifact")
    assert (values["key"], values["description"]) == ("verdict-stage-meter-2h", verdict.sentence)
    assert verdict.sentence in text
    assert {"report.html", "verdict.json"} <= artifacts_of(run.run_id)
    metrics = mlflow_run(run.run_id).data.metrics
    assert metrics["quality.missing_row.rows"] == 0
    assert metrics["refit.student.epochs"] == verdict.refit.epochs["student"]


def test_report__without_a_refit_says_none(
    readings: ReadingsManifest,
    validated: ValidatedManifest,
    features: FeaturesManifest,
    evaluated: EvaluationManifest,
    run: RunManifest,
    published: Published,
) -> None:
    other = run.model_copy(update={"run_id": client().create_run(run.experiment_id).info.run_id})
    renamed = features.model_copy(update={"task": "no-refit-2h"})
    verdict = report.fn(readings, validated, renamed, evaluated, None, registered_as(CHALLENGER), other, seed=7)
    assert verdict.refit is None
    assert (verdict.registered.alias, verdict.seed) == (CHALLENGER, 7)
    assert len(published.of("create_markdown_artifact", "verdict-no-refit-2h")) == 1


def test_latest__points_to_the_newest_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    for name in ("first", "second"):
        folder = tmp_path / "reports" / name
        folder.mkdir(parents=True)
        _point_latest("meter-2h", folder)
        link = tmp_path / "reports" / "latest" / "meter-2h"
        assert link.resolve() == folder
    assert link.readlink() == Path("../second")
    assert len(list(link.parent.iterdir())) == 1
