"""What tells, without labels, how a training goes. Plain torch."""
