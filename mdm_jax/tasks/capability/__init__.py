"""What trained models can do, measured for every run of a sweep and compared between the families at equal loss."""
