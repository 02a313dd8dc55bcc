"""Files of trackers and labels, read into stores and written back."""
