import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from runtime.artifacts import FITTED, MINUTES, TABLE, read_dataset
from schemas.retrain import FeaturesManifest, RetrainParameters, ValidatedManifest
from tasks.retrain.features import build_features
from tests.runtime.builders import DAY
from tests.tutelage.data.builders import HOUR, START
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import DataError, GapsError
from tutelage.files import read_json, write_table

SETTINGS = {
    "horizon_hours": 2,
    "lookback_hours": 6,
    "history_days": 16,
    "validation_share": 0.2,
    "test_days": 7,
    "bins": 8,
}


def build(validated: ValidatedManifest, spec: DatasetSpec, **changes: object) -> FeaturesManifest:
    return build_features.fn(validated, spec, **(SETTINGS | changes))


def changed(validated: ValidatedManifest, folder: Path, change: pl.Expr) -> ValidatedManifest:
    """The validated table with other values."""
    path, digest = write_table(pl.read_parquet(validated.path).with_columns(change), folder)
    return validated.model_copy(update={"path": path, "digest": digest})


def without_power(start: dt.datetime, end: dt.datetime) -> pl.Expr:
    return pl.when(~pl.col("time_utc").is_between(start, end, closed="left")).then("power_kw").alias("power_kw")


def test_build_features__cuts_the_parts_in_order(features: FeaturesManifest, spec: DatasetSpec) -> None:
    train, validation, test = features.train, features.validation, features.test
    assert test.end_utc == START + 24 * DAY
    assert (train.start_utc, test.start_utc) == (START + DAY, START + 17 * DAY)
    assert train.end_utc == validation.start_utc == START + DAY + 307 * HOUR
    assert validation.end_utc == test.start_utc
    hours = [(part.end_utc - part.start_utc) // HOUR for part in (train, validation, test)]
    # Targets lie inside a part; the past reaches back into the part before, but not before the history.
    assert [part.windows for part in (train, validation, test)] == [hours[0] - 7, hours[1] - 1, hours[2] - 1]
    assert (features.task, features.target, features.unit) == ("stage-meter-2h", "power_kw", "kW")
    assert (features.steps, features.null_steps) == (24 * 24, 0)
    assert features.unused_days == 1
    assert features.history_sentence == (
        "The history, training and validation part, is 16 days; the day before it is left unused (history_days)."
    )
    changes = {0: "no whole day before it is left unused.", 2: "the 2 days before it are left unused (history_days)."}
    for unused, end in changes.items():
        assert features.model_copy(update={"unused_days": unused}).history_sentence.endswith(end)


def test_build_features__writes_what_the_stages_read(
    features: FeaturesManifest, spec: DatasetSpec, parameters: RetrainParameters
) -> None:
    assert {file.name for file in features.folder.iterdir()} == {TABLE, MINUTES, FITTED}
    dataset = read_dataset(features, spec, parameters.plan)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [
        features.train.windows,
        features.validation.windows,
        features.test.windows,
    ]
    hours = pl.read_parquet(features.folder / TABLE)
    train = hours.filter(pl.col("time_utc").is_between(*vars(features.parts.train).values(), closed="left"))
    assert dataset.scalers.observed.mean[0] == pytest.approx(train["power_kw"].mean(), rel=1e-5)
    assert len(dataset.bins) == 8


def test_build_features__are_named_by_their_content(
    features: FeaturesManifest, validated: ValidatedManifest, spec: DatasetSpec, tmp_path: Path
) -> None:
    assert build(validated, spec) == features
    last = without_power(START + 23 * DAY, START + 23 * DAY + HOUR)
    others = [
        build(validated, spec, bins=6),
        build(validated, spec, test_days=6),
        build(changed(validated, tmp_path, last), spec),
    ]
    assert len({features.digest, *(each.digest for each in others)}) == 4
    assert len({features.folder, *(each.folder for each in others)}) == 4
    assert others[-1].null_steps == 1


def test_build_features__fits_on_the_training_part_only(
    features: FeaturesManifest, validated: ValidatedManifest, spec: DatasetSpec, tmp_path: Path
) -> None:
    fitted = read_json(features.folder / FITTED)

    def fitted_with(since: dt.datetime) -> object:
        higher = pl.when(pl.col("time_utc") >= since).then(pl.col("power_kw") / 2).otherwise("power_kw")
        other = build(changed(validated, tmp_path, higher.alias("power_kw")), spec)
        return read_json(other.folder / FITTED)

    assert fitted_with(features.train.end_utc) == fitted
    assert fitted_with(features.train.end_utc - HOUR) != fitted


def test_build_features__with_an_end_reads_nothing_after_it(
    validated: ValidatedManifest, spec: DatasetSpec, tmp_path: Path
) -> None:
    end, settings = START + 20 * DAY, {"history_days": 12}
    features = build(validated, spec, end=end, **settings)
    assert features.test.end_utc == end
    assert pl.read_parquet(features.folder / TABLE)["time_utc"].max() == end - HOUR
    later = build(changed(validated, tmp_path, without_power(end, end + DAY)), spec, end=end, **settings)
    assert (later.folder / MINUTES).read_bytes() == (features.folder / MINUTES).read_bytes()
    assert read_json(later.folder / FITTED) == read_json(features.folder / FITTED)


def test_build_features__refuses_a_part_with_too_many_gaps(
    validated: ValidatedManifest, spec: DatasetSpec, tmp_path: Path
) -> None:
    gap = without_power(START + 14 * DAY, START + 16 * DAY)
    sentence = "the validation part, 2024-07-14 19:00 to 2024-07-18 00:00 UTC, has .* 6 past and 2 future hours"
    with pytest.raises(GapsError, match=sentence):
        build(changed(validated, tmp_path, gap), spec)


def test_build_features__refuses_a_history_that_is_not_there(validated: ValidatedManifest, spec: DatasetSpec) -> None:
    with pytest.raises(DataError, match="the history is too short: 18 days of history and 7 of test"):
        build(validated, spec, history_days=18)
