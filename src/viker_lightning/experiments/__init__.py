"""The paper's tables as grids of ordinary runs: reads a grid, runs its cells, and makes tables of run folders."""

from .cells import Cell, State
from .grid import Grid, read_grid
from .runner import run_grid
from .table import Table
from .write import tabulate

__all__ = ["Cell", "Grid", "State", "Table", "read_grid", "run_grid", "tabulate"]
