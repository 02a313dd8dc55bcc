"""Learns an encoder of social behaviour from unlabelled pose tracks."""
