"""The recipe of teacher and student: views, networks, loss and budget, as plain values."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, model_validator

from tutelage.contract import Contract, load_contract
from tutelage.distil.privilege import UNPRIVILEGED, Views
from tutelage.distil.teacher_recipe import TeacherRecipe
from tutelage.distil.terms import HIDDEN_STATE_TERMS, Terms
from tutelage.model.kinds import PRETRAINED_HOURS, Architecture, Base, Budget, Head, PointLoss, Pretrained, Width

Gate = Literal["none", "hours", "windows"]
NO_PRETRAINED = dict.fromkeys(("teacher.pretrained", "teacher.pretrained_folder", "teacher.pretrained_digest"))
"""What leaves a pretrained model out of a recipe's teachers."""
Device = Literal["auto", "cpu", "cuda", "mps"]


SMALL_DATA_WINDOWS = 50


class StudentRecipe(Contract):
    """Student and twin: their architecture, their head, and their training."""

    architecture: Architecture = Field(
        "mlp",
        description="mlp; linear: on trend and remainder (DLinear); tcn: causal convolutions; patch: a transformer "
        "over days; inverted: a transformer over columns.",
    )
    recursive: bool = Field(
        False,
        description="Forecast one hour at a time, each from the mean of the hour before. Training includes this "
        "roll-out, with the gradient through all steps. Only for an mlp with one observed column.",
    )
    base: Base = Field(
        "simple",
        description="simple: the network's quantiles are averaged with those of simpler forecasts: ridge regression "
        "by lead time, boosted trees, the same hour of the last 7, 14 and 28 days, the last value. Held-out blocks of "
        "the history give the weights. none: the network forecasts by itself, as it does with a point head.",
    )
    pretrained: Pretrained | None = Field(
        None,
        description="A pretrained model as one more of the forecasts that the network is averaged with. The registered "
        "model holds its weights, and takes some 20 ms more for a forecast. It may have seen a public dataset.",
    )
    head: Head = Field(
        "categorical",
        description="Kind of forecast: a distribution over bins, quantiles, or a point (then all quantiles equal that "
        "point). The teacher always forecasts bins.",
    )
    point_loss: PointLoss = Field(
        "squared",
        description="Loss of a point head: squared error, or SmoothL1 that turns linear at one standard deviation.",
    )
    width: Width = Field(128, description="Hidden units per layer.")
    training: Budget = Field(Budget(), description="Training of student and twin.")

    @property
    def has_base(self) -> bool:
        """Whether it is averaged with simple forecasts, which a point head is not."""
        return self.base == "simple" and self.head != "point"


class DistillationRecipe(Contract):
    """The distillation from teacher to student, and its weight against the truth."""

    alpha: float = Field(
        0.9, ge=0, le=1, description="Weight of the teacher's soft labels; the truth has weight 1 - alpha."
    )
    small_data_alpha: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description=f"Upper limit of alpha where the training part has fewer than {SMALL_DATA_WINDOWS} windows that "
        "don't overlap: too few to train a good teacher. Empty: no limit.",
    )
    temperature: float = Field(1.0, gt=0, le=20, description="Temperature of teacher and student in the soft loss.")
    terms: Terms = Field(Terms(), description="Further losses against the teacher, added to the head's.")
    horizon_decay: float = Field(
        1.0, gt=0, le=1, description="Training weight of each hour of the horizon, relative to the hour before."
    )
    bins: int = Field(
        16, ge=4, le=256, description="Number of quantile bins of the target, the classes of the forecast."
    )
    gate: Gate = Field(
        "hours",
        description="Guard against negative transfer: a factor on alpha, by hour of the horizon or by window, from the "
        "teacher's losses on held-out windows compared with those of a student without a teacher.",
    )
    transfer: bool = Field(
        False,
        description="Students also learn from windows of the other sites, with the soft labels of teachers who know "
        "them. A control, `untaught`, learns from the same windows by their actual values.",
    )
    stop: Literal["truth", "teacher"] = Field(
        "truth",
        description="What a student's epochs are chosen by on a held-out block: its loss to the truth, or to the soft "
        "labels, which are less noisy where data are short. Twins always stop by the truth.",
    )
    unlabelled: bool = Field(
        False,
        description="Also train on windows of the training part whose target is missing, with soft labels only. The "
        "teacher must not see the future, which is missing there too.",
    )


class Recipe(Contract):
    """Teacher, student and the distillation between them. docs/method.md explains the defaults."""

    teacher: TeacherRecipe = Field(TeacherRecipe(), description="The teachers.")
    student: StudentRecipe = Field(StudentRecipe(), description="Student and twin.")
    distillation: DistillationRecipe = Field(DistillationRecipe(), description="Distillation from teacher to student.")

    @model_validator(mode="after")
    def _can_be_taught(self) -> "Recipe":
        teacher, student, distillation = self.teacher, self.student, self.distillation
        terms = distillation.terms
        hidden = ", ".join(name for name in HIDDEN_STATE_TERMS if getattr(terms, name))
        if student.pretrained is not None and not student.has_base:
            raise ValueError(
                "student.pretrained: it is averaged with the network, so student.base must be simple, the head no point"
            )
        if hidden and (teacher.kind == "boosted" or teacher.registered_model is not None):
            raise ValueError(f"distillation.terms: {hidden} need a teacher that is a network trained by this recipe")
        if hidden and teacher.views.relative_hours is not None:
            raise ValueError(
                f"distillation.terms: {hidden} compare hidden states of one issue time, and the first teacher, "
                "teacher.views, has relative_hours; put that view into teacher.more_views"
            )
        if distillation.transfer and teacher.simple:
            raise ValueError("teacher.simple: simple forecasts know this site alone and can't label a transfer set")
        if distillation.transfer and teacher.other_sites is None:
            raise ValueError("distillation.transfer: name the other sites in teacher.other_sites")
        if teacher.registered_model is not None and teacher.knows_more:
            raise ValueError(
                "teacher.registered_model: it is the only teacher; name no other sites and no pretrained model"
            )
        sees_future = any(views.sees_target_future for views in teacher.every_view)
        if distillation.unlabelled and sees_future and teacher.registered_model is None:
            raise ValueError(
                "distillation.unlabelled: where the target is missing there is no future to show; leave future_sigma "
                "and relative_hours empty in teacher.views and teacher.more_views"
            )
        kinds = f"the teacher's kind is {teacher.kind}, the student's architecture {student.architecture}"
        both = {teacher.kind, student.architecture}
        if terms.attention and both not in ({"patch"}, {"inverted"}):
            raise ValueError(
                f"distillation.terms.attention: it needs two transformers of one kind, patch or inverted; {kinds}"
            )
        if terms.variables and both != {"inverted"}:
            raise ValueError(
                f"distillation.terms.variables: only inverted transformers have a token for each variable; {kinds}"
            )
        if terms.times and student.head == "point":
            raise ValueError(
                "distillation.terms.times: it needs more than one value per hour, and a point head has one"
            )
        if student.recursive and student.architecture != "mlp":
            raise ValueError(f"student.recursive: only an mlp can be recursive, not {student.architecture}")
        if student.recursive and hidden:
            raise ValueError(
                f"distillation.terms: {hidden} compare one hidden state per window; a recursive student has several"
            )
        return self

    def require_horizon(self, horizon_hours: int) -> None:
        """Raise ValueError where the horizon, in hours, is too short for the recipe, or beyond a pretrained model's."""
        for part, model in (("student", self.student.pretrained), ("teacher", self.teacher.pretrained)):
            if model is not None and horizon_hours > PRETRAINED_HOURS[model]:
                raise ValueError(
                    f"recipe.{part}.pretrained: {model} forecasts up to {PRETRAINED_HOURS[model]} h, not "
                    f"{horizon_hours} h"
                )
        longest = max(self.teacher.horizons, default=0)
        if longest >= horizon_hours:
            raise ValueError(f"recipe.teacher.horizons: {longest} h is not shorter than the horizon, {horizon_hours} h")
        steps = [views.relative_hours for views in self.teacher.every_view if views.relative_hours is not None]
        if max(steps, default=0) >= horizon_hours:
            raise ValueError(
                f"recipe.teacher.views.relative_hours: {max(steps)} h is not shorter than the horizon, "
                f"{horizon_hours} h"
            )

    def alpha_for(self, windows: int, horizon: int) -> float:
        """α for a number of training windows, one step apart, of `horizon` steps each."""
        alpha, limit = self.distillation.alpha, self.distillation.small_data_alpha
        small = limit is not None and windows / horizon < SMALL_DATA_WINDOWS
        return min(alpha, limit) if small and limit is not None else alpha

    @property
    def has_unprivileged(self) -> bool:
        """Whether unprivileged students can separate the effect of privileged data from that of distillation.

        They can't where no teacher has a view, where the teacher is a registered model, or where terms compare hidden
        states: the unprivileged teacher is one larger ensemble, so its states are wider.
        """
        privileged = self.teacher.knows_more or any(views.any for views in self.teacher.every_view)
        return privileged and self.teacher.registered_model is None and not self.distillation.terms.needs_hidden_states

    @property
    def unprivileged(self) -> "Recipe":
        """The recipe with the same number of teacher networks, in one ensemble that sees only what the student sees."""
        size = self.teacher.ensemble_size * len(self.teacher.every_view)
        return self.override(
            {
                "teacher.views": UNPRIVILEGED,
                "teacher.more_views": (),
                "teacher.ensemble_size": size,
                "teacher.other_sites": None,
                "teacher.coupling": 0.0,
            }
            | NO_PRETRAINED
        )

    @property
    def placebo(self) -> "Recipe":
        """The recipe whose teachers see the privileged values of other windows."""

        def shuffled(views: Views) -> Views:
            return views.model_copy(update={"placebo": views.any})

        teacher = self.teacher
        return self.override(
            {"teacher.views": shuffled(teacher.views), "teacher.more_views": tuple(map(shuffled, teacher.more_views))}
        )

    def without_views(self, absent: Collection[str]) -> "Recipe":
        """The recipe without the views of kinds of data that are absent, of `future`, `minutes` and `auxiliary`.

        Further views that saw nothing else are left out.
        """
        teacher = self.teacher
        more = tuple(left for views in teacher.more_views if (left := views.without(absent)).any or not views.any)
        return self.override({"teacher.views": teacher.views.without(absent), "teacher.more_views": more})

    def by_view(self) -> "list[Recipe]":
        """One recipe for each ensemble, with only its views; the first has `teacher.views`."""
        return [self.override({"teacher.views": views, "teacher.more_views": ()}) for views in self.teacher.every_view]

    def override(self, values: Mapping[str, object]) -> "Recipe":
        """The recipe with new values by dotted name, such as `teacher.width`; they are not validated."""
        changed: Any = self
        for path, value in values.items():
            changed = _with_value(changed, path.split("."), value)
        return cast("Recipe", changed)


def _with_value(contract: Any, path: list[str], value: object) -> Any:
    first, *rest = path
    inner = _with_value(getattr(contract, first), rest, value) if rest else value
    return contract.model_copy(update={first: inner})


class TrainingPlan(Contract):
    """Everything except the data that a training depends on.

    unprivileged: whether to also train students of unprivileged teachers
    """

    recipe: Recipe = Recipe()
    seed: int = Field(0, ge=0, le=2**31 - 1)
    replicates: int = Field(5, ge=1)
    unprivileged: bool = True
    device: Device = "auto"

    def with_recipe(self, recipe: Recipe) -> "TrainingPlan":
        """The same plan with another recipe."""
        return self.model_copy(update={"recipe": recipe})

    @property
    def of_teachers(self) -> "TrainingPlan":
        """The plan with defaults for everything that doesn't affect its teachers."""
        return TrainingPlan(seed=self.seed, device=self.device).with_recipe(teacher_part(self.recipe))

    @property
    def of_unprivileged_teachers(self) -> "TrainingPlan":
        """The plan of the unprivileged teachers."""
        return self.with_recipe(self.recipe.unprivileged).of_teachers


def teacher_part(recipe: Recipe) -> Recipe:
    """The recipe with defaults for everything that doesn't affect its teachers: equal parts mean equal teachers."""
    distillation = recipe.distillation
    return Recipe().override(
        {
            "teacher": recipe.teacher,
            "distillation.bins": distillation.bins,
            "distillation.unlabelled": distillation.unlabelled,
            "distillation.transfer": distillation.transfer,
        }
    )


def student_part(recipe: Recipe) -> Recipe:
    """The recipe with a default teacher: everything except soft labels that affects the students."""
    return Recipe().override({"student": recipe.student, "distillation": recipe.distillation})


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML; missing keys get their defaults.

    Raises SpecError with a sentence that names the file and the key.
    """
    return load_contract(path, Recipe, called="recipe", many="recipes")
