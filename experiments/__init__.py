"""One file for each experiment. `get_config()` describes a sweep; the docstring has its commands, cost and result."""
