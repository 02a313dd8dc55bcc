"""Files that anybody may have written: read without running anything, within stated bounds."""
