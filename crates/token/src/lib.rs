//! Whose token is this, and is it theirs to present: verification, keys, minting.
