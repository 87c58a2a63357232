//! Unix sockets: a file that says who may connect, and a kernel that says who did.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::{UnixListener as Socket, UnixStream};

use super::ListenError;
use crate::peer::PeerCredentials;

/// The user that the kernel reports where it cannot say who it is: somebody of a user namespace that we do not see.
const OVERFLOW_UID: u32 = 65_534;

/// Names for a private directory that are tried.
const NAMES: u32 = 8;

/// A bound Unix socket. Its file is removed when this is dropped, unless another process has taken the path since.
#[derive(Debug)]
pub struct UnixListener {
    socket: Socket,
    path: PathBuf,
    identity: (u64, u64),
    allowed: Option<BTreeSet<u32>>,
    /// See [`OVERFLOW_UID`].
    nobody: u32,
}

/// Binds `path`. The file gets `mode` before anybody can connect; of those who can, only processes of the users
/// in `allowed` are served, where that is given, and never one of whom the kernel cannot say who it is. A socket file
/// that nobody listens on any more is replaced.
///
/// # Errors
/// When somebody listens there, when the path is taken by something that is no socket or is not ours to write, or when
/// somebody else could put another socket in its place.
pub fn bind_unix(path: &Path, mode: u32, allowed: Option<BTreeSet<u32>>) -> Result<UnixListener, ListenError> {
    let failed = |cause| ListenError { address: path.display().to_string(), cause };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    check_directory(parent).map_err(failed)?;
    check_free(path).map_err(failed)?;
    let (socket, identity) = placed(parent, path, mode).map_err(failed)?;
    let nobody = fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok());
    Ok(UnixListener { socket, path: path.to_owned(), identity, allowed, nobody: nobody.unwrap_or(OVERFLOW_UID) })
}

/// Whoever may write to the directory, or to one above it, could put a socket of their own where agents look for ours.
/// Above it, a sticky bit keeps what is in it with its owner (`/tmp`).
fn check_directory(directory: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let directory = fs::canonicalize(directory)?;
    for (above, ancestor) in directory.ancestors().enumerate() {
        let metadata = fs::metadata(ancestor)?;
        let kept = above > 0 && metadata.mode() & 0o1000 != 0;
        let others = metadata.mode() & 0o022 != 0 && !kept;
        if others || (metadata.uid() != 0 && metadata.uid() != own) {
            let path = ancestor.display();
            let problem = format!("others may write to {path}, and could put their own socket here: chmod go-w {path}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
    }
    Ok(())
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
    // Without waiting: whoever does not take connections from its queue listens nevertheless.
    let probe =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => Ok(()),
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Binds in a directory that only we can enter, sets the mode there and then moves the socket to its place: there is
/// no moment at which somebody can connect whom the mode keeps out.
fn placed(parent: &Path, path: &Path, mode: u32) -> io::Result<(Socket, (u64, u64))> {
    let private = private_directory(parent)?;
    let inside = private.join("s");
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

/// Nobody knows its name before, also not one who was killed here. It is short, because the path of a socket is.
fn private_directory(parent: &Path) -> io::Result<PathBuf> {
    for attempt in 1.. {
        let mut random = [0; 3];
        rand::fill(&mut random).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let [a, b, c] = random;
        let private = parent.join(format!(".{a:02x}{b:02x}{c:02x}"));
        match DirBuilder::new().mode(0o700).create(&private) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < NAMES => {}
            created => return created.map(|()| private),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
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
            let known = peer.uid != self.nobody;
            if known && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&peer.uid)) {
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
    use std::os::unix::net::UnixStream as Probe;

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

    #[tokio::test]
    async fn a_peer_of_whom_the_kernel_cannot_say_who_it_is_is_hung_up_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let me = fs::metadata(directory.path()).unwrap().uid();
        for allowed in [None, Some(BTreeSet::from([me]))] {
            let mut listener = bind_unix(&path, 0o600, allowed).unwrap();
            assert_ne!(listener.nobody, 0);
            // As if this machine had our own number for users it cannot name.
            listener.nobody = me;
            let mut client = UnixStream::connect(&path).await.unwrap();
            let mut answer = Vec::new();
            tokio::select! {
                accepted = listener.accept() => panic!("{accepted:?}"),
                read = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer) => assert_eq!(read.unwrap(), 0),
            }
        }
    }

    #[tokio::test]
    async fn where_others_could_put_their_own_socket_there_is_none() {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("agent.sock");
        let bind = || bind_unix(&path, 0o600, None);
        let set = |path: &Path, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        // What is above may be everybody's where what is in it stays its owner's.
        for (outer_mode, inner_mode, good) in [
            (0o755, 0o755, true),
            (0o1777, 0o750, true),
            (0o777, 0o755, false),
            (0o770, 0o755, false),
            (0o755, 0o775, false),
            (0o755, 0o757, false),
            (0o755, 0o1777, false),
        ] {
            set(outer.path(), outer_mode);
            set(&inner, inner_mode);
            match bind() {
                Ok(_) => assert!(good, "{outer_mode:o} {inner_mode:o}"),
                Err(error) => {
                    assert!(!good, "{outer_mode:o} {inner_mode:o}: {error}");
                    assert_eq!(error.cause.kind(), io::ErrorKind::PermissionDenied);
                    assert!(error.to_string().contains("chmod go-w"), "{error}");
                }
            }
            assert_eq!(fs::read_dir(&inner).unwrap().count(), 0, "nothing is left");
        }
        // A link leads to a directory; that one counts.
        set(outer.path(), 0o755);
        set(&inner, 0o777);
        let link = outer.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        assert!(bind_unix(&link.join("agent.sock"), 0o600, None).is_err());
    }

    #[test]
    fn one_who_takes_no_connections_listens_nevertheless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        // The queue holds one; a second would wait for ever.
        let _queued = Probe::connect(&path).unwrap();
        for _ in 0..3 {
            assert_eq!(check_free(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
