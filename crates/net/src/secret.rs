//! Secrets: where they come from, and how they leave.
//!
//! A secret is named in the configuration by its place, never written there. No error, log or `Debug` text
//! holds any part of one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The largest secret, in bytes. Larger than any key or token; a path to a wrong file fails fast.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Where a secret lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// In a file, whole; one line end after it is ignored.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// Why a secret cannot be used. Names the place, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret from {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Others than its owner may read the file.
    #[error("{path} holds a secret and others may read it: chmod 600 {path}, owned by root or the user that runs this", path = .0.display())]
    OpenToOthers(PathBuf),
    /// The environment variable is not set.
    #[error("the environment variable {name} is not set")]
    Unset {
        /// The variable.
        name: String,
    },
    /// There is nothing in it.
    #[error("the secret in {place} is empty")]
    Empty {
        /// The file or variable.
        place: String,
    },
    /// More than [`MAX_SECRET_BYTES`].
    #[error("the secret in {place} is larger than {MAX_SECRET_BYTES} bytes")]
    TooLarge {
        /// The file or variable.
        place: String,
    },
    /// Not text.
    #[error("the secret in {place} is not UTF-8 text")]
    NotText {
        /// The file or variable.
        place: String,
    },
    /// It cannot travel in a header.
    #[error("the secret holds a character that cannot be sent in a header (a second line, perhaps?)")]
    NotAHeaderValue,
}

impl SecretSource {
    /// Reads the secret. `env` looks up environment variables; a file is read anew each time, so that a
    /// rotated secret is seen.
    ///
    /// # Errors
    /// When it is missing, empty, too large or not text, or others may read the file.
    pub fn load(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::File(path) => read(path)?,
            Self::Env(name) => Zeroizing::new(env(name).ok_or_else(|| SecretError::Unset { name: name.clone() })?),
        };
        let place = || self.place();
        let secret = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if secret.is_empty() {
            return Err(SecretError::Empty { place: place() });
        }
        if secret.len() > MAX_SECRET_BYTES {
            return Err(SecretError::TooLarge { place: place() });
        }
        Ok(SecretString::from(secret))
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Env(name) => format!("the environment variable {name}"),
        }
    }
}

/// `prefix` and the secret as a header value, marked sensitive. Use `"Bearer "` or `""` as prefix.
///
/// # Errors
/// When the secret holds anything but visible ASCII and inner spaces: a line end would smuggle a header.
pub fn header_value(prefix: &str, secret: &SecretString) -> Result<HeaderValue, SecretError> {
    let secret = secret.expose_secret();
    let visible = secret.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    // A value is trimmed on the wire, so an outer space would change the secret.
    if !visible || secret.trim() != secret {
        return Err(SecretError::NotAHeaderValue);
    }
    let text = Zeroizing::new(format!("{prefix}{secret}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| SecretError::NotAHeaderValue)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether somebody else may do anything with a file: its mode has any of the bits `077`, or its owner is neither this
/// process's user nor root. Follows links.
///
/// # Errors
/// When the file cannot be looked at.
pub fn readable_by_others(path: &Path) -> io::Result<bool> {
    Ok(readable(&fs::metadata(path)?))
}

fn readable(metadata: &fs::Metadata) -> bool {
    metadata.mode() & 0o077 != 0 || is_a_strangers(metadata)
}

/// Whether somebody else may change the file or directory: its mode lets group or others write, or its owner is
/// neither this process's user nor root. Whoever may change what decides, decides.
///
/// # Errors
/// When it cannot be looked at.
pub fn changeable_by_others(path: &Path) -> io::Result<bool> {
    Ok(changeable(&fs::metadata(path)?))
}

/// The same of what was opened, so that it cannot be exchanged between the look and the reading.
pub fn changeable(metadata: &fs::Metadata) -> bool {
    metadata.mode() & 0o022 != 0 || is_a_strangers(metadata)
}

fn is_a_strangers(metadata: &fs::Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    metadata.uid() != 0 && metadata.uid() != own
}

fn read(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let unreadable = |cause| SecretError::Unreadable { path: path.to_owned(), cause };
    // Room for the largest secret, its line end, and one byte that shows there is more: the buffer is
    // never grown, so no copy of the secret is left behind unwiped.
    let room = MAX_SECRET_BYTES + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let file = File::open(path).map_err(unreadable)?;
    // Of what was opened, each time: a secret that is exchanged later has to be as private as the first.
    if readable(&file.metadata().map_err(unreadable)?) {
        return Err(SecretError::OpenToOthers(path.to_owned()));
    }
    file.take(room as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText { place: path.display().to_string() })?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests;
