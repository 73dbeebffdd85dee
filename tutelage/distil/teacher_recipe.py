"""The teachers' part of a recipe: their views, kind, number and training, as plain values."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tutelage.contract import Contract
from tutelage.data.dataset import DATASET_NAME
from tutelage.distil.privilege import UNPRIVILEGED, Views
from tutelage.model.kinds import Budget, Kind, Pretrained, Width

TEACHER_DROPOUT = 0.5


class TeacherRecipe(Contract):
    """The teachers: their views, their kind, and their training."""

    views: Views = Field(Views(), description="Data that only the teacher sees.")
    more_views: tuple[Views, ...] = Field(
        (Views(future_sigma=1.0, auxiliary=False), UNPRIVILEGED),
        description="Further ensembles, each with its own views; the soft labels are the mean of all. An ensemble that "
        "sees too much, or overfits, is balanced by the others.",
    )
    kind: Kind = Field("mlp", description="Architecture, as for the student, or boosted: gradient-boosted trees.")
    ensemble_size: int = Field(
        4,
        ge=1,
        le=64,
        description="Number of networks in the ensemble of each view, "
        "spread over the held-out blocks: at least one for each.",
    )
    width: Width = Field(128, description="Hidden units per layer.")
    horizons: tuple[Annotated[int, Field(ge=1, le=168)], ...] = Field(
        (),
        description="Shorter horizons of further teachers, in hours, ascending: each labels the hours that no shorter "
        "one covers.",
    )
    registered_model: str | None = Field(
        None,
        pattern=r"^[^/:]+/[0-9]+$",
        description="Registered model, name/version, to use in place of trained teachers.",
    )
    registered_digest: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of the files of a registered model that tutelage did not make. Loading it runs its own "
        "code, so without this it is refused, and the refusal says the digest.",
    )
    other_sites: str | None = Field(
        None,
        pattern=DATASET_NAME,
        description="Name of a dataset with series of other sites, which the teachers learn from, too. They are put on "
        "this site's scale.",
    )
    pretrained: Pretrained | None = Field(
        None,
        description="A pretrained model as a further teacher, which forecasts as it comes; it may have seen public "
        "data. fracast: 85,001 weights, horizons up to 48 h.",
    )
    pretrained_folder: str | None = Field(
        None,
        description="Folder with the weights of a Chronos model (Chronos-2, Chronos-Bolt), its absolute path on the "
        "machine that trains, as a further teacher in place of one that is installed; on the GPU where there is one.",
    )
    pretrained_digest: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of the files in that folder. A retrain fills it in; with it, other weights are refused.",
    )
    simple: bool = Field(
        False,
        description="The mean of the simple forecasts (ridge regression, boosted trees, the same hour of the last "
        "days, the last value) as a further teacher, which sees what the student sees.",
    )
    weights: Literal["equal", "likely"] = Field(
        "equal",
        description="Weights of the teachers in the soft labels: equal, or, by hour of the horizon, those that make "
        "the actual values of held-out blocks most likely.",
    )
    coupling: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Weight of a teacher's distance from a companion that sees only the student's inputs and learns "
        "with it, so that the teacher says what the student can follow. 0: no companion.",
    )
    noise_draws: int = Field(4, ge=1, le=64, description="Number of noise draws that a soft label is averaged over.")
    training: Budget = Field(Budget(dropout=TEACHER_DROPOUT), description="Training of the teachers.")

    @field_validator("training", mode="before")
    @classmethod
    def _keeps_its_dropout(cls, given: object) -> object:
        """A budget without dropout gets the teacher's default, not the student's."""
        if isinstance(given, Budget):
            given = given.model_dump(exclude_unset=True)
        return {"dropout": TEACHER_DROPOUT, **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _consistent(self) -> "TeacherRecipe":
        if self.kind == "boosted" and any(views.future_sigma_end is not None for views in self.every_view):
            raise ValueError("views.future_sigma_end: boosted trees have no epochs over which noise could change")
        if self.coupling and (self.kind == "boosted" or self.registered_model is not None):
            raise ValueError("coupling: only networks that this recipe trains learn together with a companion")
        if self.kind == "boosted" and self.other_sites is not None:
            raise ValueError("other_sites: only networks learn from other sites, not boosted trees")
        if self.registered_digest is not None and self.registered_model is None:
            raise ValueError("registered_digest: there is no registered_model that it could be of")
        if self.pretrained is not None and self.pretrained_folder is not None:
            raise ValueError("pretrained_folder: one pretrained model teaches; leave pretrained empty")
        if self.pretrained_folder is not None and not Path(self.pretrained_folder).is_absolute():
            raise ValueError(f"pretrained_folder: {self.pretrained_folder} is no absolute path")
        if self.pretrained_digest is not None and self.pretrained_folder is None:
            raise ValueError("pretrained_digest: there is no pretrained_folder that it could be of")
        if self.simple and self.registered_model is not None:
            raise ValueError("simple: a registered model is the only teacher")
        if list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError("horizons: they must ascend, without duplicates")
        if self.horizons and self.registered_model is not None:
            raise ValueError("horizons: a registered model teaches its whole horizon; no others are trained")
        return self

    @property
    def knows_more(self) -> bool:
        """Whether the teachers know other sites, or one of them is a pretrained model."""
        return self.other_sites is not None or self.pretrained_name is not None

    @property
    def pretrained_name(self) -> str | None:
        """The pretrained model among the teachers: its name, or its folder's with the digest of its files."""
        if self.pretrained_folder is None:
            return self.pretrained
        digest = f" ({self.pretrained_digest[:12]})" if self.pretrained_digest else ""
        return Path(self.pretrained_folder).name + digest

    @property
    def every_view(self) -> tuple[Views, ...]:
        """The distinct views of all ensembles. A registered model is one teacher, whatever the views."""
        return tuple(dict.fromkeys((self.views, *(() if self.registered_model else self.more_views))))

    @property
    def sentence(self) -> str:
        """The teachers in words."""
        if self.registered_model is not None:
            return self.registered_model
        kind = "boosted trees" if self.kind == "boosted" else "networks"
        sites = "" if self.other_sites is None else f", trained on the sites of {self.other_sites}, too"
        teachers = [f"{kind} ({views.sentence}{sites})" for views in self.every_view]
        if self.simple:
            teachers.append("the mean of the simple forecasts")
        if self.pretrained_name is not None:
            teachers.append(f"{self.pretrained_name}, a pretrained model, as it comes")
        return "; ".join(teachers)
