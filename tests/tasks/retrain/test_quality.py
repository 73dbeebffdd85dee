from schemas.quality import quality_rows
from schemas.retrain import ValidatedManifest
from tasks.retrain.quality import publish_quality
from tests.runtime.builders import Published
from tutelage.data.dataset import DatasetSpec


def test_publish_quality__is_a_row_for_each_rule(
    validated: ValidatedManifest, spec: DatasetSpec, published: Published
) -> None:
    publish_quality.fn(validated, spec)
    [((rows,), values)] = published.of("create_table_artifact")
    assert values["key"] == "quality-stage-meter"
    assert [row["rule"] for row in rows] == [rule.rule for rule in validated.rules]
    assert rows == quality_rows(validated.rules)
