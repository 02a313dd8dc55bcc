"""What ``finetune/compare.py`` compares: pairs of recipe and network, or finished encoders."""
