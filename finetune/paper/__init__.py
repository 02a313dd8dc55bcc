"""The benchmark paper's own networks and protocol, and the joint model: what
`ethoray reproduce` deals out."""
