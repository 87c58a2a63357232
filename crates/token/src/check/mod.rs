//! The checks of `admit`, one file each, in the order a token meets them (DESIGN §4).

pub(crate) mod shape;
pub(crate) mod signature;

pub(crate) mod kind;
pub(crate) mod time;

pub(crate) mod role;

pub(crate) mod audience;
pub(crate) mod sender;

pub(crate) mod chain;
pub(crate) mod tenant;
