"""What `ethoray prepare check` measures and draws."""
