//! Unix sockets: a file that says who may connect, and a kernel that says who did.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener as Socket, UnixStream};

use super::ListenError;
use crate::peer::PeerCredentials;

/// A bound Unix socket. Its file is removed when this is dropped, unless another process has taken the path since.
#[derive(Debug)]
pub struct UnixListener {
    socket: Socket,
    path: PathBuf,
    identity: (u64, u64),
    allowed: Option<BTreeSet<u32>>,
}

/// Binds `path`. The file gets `mode` before anybody can connect; of those who can, only processes of the users
/// in `allowed` are served, where that is given. A socket file that nobody listens on any more is replaced.
///
/// # Errors
/// When somebody listens there, when the path is taken by something that is no socket, or is not ours to write.
pub fn bind_unix(path: &Path, mode: u32, allowed: Option<BTreeSet<u32>>) -> Result<UnixListener, ListenError> {
    let failed = |cause| ListenError { address: path.display().to_string(), cause };
    check_free(path).map_err(failed)?;
    let (socket, identity) = placed(path, mode).map_err(failed)?;
    Ok(UnixListener { socket, path: path.to_owned(), identity, allowed })
}

/// A socket file is left behind by a process that was killed; one that answers is somebody's.
fn check_free(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, and it is no socket"));
    }
    match Probe::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

/// Binds in a directory that only we can enter, sets the mode there and then moves the socket to its place: there is
/// no moment at which somebody can connect whom the mode keeps out.
fn placed(path: &Path, mode: u32) -> io::Result<(Socket, (u64, u64))> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let private = parent.join(format!(".{}", std::process::id()));
    let inside = private.join("s");
    // Left by a process of the same number that was killed right here; it is ours only if it is empty without it.
    if private.exists() {
        fs::remove_file(&inside).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        fs::remove_dir(&private)?;
    }
    DirBuilder::new().mode(0o700).create(&private)?;
    let bound = Socket::bind(&inside).and_then(|socket| {
        fs::set_permissions(&inside, Permissions::from_mode(mode))?;
        let identity = identity(&fs::symlink_metadata(&inside)?);
        fs::rename(&inside, path)?;
        Ok((socket, identity))
    });
    if bound.is_err() {
        fs::remove_file(&inside).ok();
    }
    fs::remove_dir(&private)?;
    bound
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl UnixListener {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection, and whose it is.
    pub(super) async fn accept(&self) -> io::Result<(UnixStream, PeerCredentials)> {
        loop {
            let (stream, _) = self.socket.accept().await?;
            let Ok(credentials) = stream.peer_cred() else {
                // Who it is cannot be said, so it is nobody.
                continue;
            };
            let peer = PeerCredentials { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
            if self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&peer.uid)) {
                return Ok((stream, peer));
            }
            tracing::debug!(uid = peer.uid, path = %self.path.display(), "a user that is not allowed was hung up on");
        }
    }
}

impl Drop for UnixListener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        for wanted in [0o600, 0o660, 0o666] {
            let listener = bind_unix(&path, wanted, None).unwrap();
            assert_eq!((mode(&path), listener.path()), (wanted, path.as_path()));
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
            drop(listener);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "what a killed process leaves");
        let first = bind_unix(&path, 0o600, None).unwrap();
        let error = bind_unix(&path, 0o600, None).unwrap_err();
        assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("agent.sock"), "{error}");
        assert!(Probe::connect(&path).is_ok());
        drop(first);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        fs::write(&path, "mine").unwrap();
        assert!(bind_unix(&path, 0o600, None).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(bind_unix(&link, 0o600, None).is_err());
        assert!(bind_unix(&directory.path().join("missing/agent.sock"), 0o600, None).is_err());
    }

    #[tokio::test]
    async fn a_listener_does_not_remove_the_file_of_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let first = bind_unix(&path, 0o600, None).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind_unix(&path, 0o600, None).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_kernel_says_who_connects_and_others_are_hung_up_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let me = fs::metadata(directory.path()).unwrap().uid();
        let listener = bind_unix(&path, 0o600, Some(BTreeSet::from([me]))).unwrap();
        let (_client, accepted) = (Probe::connect(&path).unwrap(), listener.accept().await.unwrap());
        assert_eq!((accepted.1.uid, accepted.1.pid), (me, i32::try_from(std::process::id()).ok()));
        drop(listener);

        let listener = bind_unix(&path, 0o600, Some(BTreeSet::from([me + 1]))).unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        let mut answer = Vec::new();
        let hung_up = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer);
        tokio::select! {
            accepted = listener.accept() => panic!("{accepted:?}"),
            read = hung_up => assert_eq!(read.unwrap(), 0),
        }
    }
}
