"""What turns poses into numbers, on the device."""
