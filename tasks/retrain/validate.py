"""Validation with pandera: rows and values that break the spec's rules are counted, and masked or quarantined."""

import polars as pl
from prefect.artifacts import create_table_artifact

from runtime.paths import home
from runtime.stage import cached_stage
from schemas.quality import quality_rows
from schemas.readings import Breach, find_breaches, key_schema, value_schema
from schemas.retrain import ReadingsManifest, RuleCount, ValidatedManifest
from tutelage.data.dataset import KEY, DatasetSpec, Role
from tutelage.data.issued import last_time
from tutelage.data.quality import QUARANTINED, masked, regular_grid, step_change
from tutelage.data.readings import inside_period
from tutelage.errors import QualityError
from tutelage.files import write_table


@cached_stage("validate", run_name="validate {spec.name}")
def validate(readings: ReadingsManifest, spec: DatasetSpec) -> ValidatedManifest:
    """Write the readings on a regular grid with bad values null, and separately the rows that break a rule.

    Raises QualityError with a table of rules where more rows are bad than the spec tolerates; it is not retried.
    """
    table = pl.read_parquet(readings.path)
    key_breaches = find_breaches(table, key_schema(spec), "readings")
    bad = pl.Series([False]).new_from_index(0, table.height)
    for breach in key_breaches:
        bad = bad | breach.broken
    rules = [_count(table, b.rule, b.column, b.broken, spec) for b in key_breaches]
    good = table.filter(~bad).sort(KEY)
    if good.is_empty():
        _stop_beyond_tolerance(rules, spec, table)
    grid = regular_grid(good, spec)
    value_breaches = find_breaches(grid, value_schema(spec), "readings on their grid")
    caught = [_caught(table, b) for b in key_breaches] + [_caught(grid, b) for b in value_breaches]
    rules += [_count(grid, b.rule, b.column, b.broken, spec) for b in value_breaches]
    rules += _gaps(good, grid, spec)
    rules = _with_silent_rules(rules, spec)
    _stop_beyond_tolerance(rules, spec, table)
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
    """The unchanged rows that break a rule, with the rule and its column."""
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
    """Counts of rows that the grid added, and of nulls in existing rows; both are null already.

    Rows after a series' last measured value hold what is known ahead, and lack no reading.
    """
    joined = grid.select(KEY).join(good.select(*KEY, present=True), on=KEY, how="left", maintain_order="left")
    missing = joined["present"].is_null()
    counts = [_count(grid, "missing_row", None, missing, spec)]
    ahead = (pl.col("time_utc") > last_time(spec).over("series_id")).fill_null(False)
    for column in sorted(spec.columns, key=lambda column: column.name != spec.target):
        due = inside_period(column) if column.role is Role.KNOWN_FUTURE else inside_period(column) & ~ahead
        lacking = grid.select(due & pl.col(column.name).is_null()).to_series()
        counts.append(_count(grid, "missing_value", column.name, lacking & ~missing, spec))
    return [c for c in counts if c.rows or c.column is None]


def _with_silent_rules(rules: list[RuleCount], spec: DatasetSpec) -> list[RuleCount]:
    """All rules of the spec; those that no row breaks get a count of 0, so that the table shows all of them."""
    broken = {rule.rule for rule in rules}
    silent = [name for name in type(spec.quality).model_fields if name not in (*broken, "complete_share")]
    empty = pl.DataFrame({"time_utc": [None]}, schema={"time_utc": pl.Datetime("us", "UTC")})
    return rules + [
        _count(empty, name, None, pl.Series([False]), spec) for name in silent if getattr(spec.quality, name)
    ]


def _stop_beyond_tolerance(rules: list[RuleCount], spec: DatasetSpec, table: pl.DataFrame) -> None:
    broken = [rule for rule in rules if rule.share > rule.tolerance]
    if not broken:
        return
    create_table_artifact(
        quality_rows(rules), key=f"quality-{spec.name}", description="More bad rows than tolerated: stopped."
    )
    lines = [
        f"{rule.rule:<16} {rule.column or 'all':<28} {rule.rows:>9} rows {rule.share:>9.3%} > {rule.tolerance:.3%}"
        + (f"  from {rule.first_utc:%Y-%m-%d %H:%M} UTC" if rule.first_utc else "")
        for rule in broken
    ]
    if any(rule.rule == "off_grid_time" for rule in broken):
        lines += _about_the_clock(spec)
    if change := step_change(table):
        since, before, after = change
        lines.append(
            f"The step changes from {before} to {after} at {since:%Y-%m-%d %H:%M} UTC, and the spec's raw_step is "
            f"{spec.raw_step}: name the change in step_changes, or bring all rows to one step."
        )
    raise QualityError(f"dataset {spec.name} is worse than its spec tolerates:\n" + "\n".join(lines))


def _about_the_clock(spec: DatasetSpec) -> list[str]:
    """Where steps begin, on a clock whose full hours are not those of UTC."""
    clock = spec.timestamp
    local = clock.model_copy(update={"hours": "clock"}).begin_minute
    if not local:
        return []
    other = "utc" if clock.hours == "clock" else "clock"
    return [
        f"Hours begin at :{clock.begin_minute:02d} UTC, by timestamp.hours: {clock.hours}; those of the clock "
        f"{clock.timezone} at :{local:02d} UTC. Where the file's hours are the others, say timestamp.hours: {other}."
    ]
