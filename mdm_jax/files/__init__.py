"""Files on a disk or in an object store: atomic writes, seals, locks, the user's cache, and errors that may pass."""
