"""The jobs of a run as tasks of a Ray cluster.

Ray schedules the tasks, starts processes, moves objects, and does a task again whose process or machine died.
This package adds what a run needs besides: a connection that says what is wrong with it, things that each
process opens once, and errors that name the machine.
"""
