"""Label files: a format is a module. `pose/label_formats.py` tells them apart."""
