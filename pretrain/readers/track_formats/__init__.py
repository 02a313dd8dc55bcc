"""One file a format of tracks."""
