"""The demo: a dataset that draws itself, and a first run over it."""

from fasttriplet.demo._pictures import draw_identities
from fasttriplet.demo._run import Demo, run_demo
from fasttriplet.demo._sheets import contact_sheet, triplet_sheet

__all__ = ["Demo", "contact_sheet", "draw_identities", "run_demo", "triplet_sheet"]
