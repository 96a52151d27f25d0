"""The environment of processes whose files may not grow: they write no bytecode.

Python 3.11 keeps bytecode files that such a limit cuts off, and every later process then fails to import them.
"""

NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
