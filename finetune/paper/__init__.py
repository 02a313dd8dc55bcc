"""The benchmark paper's own networks and protocol, and the joint model: what
`finetune/reproduce.py` deals out."""
