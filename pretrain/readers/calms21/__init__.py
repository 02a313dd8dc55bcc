"""CalMS21's archives: download, read, write."""
