"""Look at a dataset without training: its quality, its parts, and what simple forecasts make of it.

Run it with `make data DATASET=household HORIZON=24`.
"""

import sys
from typing import NamedTuple

import polars as pl
from prefect import flow

from flows.retrain import features_for
from flows.terminal import given_parameters, sentences
from runtime.paths import datasets_folder
from schemas.quality import quality_rows
from schemas.retrain import FeaturesManifest, PreviewManifest, RetrainParameters, ValidatedManifest
from tasks.fetch import fetch
from tasks.retrain.ingest import ingest
from tasks.retrain.preview import preview_dataset
from tasks.retrain.quality import publish_quality
from tasks.retrain.validate import validate
from tutelage.data.dataset import load_dataset_spec
from tutelage.data.grid import Grid


class Seen(NamedTuple):
    """What the stages found."""

    validated: ValidatedManifest
    features: FeaturesManifest
    preview: PreviewManifest
    grid: Grid


@flow(name="data", flow_run_name="data {parameters.dataset}")
def look_at_data(parameters: RetrainParameters) -> Seen:
    """The stages of a retrain with these parameters up to its first training."""
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    read = ingest(fetch(spec), spec, parameters.as_of, spec.ahead_hours(parameters.horizon_hours))
    validated = validate(read, spec)
    publish_quality(validated, spec)
    features = features_for(parameters, validated, spec)
    return Seen(validated, features, preview_dataset(features, spec), spec.grid)


def _table(rows: list[dict[str, object]]) -> str:
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_width_chars=200
    ):
        return str(pl.DataFrame(rows))


def seen_text(seen: Seen) -> str:
    """What was found as text: the quality table, the parts, the simple forecasts."""
    features, preview, steps = seen.features, seen.preview, seen.grid.plural
    parts = {"train": features.train, "validation": features.validation, "test": features.test}
    of_parts: list[dict[str, object]] = [
        {
            "part": name,
            "from (UTC)": f"{part.start_utc:%Y-%m-%d %H:%M}",
            "to (UTC)": f"{part.end_utc:%Y-%m-%d %H:%M}",
            "windows": part.windows,
            "with readings within": f"{part.minutes:.1%}",
            "privileged columns": f"{part.auxiliary:.1%}",
        }
        for name, part in parts.items()
    ]
    best_first = sorted(preview.scores.items(), key=lambda item: item[1].crps)
    crps = f"CRPS [{features.unit}]"
    scores: list[dict[str, object]] = [
        {"forecast": name.label, crps: f"{each.crps:.4f}", "inside 80 %": f"{each.coverage_80:.1%}"}
        for name, each in best_first
    ]
    below = f"There are no readings within the {steps}: minutes have nothing to teach."
    if preview.within_steps is not None:
        below = f"{preview.within_steps:.1%} of the variance of {features.target} lies within its {steps}."
    return "\n".join(
        [
            f"{features.task}: {seen.validated.rows} readings, {features.steps} {steps}, {features.null_steps} null",
            _table(quality_rows(seen.validated.rules)),
            _table(of_parts),
            features.history_sentence,
            "What simple forecasts make of the validation part; a retrain has to beat the best:",
            _table(scores),
            below,
        ]
    )


def main(arguments: list[str]) -> int:
    """Look at the dataset that the arguments name."""
    with sentences():
        print("\n" + seen_text(look_at_data(given_parameters(arguments, RetrainParameters))))
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
