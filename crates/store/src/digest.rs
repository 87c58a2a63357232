//! SHA-256, for what is compared later and never has to be read: requests, and secrets that are shown once.

use std::fmt::Write as _;

/// The digest of `bytes` in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to text cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
