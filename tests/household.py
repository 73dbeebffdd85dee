"""A slice of the real household file as a dataset of its own."""

import datetime as dt
from pathlib import Path

import polars as pl
import yaml

from tutelage.data.dataset import load_dataset_spec
from tutelage.data.source import source_files

SPECS = Path(__file__).parent.parent / "deployments" / "datasets"


def write_slice(
    folder: Path, *, name: str, days: int, end: dt.datetime = dt.datetime(2010, 7, 31), student_step: str = "PT1H"
) -> str:
    """Write the `days` days before `end` as CSV with a spec beside it; return the dataset's name."""
    folder.mkdir(parents=True, exist_ok=True)
    household = load_dataset_spec(SPECS / "household.yaml")
    first = f"{end - dt.timedelta(days=days):%Y-%m-%d %H:%M:%S}"
    rows = pl.scan_csv(source_files(household.source)[0], infer_schema=False).filter(
        pl.col("date_time").is_between(pl.lit(first), pl.lit(f"{end:%Y-%m-%d %H:%M:%S}"), closed="left")
    )
    rows.collect().write_csv(folder / f"{name}.csv")
    content = yaml.safe_load((SPECS / "household.yaml").read_text(encoding="utf-8"))
    content.pop("replay", None)
    content |= {"name": name, "source": {"path": str(folder / f"{name}.csv")}, "student_step": student_step}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return name
