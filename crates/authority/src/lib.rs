//! The control plane: exchange, keys, agents, grants and tasks.
