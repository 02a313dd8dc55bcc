"""The training of an encoder: loop, step, learner, driver."""
