"""The public names of dpkit.budget."""

from .comparison import Answer as Answer
from .comparison import compare as compare
from .curves import Curve as Curve
from .curves import against_noise as against_noise
from .curves import against_steps as against_steps
from .curves import profile as profile
from .curves import renyi as renyi
from .curves import trade_off as trade_off
from .declaration import Declaration as Declaration
from .declaration import declare as declare
from .declaration import read as read
from .shorthand import expand as expand
from .solving import AttackLimit as AttackLimit
from .solving import Solution as Solution
from .solving import solve as solve
from .solving import solve_attack as solve_attack
