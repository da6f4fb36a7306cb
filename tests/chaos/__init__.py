"""Chaos: epochs run while workers and their template are killed, stopped and starved, and every batch is compared.

One seed is one script (`script.py`): a sequence, a pipeline, a consumer and a timetable of faults.
`python -m tests.chaos` runs many. What a script does follows from its seed. What the processes make of it also follows
from how the machine schedules them, so that a seed that fails may have to be run several times until it fails again.
"""
