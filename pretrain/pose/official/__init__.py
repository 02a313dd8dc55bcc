"""CalMS21 as it is published: download, formats, counts. `pose/calms21.py` puts it together."""
