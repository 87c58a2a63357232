//! The files that a configuration names: where they are, and who may read them.

use std::{
    io,
    path::{Path, PathBuf},
};

use audit::LedgerConfig;
use net::{ClientTlsConfig, SecretSource};
use proxy::config::{AgentListenerConfig, CredentialConfig};
use token::config::KeysConfig;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be looked at or read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error("{path} holds a secret and others may read it: chmod 600 {path}, owned by root or the user that runs this", path = .0.display())]
    Open(PathBuf),
    /// Others than its owner may read what a process runs with.
    #[error("{path} may be read by others, agents among them: chmod 600 {path}, owned by root or the user that runs this", path = .0.display())]
    OpenConfig(PathBuf),
    /// A directory that others than its owner may enter.
    #[error("others may look into {path}, which is private: chmod 700 {path}, owned by root or the user that runs this", path = .0.display())]
    OpenDirectory(PathBuf),
    /// Others than this process's user and root may change it.
    #[error("{path} may be changed by others: chmod go-w {path}, owned by root or the user that runs this", path = .0.display())]
    Writable(PathBuf),
}

/// Takes a relative path from `base`.
pub(super) fn place(base: &Path, path: &mut PathBuf) {
    // `join` leaves an absolute path as it is.
    *path = base.join(&*path);
}

pub(super) fn place_ledger(base: &Path, ledger: &mut LedgerConfig) {
    place(base, &mut ledger.dir);
    if let Some(key) = &mut ledger.key {
        place(base, key);
    }
}

pub(super) fn place_keys(base: &Path, keys: &mut KeysConfig) {
    if let KeysConfig::File(path) = keys {
        place(base, path);
    }
}

pub(super) fn place_listener(base: &Path, listener: &mut AgentListenerConfig) {
    if let Some(path) = &mut listener.unix {
        place(base, path);
    }
    if let Some(tls) = &mut listener.tls {
        tls.place(base);
    }
    listener.entry.place(base);
}

pub(super) fn place_credential(base: &Path, credential: &mut CredentialConfig) {
    if let Some(SecretSource::File(path)) = secret_mut(credential) {
        place(base, path);
    }
}

/// Takes a secret's relative path from `base`.
pub(super) fn place_secret(base: &Path, secret: &mut SecretSource) {
    if let SecretSource::File(path) = secret {
        place(base, path);
    }
}

/// Takes the relative paths of a tool's TLS settings from `base`.
pub(super) fn place_client_tls(base: &Path, tls: &mut ClientTlsConfig) {
    let key = match &mut tls.key {
        Some(SecretSource::File(path)) => Some(path),
        Some(SecretSource::Env(_)) | None => None,
    };
    for path in [tls.authorities.as_mut(), tls.certificate.as_mut(), key].into_iter().flatten() {
        place(base, path);
    }
}

fn secret_mut(credential: &mut CredentialConfig) -> Option<&mut SecretSource> {
    match credential {
        CredentialConfig::None => None,
        CredentialConfig::Bearer(secret)
        | CredentialConfig::Header { value: secret, .. }
        | CredentialConfig::Basic { password: secret, .. } => Some(secret),
    }
}

/// Whether a file with a secret, or a directory of such files, is its owner's alone.
pub(crate) fn check_private(path: &Path) -> Result<(), FileError> {
    let unreadable = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    match net::secret::readable_by_others(path).map_err(unreadable)? {
        false => Ok(()),
        true if path.is_dir() => Err(FileError::OpenDirectory(path.to_owned())),
        true => Err(FileError::Open(path.to_owned())),
    }
}

/// Whether the file that a process runs with is its owner's alone.
pub(crate) fn check_config_private(path: &Path) -> Result<(), FileError> {
    let unreadable = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    if net::secret::readable_by_others(path).map_err(unreadable)? {
        return Err(FileError::OpenConfig(path.to_owned()));
    }
    Ok(())
}

/// Whether nobody but its owner may change a file that says what is allowed.
pub(crate) fn check_not_writable(path: &Path) -> Result<(), FileError> {
    let unreadable = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    match net::secret::changeable_by_others(path).map_err(unreadable)? {
        false => Ok(()),
        true => Err(FileError::Writable(path.to_owned())),
    }
}

/// The same for a directory and everything in it: whoever can add a file there decides too.
pub(crate) fn check_tree_not_writable(path: &Path) -> Result<(), FileError> {
    check_not_writable(path)?;
    if !path.is_dir() {
        return Ok(());
    }
    let unreadable = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // What a link points to counts where it is a file; a directory that a link leads to is no part of a bundle.
        let followed = entry.file_type().map_err(unreadable)?.is_symlink();
        if followed { check_not_writable(&entry.path())? } else { check_tree_not_writable(&entry.path())? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_may_change_spoils_the_directory_it_is_in() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("team");
        let file = inner.join("policy.rego");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        for (directory_mode, file_mode, sound) in
            [(0o755, 0o644, true), (0o755, 0o666, false), (0o755, 0o664, false), (0o777, 0o644, false)]
        {
            mode(&inner, directory_mode);
            mode(&file, file_mode);
            assert_eq!(check_tree_not_writable(directory.path()).is_ok(), sound, "{directory_mode:o} {file_mode:o}");
        }
    }
}
