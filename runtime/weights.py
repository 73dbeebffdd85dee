"""Which weights a run begins with: the digest of the pretrained model that its recipe names in a folder."""

from typing import Any, Protocol, Self, TypeVar

from tutelage.distil.pretrained import with_pretrained_digest
from tutelage.distil.recipe import Recipe


class Taught(Protocol):
    """A flow's parameters with a recipe."""

    @property
    def recipe(self) -> Recipe:
        """How teachers and students are trained."""

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """The same with some values changed."""


Parameters = TypeVar("Parameters", bound=Taught)


def with_its_weights(parameters: Parameters) -> Parameters:
    """The parameters with that digest, so that results of other weights under the same name are never taken for these.

    Raises SpecError where the folder holds no such model.
    """
    return parameters.model_copy(update={"recipe": with_pretrained_digest(parameters.recipe)})
