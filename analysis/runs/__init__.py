"""The run table: read from a sweep's folder or from anybody's file, and checked row by row."""
