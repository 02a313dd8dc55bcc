"""What a fitted classifier looks at: found by changing what it reads, and by gradients."""
