"""Ablation: retrain a forecaster without each privilege of its teachers, and with less history: what did each bring?

Run it with `make ablation DATASET=household HORIZON=24`.
"""

import sys

from prefect import flow

from flows.naming import task_of_run
from flows.pieces import Variant, end_of_data, evaluate_variant
from flows.retrain import features_for, with_views_there
from flows.terminal import given_parameters, sentences
from runtime.clock import at_its_time
from runtime.engine import each_of
from runtime.paths import datasets_folder
from runtime.weights import with_its_weights
from schemas.ablation import AblationManifest, AblationParameters
from tasks.ablation.summary import WHOLE, summarise_ablation
from tasks.fetch import fetch
from tasks.parent import tracked_parent
from tasks.retrain.ingest import ingest
from tasks.retrain.validate import validate
from tutelage.data.dataset import load_dataset_spec
from tutelage.judge.ablation import shorter_histories, variants


@flow(name="ablation", flow_run_name=lambda: f"ablation {task_of_run(AblationParameters)}")
def ablation(parameters: AblationParameters) -> AblationManifest:
    """Compare the recipe with itself without each privilege, with a placebo, and with less history.

    Nothing is registered. An interrupted ablation continues when it is started again with the same parameters. A
    variant whose history has too many gaps is left out, and the result says so.
    """
    parameters = with_its_weights(at_its_time(parameters))
    spec = load_dataset_spec(datasets_folder() / f"{parameters.dataset}.yaml")
    files = fetch(spec)
    with tracked_parent("ablation", parameters, spec, files) as run:
        end = end_of_data(files, spec, parameters)
        whole = parameters.variant(parameters.recipe, end, unprivileged=parameters.unprivileged)
        readings = ingest(files, spec, end, spec.ahead_hours(parameters.horizon_hours))
        features = features_for(whole, validate(readings, spec), spec)
        recipe = with_views_there(parameters.plan, features).recipe
        lacking = {name: parameters.variant(each, end) for name, each in variants(recipe).items()}
        days = shorter_histories(features.history_days, parameters.history_shares) if readings.series == 1 else []
        shorter = {f"{each} days": parameters.variant(parameters.recipe, end, history_days=each) for each in days}
        tried = {WHOLE: whole} | lacking | shorter
        pieces = [Variant(name, each, files, spec, run) for name, each in tried.items()]
        results = each_of(evaluate_variant, pieces, parameters.engine, name="variant", device=parameters.device)
        return summarise_ablation(dict(zip(tried, results, strict=True)), days, features, spec, parameters, run)


def main(arguments: list[str]) -> int:
    """Run the ablation that the arguments name, and print what it says."""
    with sentences():
        done = ablation(given_parameters(arguments, AblationParameters))
        print(f"\n{done.result.sentence}\nReport:  {done.folder / 'ablation.html'}")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
