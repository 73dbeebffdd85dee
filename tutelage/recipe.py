"""How a pair of teacher and student is trained: the views, the networks, the loss and the budget, as plain values."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tutelage.dataset import Contract, load_contract

Architecture = Literal["mlp", "linear", "tcn", "patch", "inverted"]
Kind = Literal["mlp", "linear", "tcn", "patch", "inverted", "boosted"]
"""Of a teacher: a network's architecture, or gradient-boosted trees."""
Head = Literal["categorical", "quantiles", "point"]
PointLoss = Literal["squared", "smooth"]
Gate = Literal["none", "hours", "windows"]
Width = Annotated[int, Field(ge=4, le=2048)]


class Views(Contract):
    """What the teacher sees and the student never will."""

    future_sigma: float | None = Field(
        2.0,
        ge=0,
        le=20,
        description="Noise on the future values of the target, in standard deviations of the training part. "
        "Empty: the teacher does not see the future.",
    )
    future_sigma_end: float | None = Field(
        None,
        ge=0,
        le=20,
        description="Noise at the end of the teacher's epochs: from future_sigma on it goes there in a straight line, "
        "and the soft labels have it. Empty: future_sigma throughout.",
    )
    minutes_hours: int = Field(
        3,
        ge=0,
        le=168,
        description="Past hours whose raw readings the teacher sees. 0: none.",
    )
    auxiliary: bool = Field(True, description="The teacher sees the past of the privileged columns.")
    placebo: bool = Field(
        False,
        description="A control: each window's privileged values are those of another window of its part, so that they "
        "tell nothing. What is left of a gain has not come from privilege.",
    )

    @model_validator(mode="after")
    def _has_a_start(self) -> "Views":
        if self.future_sigma_end is not None and self.future_sigma is None:
            raise ValueError("future_sigma_end: without future_sigma the teacher does not see the future")
        return self

    @property
    def any(self) -> bool:
        """Whether the teacher sees anything that the student does not."""
        return self.future_sigma is not None or self.minutes_hours > 0 or self.auxiliary

    @property
    def sentence(self) -> str:
        """What they are, in words."""
        seen = []
        if self.future_sigma is not None:
            until = "" if self.future_sigma_end is None else f" to {self.future_sigma_end:g}"
            seen.append(f"the future with noise of σ = {self.future_sigma:g}{until}")
        if self.minutes_hours:
            seen.append(f"raw readings of {self.minutes_hours} h")
        if self.auxiliary:
            seen.append("auxiliary sensors")
        return ", ".join(seen) or "what the student sees"

    def after(self, share: float) -> "Views":
        """The views once a share of the teacher's epochs is over: with the noise of then, and no schedule."""
        if self.future_sigma is None or self.future_sigma_end is None:
            return self
        sigma = self.future_sigma + min(share, 1.0) * (self.future_sigma_end - self.future_sigma)
        return self.model_copy(update={"future_sigma": sigma, "future_sigma_end": None})


BLIND = Views(future_sigma=None, minutes_hours=0, auxiliary=False)
"""No view at all: such a teacher sees what the student does."""


class Budget(Contract):
    """How long and how a network is trained. Student and twin share one budget."""

    epochs: int = Field(150, ge=1, le=2000, description="At most so many passes over the training windows.")
    patience: int = Field(10, ge=1, le=200, description="Passes without a better validation loss before stopping.")
    batch_size: int = Field(128, ge=8, le=8192, description="Windows a step.")
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="AdamW's step size.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="AdamW's weight decay.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units dropped while training.")


INSIDE = {"windows": "hidden", "features": "hidden", "distances": "hidden", "variables": "tokens", "attention": "maps"}
"""The terms that need more of a teacher than its forecast, and what of its states."""


class Terms(Contract):
    """Weights of what a student is taught beside its head's losses. 0: not at all."""

    scale: float = Field(0.0, ge=0, le=100, description="The mean path, averaged over 2, 4 and 8 hours (TimeDistill).")
    period: float = Field(0.0, ge=0, le=100, description="The mean path's periods (TimeDistill); horizons from 4 h.")
    windows: float = Field(0.0, ge=0, le=100, description="Similarities between a batch's windows (SPKD).")
    features: float = Field(0.0, ge=0, le=100, description="The teacher's hidden state, through a projection.")
    distances: float = Field(0.0, ge=0, le=100, description="Relative distances between a batch's windows (RKD).")
    times: float = Field(0.0, ge=0, le=100, description="Similarities between the forecast's hours; no point head.")
    variables: float = Field(
        0.0, ge=0, le=100, description="Similarities between variables; teacher and student: inverted."
    )
    attention: float = Field(
        0.0, ge=0, le=100, description="Attention maps (TimeKD); teacher and student: both inverted, or both patch."
    )

    @property
    def any(self) -> bool:
        """Whether any term has a weight."""
        return any(vars(self).values())

    @property
    def inside(self) -> bool:
        """Whether any of them needs what the teacher holds inside."""
        return any(getattr(self, name) for name in INSIDE)


FEW_WINDOWS = 50
TEACHER_DROPOUT = 0.5


class Recipe(Contract):
    """Teacher, student and the distillation between them. Where the defaults come from: docs/method.md."""

    views: Views = Field(Views(), description="What only the teacher sees.")
    more_views: tuple[Views, ...] = Field(
        (Views(future_sigma=1.0, auxiliary=False), BLIND),
        description="Further ensembles that teach beside it, each by its own views; the soft labels are the mean of "
        "all. One that sees too much, or overfits what it sees, is held by the others.",
    )
    alpha: float = Field(0.9, ge=0, le=1, description="Weight of the teacher's soft labels; the truth has 1 - alpha.")
    few_alpha: float | None = Field(
        0.5,
        ge=0,
        le=1,
        description=f"The most that alpha is where fewer than {FEW_WINDOWS} windows of the training part fit one after "
        "the other: a teacher of so few knows little. Empty: alpha throughout.",
    )
    temperature: float = Field(1.0, gt=0, le=20, description="Softens teacher and student alike in the soft loss.")
    terms: Terms = Field(Terms(), description="What the student is taught beside its head's losses.")
    horizon_decay: float = Field(
        1.0, gt=0, le=1, description="Training weight of each further hour of the horizon, relative to the one before."
    )
    bins: int = Field(16, ge=4, le=256, description="Quantile bins of the target: the classes of the forecast.")
    teachers: int = Field(4, ge=1, le=64, description="Networks in the ensemble of each of the views.")
    teacher: Kind = Field(
        "mlp", description="The teacher's kind: a network as the student's, or boosted, gradient-boosted trees."
    )
    teacher_horizons: tuple[Annotated[int, Field(ge=1, le=168)], ...] = Field(
        (),
        description="Further teachers for these shorter horizons, in hours, ascending: each speaks for the hours that "
        "no shorter one reaches.",
    )
    teacher_model: str | None = Field(
        None,
        pattern=r"^[^/:]+/[0-9]+$",
        description="A registered model, name/version, that teaches in place of a trained teacher.",
    )
    gate: Gate = Field(
        "hours",
        description="Guard against negative transfer: how far the teacher is trusted, by hour of the horizon or by "
        "window, from its losses on the validation part against those of a student without a teacher.",
    )
    unlabelled: bool = Field(
        False,
        description="Soft labels teach windows of the training part, too, whose target is missing. The teacher must "
        "not see the future, which isn't there either.",
    )
    student: Architecture = Field(
        "mlp",
        description="Kind of network of student and twin: mlp; linear, on trend and remainder (DLinear); tcn, causal "
        "convolutions; patch, a transformer over days; inverted, a transformer over columns.",
    )
    rolled: bool = Field(
        False,
        description="Student and twin forecast one hour at a time and go on from the mean of what they have just said; "
        "they are taught along this roll-out, the gradient goes through all of its steps. An mlp, and one observed "
        "column, alone.",
    )
    head: Head = Field(
        "categorical",
        description="What student and twin forecast: a distribution over bins, quantiles, or a point (then all "
        "quantiles are that point). The teacher always speaks of bins.",
    )
    point_loss: PointLoss = Field(
        "squared", description="Of a point head: squared error, or SmoothL1 with its bend at one standard deviation."
    )
    teacher_width: Width = Field(128, description="Hidden units a layer, teacher.")
    student_width: Width = Field(128, description="Hidden units a layer, student and twin.")
    draws: int = Field(4, ge=1, le=64, description="Noise draws that a soft label is averaged over.")
    teacher_budget: Budget = Field(Budget(dropout=TEACHER_DROPOUT), description="The teacher's training.")
    student_budget: Budget = Field(Budget(), description="The student's and the twin's training.")

    @field_validator("teacher_budget", mode="before")
    @classmethod
    def _keeps_its_dropout(cls, given: object) -> object:
        """A budget that says nothing of dropout has the teacher's, not the student's."""
        if isinstance(given, Budget):
            given = given.model_dump(exclude_unset=True)
        return {"dropout": TEACHER_DROPOUT, **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _can_be_taught(self) -> "Recipe":
        views = (self.views, *self.more_views)
        if self.teacher == "boosted" and any(some.future_sigma_end is not None for some in views):
            raise ValueError("views.future_sigma_end: boosted trees have no epochs over which noise could change")
        if self.terms.inside and (self.teacher == "boosted" or self.teacher_model is not None):
            inside = ", ".join(name for name in INSIDE if getattr(self.terms, name))
            raise ValueError(f"terms: {inside} need a teacher that is a network trained here")
        if list(self.teacher_horizons) != sorted(set(self.teacher_horizons)):
            raise ValueError("teacher_horizons: they must ascend, none twice")
        if self.teacher_horizons and self.teacher_model is not None:
            raise ValueError("teacher_horizons: a registered model teaches its whole horizon; no others are trained")
        if self.unlabelled and any(v.future_sigma is not None for v in views) and self.teacher_model is None:
            raise ValueError(
                "unlabelled: where the target is missing there is no future to show; leave future_sigma empty in views "
                "and more_views"
            )
        kinds = f"the teacher's kind is {self.teacher}, the student's {self.student}"
        both = {self.teacher, self.student}
        if self.terms.attention and both not in ({"patch"}, {"inverted"}):
            raise ValueError(f"terms.attention: it needs two transformers of one kind, patch or inverted; {kinds}")
        if self.terms.variables and both != {"inverted"}:
            raise ValueError(f"terms.variables: only inverted transformers have a token for each variable; {kinds}")
        if self.terms.times and self.head == "point":
            raise ValueError("terms.times: it needs a head with more than one value an hour, and a point is one")
        if self.rolled and self.student != "mlp":
            raise ValueError(f"rolled: an mlp alone goes on from its own forecasts, and the student is {self.student}")
        if self.rolled and self.terms.inside:
            inside = ", ".join(name for name in INSIDE if getattr(self.terms, name))
            raise ValueError(f"terms: {inside} compare one hidden state a window, and a rolled student has one an hour")
        return self

    def alpha_for(self, windows: int, horizon: int) -> float:
        """α on so many training windows, an hour apart, of so many hours each."""
        few = self.few_alpha is not None and windows / horizon < FEW_WINDOWS
        return min(self.alpha, self.few_alpha) if few and self.few_alpha is not None else self.alpha

    @property
    def has_control(self) -> bool:
        """Whether a control can tell its privilege from distillation alone.

        Not where the teachers see nothing more anyway, where the teacher is a registered model, and where terms compare
        the student with what it holds inside: the control's teacher, of more networks, holds more.
        """
        seen = any(own.views.any for own in self.by_view())
        return seen and self.teacher_model is None and not self.terms.inside

    @property
    def without_privilege(self) -> "Recipe":
        """The control: as many networks, in one ensemble, that see nothing more than the student."""
        teachers = self.teachers * len(self.by_view())
        return self.model_copy(update={"views": BLIND, "more_views": (), "teachers": teachers})

    def by_view(self) -> "list[Recipe]":
        """A recipe for each of the teachers, with the views that are its own; the first one's are `views`.

        A registered model is one teacher, whatever the views.
        """
        views = dict.fromkeys((self.views, *(() if self.teacher_model else self.more_views)))
        return [self.model_copy(update={"views": own, "more_views": ()}) for own in views]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML: what it does not say is as in the default.

    Raises SpecError with a sentence that names the file and the key.
    """
    return load_contract(path, Recipe, called="recipe", many="recipes")


class StudentPlan(Contract):
    """One of many students of one shape that are trained side by side, and what is its own."""

    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of its first weights and of what dropout drops.")
    alpha: float = Field(0.9, ge=0, le=1, description="Weight of the teacher's soft labels; 0 is a twin.")
    temperature: float = Field(1.0, gt=0, le=20, description="Softens teacher and student alike in the soft loss.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units dropped while training.")
    soft: int = Field(0, ge=0, description="Which of the sets of soft labels teaches it.")
    terms: Terms = Field(Terms(), description="What it is taught beside its head's losses.")

    @property
    def taught(self) -> bool:
        """Whether any teacher reaches it."""
        return self.alpha > 0 or self.terms.any

    @property
    def twin(self) -> "StudentPlan":
        """The same student, taught by the truth alone; all students of one seed and dropout have the same twin."""
        return StudentPlan(seed=self.seed, alpha=0.0, temperature=1.0, dropout=self.dropout, soft=0)
