"""Stage 2: pandera finds what breaks the spec's rules; it is masked or quarantined, and counted."""

import polars as pl
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.tasks import exponential_backoff

from schemas.manifests import ReadingsManifest, RuleCount, ValidatedManifest
from schemas.quality import quality_rows
from schemas.readings import Breach, find_breaches, key_schema, value_schema
from tasks.caching import content_key, is_transient
from tasks.home import home
from tutelage.dataset import DatasetSpec
from tutelage.errors import QualityError
from tutelage.files import write_table
from tutelage.quality import QUARANTINED, masked, regular_grid
from tutelage.readings import KEY


@task(
    name="validate",
    task_run_name="validate {spec.name}",
    retries=2,
    retry_delay_seconds=exponential_backoff(2),
    retry_condition_fn=is_transient,
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
)
def validate(readings: ReadingsManifest, spec: DatasetSpec) -> ValidatedManifest:
    """Write the readings on a regular grid with all bad values null, and the caught rows with their rule.

    Raises QualityError with a table where more is bad than the spec tolerates; no retry is spent on it.
    """
    table = pl.read_parquet(readings.path)
    key_breaches = find_breaches(table, key_schema(spec), "readings")
    bad = pl.Series([False]).new_from_index(0, table.height)
    for breach in key_breaches:
        bad = bad | breach.broken
    good = table.filter(~bad).sort(KEY)
    grid = regular_grid(good, spec)
    value_breaches = find_breaches(grid, value_schema(spec), "readings on their grid")
    caught = [_caught(table, b) for b in key_breaches] + [_caught(grid, b) for b in value_breaches]
    rules = [_count(table, b.rule, b.column, b.broken, spec) for b in key_breaches]
    rules += [_count(grid, b.rule, b.column, b.broken, spec) for b in value_breaches]
    rules += _gaps(good, grid, spec)
    rules = _with_silent_rules(rules, spec)
    _stop_beyond_tolerance(rules, spec)
    quarantine = pl.concat([*caught, _caught(table.clear(), Breach("none", None, pl.Series([], dtype=pl.Boolean)))])
    quarantine_path, _ = write_table(quarantine, home() / "data" / "quarantine")
    path, digest = write_table(masked(grid, spec), home() / "data" / "validated")
    return ValidatedManifest(
        path=path,
        digest=digest,
        rows=grid.height,
        quarantine_path=quarantine_path,
        quarantined_rows=quarantine.height,
        rules=rules,
    )


def _caught(table: pl.DataFrame, breach: Breach) -> pl.DataFrame:
    """The rows that break a rule as they were, with the rule and the column that caught them."""
    return table.filter(breach.broken).with_columns(
        rule=pl.lit(breach.rule, pl.String), column=pl.lit(breach.column, pl.String)
    )


def _count(table: pl.DataFrame, rule: str, column: str | None, broken: pl.Series, spec: DatasetSpec) -> RuleCount:
    rows = int(broken.sum())
    return RuleCount(
        rule=rule,
        column=column,
        rows=rows,
        share=rows / table.height,
        tolerance=_tolerance(rule, spec),
        action="quarantined" if rule in QUARANTINED else "counted" if rule.startswith("missing") else "masked",
        first_utc=table.filter(broken)["time_utc"].min(),
    )


def _tolerance(rule: str, spec: DatasetSpec) -> float:
    settings = getattr(spec.quality, rule)
    return 1.0 if settings is None else settings.tolerance


def _gaps(good: pl.DataFrame, grid: pl.DataFrame, spec: DatasetSpec) -> list[RuleCount]:
    """Rows that the grid had to add, and nulls in the rows that were there: counted, since they are null already."""
    present = grid.select(KEY).join(good.select(*KEY, there=True), on=KEY, how="left", maintain_order="left")
    missing = present["there"].is_null()
    counts = [_count(grid, "missing_row", None, missing, spec)]
    counts += [_count(grid, "missing_value", name, grid[name].is_null() & ~missing, spec) for name in spec.names()]
    return [c for c in counts if c.rows or c.column is None]


def _with_silent_rules(rules: list[RuleCount], spec: DatasetSpec) -> list[RuleCount]:
    """All rules of the spec, those that nothing broke with a count of 0: the reader sees what was looked for."""
    found = {rule.rule for rule in rules}
    silent = [name for name in type(spec.quality).model_fields if name not in (*found, "complete_share")]
    nothing = pl.DataFrame({"time_utc": [None]}, schema={"time_utc": pl.Datetime("us", "UTC")})
    return rules + [
        _count(nothing, name, None, pl.Series([False]), spec) for name in silent if getattr(spec.quality, name)
    ]


def _stop_beyond_tolerance(rules: list[RuleCount], spec: DatasetSpec) -> None:
    broken = [rule for rule in rules if rule.share > rule.tolerance]
    if not broken:
        return
    create_table_artifact(quality_rows(rules), key=f"quality-{spec.name}", description="Beyond tolerance: stopped.")
    lines = [
        f"{rule.rule:<16} {rule.column or 'all':<28} {rule.rows:>9} rows {rule.share:>9.3%} > {rule.tolerance:.3%}"
        + (f"  from {rule.first_utc:%Y-%m-%d %H:%M} UTC" if rule.first_utc else "")
        for rule in broken
    ]
    raise QualityError(f"dataset {spec.name} is worse than its spec tolerates:\n" + "\n".join(lines))
