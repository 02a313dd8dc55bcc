"""What `prepare.py check` measures and draws."""
