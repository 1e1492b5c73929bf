"""Layouts of data sets, one file each; registry.LAYOUTS names them and dataset.read_dataset finds the one that fits."""
