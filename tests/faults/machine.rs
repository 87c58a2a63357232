//! A machine that misbehaves on demand: file systems of a test's own, and a disk and a clock that can be steered.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::support::{process, root, sidecar::Setup, skipped};

/// `EIO`.
pub(super) const EIO: i32 = 5;
/// `EROFS`.
pub(super) const EROFS: i32 = 30;

/// A small file system in memory. Gone with the value.
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `size` (`8m`) at `path`, a directory that is made first. Not without root.
    pub(super) fn at(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "countersign-test"]).arg(path);
        if !process::is_root() || !mount.status().is_ok_and(|status| status.success()) {
            skipped("small disk", "only root can mount a file system");
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached at once, whoever still has files open there.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

/// The disk and the clock of one sidecar, as tests/parts/faults/faults.c has them.
pub(crate) struct Steered(File);

impl Steered {
    /// Those of the sidecar that `setup` is about to start.
    pub(crate) fn of(setup: &mut Setup) -> Self {
        let path = setup.directory().join("faults");
        let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        file.set_len(64).unwrap();
        let library = library().to_str().unwrap().to_owned();
        setup.environment.push(("LD_PRELOAD".to_owned(), library));
        setup.environment.push(("FAULTS_FILE".to_owned(), path.to_str().unwrap().to_owned()));
        Self(file)
    }

    /// Moves the clock by so many milliseconds from the true time.
    pub(crate) fn clock(&self, milliseconds: i64) {
        self.0.write_all_at(&milliseconds.to_ne_bytes(), 0).unwrap();
    }

    /// Lets each fsync take so many milliseconds.
    pub(super) fn sync_takes(&self, milliseconds: i32) {
        self.0.write_all_at(&milliseconds.to_ne_bytes(), 8).unwrap();
    }

    /// Lets each fsync fail; with 0 none.
    pub(super) fn sync_fails(&self, error: i32) {
        self.0.write_all_at(&error.to_ne_bytes(), 12).unwrap();
    }

    /// Lets each write to the ledger's files fail; with 0 none.
    pub(super) fn write_fails(&self, error: i32) {
        self.0.write_all_at(&error.to_ne_bytes(), 16).unwrap();
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("faults.so");
        let source = root().join("tests/parts/faults/faults.c");
        let status = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).status();
        assert!(status.expect("a C compiler, which Rust needs too").success());
        (directory, path)
    });
    path
}
