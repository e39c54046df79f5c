"""What is asked of many runs: grids, their cells and tables, worlds, requests in sequence, settings tuned."""

from .cells import Cell
from .grid import Grid
from .grid_file import read_grid
