"""The losses of distillation, by level: output, feature, relation, temporal pattern.

All have a leading member axis, detach the teacher, and return one value per member, so that networks trained side by
side don't affect each other. The teacher has one member for all students, or one for each.
"""

from tutelage.distil.losses.feature import attention_loss, feature_loss
from tutelage.distil.losses.output import (
    categorical_distillation_loss,
    hard_label_loss,
    pinball_loss,
    point_distillation_loss,
    point_loss,
    quantile_distillation_loss,
    quantile_label_loss,
    soft_label_loss,
)
from tutelage.distil.losses.relation import (
    time_relation_loss,
    variable_relation_loss,
    window_distance_loss,
    window_relation_loss,
)
from tutelage.distil.losses.temporal import multi_period_loss, multi_scale_loss

__all__ = [
    "attention_loss",
    "categorical_distillation_loss",
    "feature_loss",
    "hard_label_loss",
    "multi_period_loss",
    "multi_scale_loss",
    "pinball_loss",
    "point_distillation_loss",
    "point_loss",
    "quantile_distillation_loss",
    "quantile_label_loss",
    "soft_label_loss",
    "time_relation_loss",
    "variable_relation_loss",
    "window_distance_loss",
    "window_relation_loss",
]
