//! Agents, users' grants and tasks behind one async interface.
