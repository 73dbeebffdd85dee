import datetime as dt
import shutil
from pathlib import Path

import polars as pl
import pytest

from runtime.paths import home
from schemas.retrain import ReadingsManifest
from tasks.retrain.ingest import ingest
from tests.tutelage.data.builders import HOUR, MINUTE, START, meter, random_readings
from tutelage.data.dataset import DatasetSpec
from tutelage.errors import DataError
from tutelage.files import file_digest


def test_ingest__writes_the_readings_under_their_digest(readings: ReadingsManifest, meter_file: Path) -> None:
    assert readings.path == home() / "data" / "readings" / f"{readings.digest}.parquet"
    assert file_digest(readings.path) == readings.digest
    table, expected = pl.read_parquet(readings.path), random_readings(meter(), days=24)
    assert table.columns == expected.columns
    assert table["time_utc"].to_list() == expected["time_utc"].to_list()
    assert table["power_kw"].to_list() == pytest.approx(expected["power_kw"].to_list())
    assert (readings.rows, readings.series, readings.source_files) == (24 * 1440, 1, [meter_file.name])
    assert (readings.first_utc, readings.last_utc) == (START, START + 24 * dt.timedelta(days=1) - MINUTE)


def test_ingest__reads_nothing_that_was_not_complete_at_as_of(spec: DatasetSpec, meter_file: Path) -> None:
    early = ingest.fn([meter_file], spec, START + 3 * HOUR)
    assert (early.rows, early.last_utc) == (180, START + 3 * HOUR - MINUTE)


def test_ingest__the_same_readings_are_one_table(
    readings: ReadingsManifest, spec: DatasetSpec, meter_file: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copy(meter_file, tmp_path / "elsewhere.csv"))
    again = ingest.fn([copied], spec, None)
    assert again == readings.model_copy(update={"source_files": ["elsewhere.csv"]})


def test_ingest__refuses_a_file_without_readings(spec: DatasetSpec, meter_file: Path) -> None:
    with pytest.raises(DataError, match=f"{meter_file.name}: no reading up to 2024-06-30"):
        ingest.fn([meter_file], spec, START - dt.timedelta(days=1))
