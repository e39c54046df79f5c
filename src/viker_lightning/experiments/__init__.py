"""Grids of ordinary runs: reads a grid, runs its cells, and has the table of their run folders made."""

from .cells import Cell, State
from .grid import Grid
from .grid_file import read_grid
from .runner import run_grid

__all__ = ["Cell", "Grid", "State", "read_grid", "run_grid"]
