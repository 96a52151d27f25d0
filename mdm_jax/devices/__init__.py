"""Devices: meshes and shardings, the precision of products, and the published peaks of accelerators."""
