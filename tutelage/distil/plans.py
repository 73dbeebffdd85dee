"""Plans of students that train side by side: what each has that the others need not share."""

from pydantic import Field

from tutelage.contract import Contract
from tutelage.distil.dataset import WindowDataset
from tutelage.distil.recipe import Recipe
from tutelage.distil.terms import Terms


class StudentPlan(Contract):
    """One of several students that train side by side: its seed, loss weights, dropout and soft labels."""

    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of its initial weights and its dropout.")
    alpha: float = Field(0.9, ge=0, le=1, description="Weight of the teacher's soft labels; 0: a twin.")
    temperature: float = Field(1.0, gt=0, le=20, description="Temperature of teacher and student in the soft loss.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of hidden units dropped during training.")
    soft: int = Field(0, ge=0, description="Index of its set of soft labels.")
    terms: Terms = Field(Terms(), description="Further losses against the teacher, added to the head's.")

    @property
    def taught(self) -> bool:
        """Whether its loss depends on a teacher."""
        return self.alpha > 0 or self.terms.any

    @property
    def twin(self) -> "StudentPlan":
        """The same student trained only on the truth; students with the same seed and dropout share their twin."""
        return StudentPlan(seed=self.seed, alpha=0.0, temperature=1.0, dropout=self.dropout, soft=0)


def make_plan(recipe: Recipe, *, seed: int) -> StudentPlan:
    """The plan of a recipe's student, with the recipe's α."""
    return StudentPlan(
        seed=seed,
        alpha=recipe.distillation.alpha,
        temperature=recipe.distillation.temperature,
        dropout=recipe.student.training.dropout,
        terms=recipe.distillation.terms,
    )


def plan_student(dataset: WindowDataset, recipe: Recipe, *, seed: int) -> StudentPlan:
    """The plan of a recipe's student on a dataset, with the recipe's α for that number of training windows."""
    alpha = recipe.alpha_for(len(dataset.train), dataset.horizon)
    return make_plan(recipe, seed=seed).model_copy(update={"alpha": alpha})
