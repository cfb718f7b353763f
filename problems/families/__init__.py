"""The families of problems. A family is one public function `family(draw) -> Problem` in one of these modules."""

from collections.abc import Callable
from types import ModuleType

from problems.families import (functions, functions_curves, plane_geometry, plane_geometry_circles, plane_geometry_maps,
                               plane_geometry_polygons, solid_geometry, solid_geometry_round, solid_geometry_stacks)
from problems.problem import Draw, Problem

MODULES: dict[str, tuple[ModuleType, ...]] = {
    "plane_geometry": (plane_geometry, plane_geometry_circles, plane_geometry_polygons, plane_geometry_maps),
    "solid_geometry": (solid_geometry, solid_geometry_round, solid_geometry_stacks),
    "functions": (functions, functions_curves),
}


def families(category: str) -> list[Callable[[Draw], Problem]]:
    """The families of a category, in the order in which its files define them."""
    return [
        function
        for module in MODULES[category]
        for name, function in vars(module).items()
        if callable(function) and not name.startswith("_") and getattr(function, "__module__", "") == module.__name__
    ]
