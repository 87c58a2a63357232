//! The sidecar: the stages of a call, one file each, in the order a call meets them.
