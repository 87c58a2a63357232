//! Files that may change while a process runs: what shows that one did, and the task that looks. No request looks at a
//! file by itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::Tasks;

/// What was written less than this ago may be written again without another time to show it: file systems count in
/// ticks, and some in seconds.
const UNSETTLED: SignedDuration = SignedDuration::from_secs(2);

/// What shows that a file may have changed: its inode, size and times. A change of mode or owner is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file that `path` leads to; `None` where there is none, or it cannot be looked at.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    /// Whether every change from `now` on will show.
    #[must_use]
    pub fn is_settled(&self, now: Timestamp) -> bool {
        Timestamp::from_second(self.changed.0).is_ok_and(|changed| now.duration_since(changed) > UNSETTLED)
    }
}

/// Looks every so often, on a thread that may block, until shutdown begins. A look that takes long puts off the next.
pub fn keep_looking(tasks: &Tasks, name: &'static str, every: Duration, look: impl Fn() + Send + Sync + 'static) {
    let (tasks, look) = (tasks.clone(), Arc::new(look));
    tasks.clone().spawn(name, async move {
        let soft = tasks.shutdown_token();
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = soft.cancelled() => return,
            }
            let looking = Arc::clone(&look);
            if tasks.spawn_blocking(name, move || looking()).join().await.is_err() {
                tracing::debug!(name, "a look at files did not end by itself");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_shows_and_what_may_yet_change_unseen_is_not_settled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(Stamp::of(&path), None);
        fs::write(&path, "one").unwrap();
        let first = Stamp::of(&path).unwrap();
        assert_eq!(Stamp::of(&path), Some(first));
        let now = crate::clock::now();
        assert!(!first.is_settled(now) && first.is_settled(now + SignedDuration::from_secs(4)));
        fs::write(directory.path().join("next"), "two").unwrap();
        fs::rename(directory.path().join("next"), &path).unwrap();
        let second = Stamp::of(&path).unwrap();
        assert_ne!(second, first);
        // Within one tick of the clock of the file system nothing may show.
        std::thread::sleep(Duration::from_millis(20));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_ne!(Stamp::of(&path), Some(second));
    }
}
