//! The `ledger` section of the configuration, and the settings it becomes.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use model::duration::ConfigDuration;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{ShipConfig, record::Started};

/// Where the ledger is kept, and how it is cut into segments.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// The ledger's directory, private to the process. Created when absent. One process writes it.
    pub dir: PathBuf,
    /// The file of the Ed25519 key that signs heads (PKCS#8 PEM, mode 0600). Created when absent; `ledger.key` beside
    /// `dir` by default, outside it, so that whoever may read or copy the ledger does not get the key with it.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The size in bytes at which a segment is sealed and the next one begun.
    #[serde(default = "default_segment_max_bytes")]
    pub segment_max_bytes: u64,
    /// The age at which a segment is sealed and the next one begun.
    #[serde(default = "default_segment_max_age")]
    pub segment_max_age: ConfigDuration,
    /// How long after its last record a sealed segment is compressed (gzip). `null`: never. Everything that reads the
    /// ledger reads compressed segments too.
    #[serde(default = "default_compress_after")]
    pub compress_after: Option<ConfigDuration>,
    /// How long records are kept. Without it, for ever.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// Ships what a sidecar records to the authority that it is enrolled at, so that it outlives this machine. Write `{}`
    /// for the usual bounds. Without it, only the ledger's signed heads go there.
    #[serde(default)]
    pub ship: Option<ShipConfig>,
}

/// What is kept. The oldest sealed segment goes first, and only after a signed record says so; the segment that is
/// being written always stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// The age of its last record at which a segment goes.
    #[serde(default)]
    pub max_age: Option<ConfigDuration>,
    /// The size in bytes that the ledger is kept below, on the disk, compressed segments as they are.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}

fn default_compress_after() -> Option<ConfigDuration> {
    Some(ConfigDuration::seconds(24 * 60 * 60))
}

fn default_segment_max_bytes() -> u64 {
    64 * 1024 * 1024
}

fn default_segment_max_age() -> ConfigDuration {
    ConfigDuration::seconds(24 * 60 * 60)
}

/// What a ledger is opened with.
#[derive(Clone)]
pub struct LedgerSettings {
    /// The directory.
    pub dir: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// When a segment is sealed by size, in bytes.
    pub segment_max_bytes: u64,
    /// When a segment is sealed by age.
    pub segment_max_age: Duration,
    /// How long after its last record a sealed segment is compressed; `None`: never.
    pub compress_after: Option<Duration>,
    /// What is kept.
    pub retention: RetentionConfig,
    /// How often the keeper looks for what there is to do.
    pub keeper_interval: Duration,
    /// The longest time between an append and a signed head that covers it.
    pub head_interval: Duration,
    /// How many records may wait; further callers wait for room.
    pub queue: usize,
    /// Bytes kept free on the disk, so that a full one still lets the ledger stop cleanly.
    pub reserve_bytes: u64,
    /// Who opens it: the first record.
    pub started: Started,
    /// Is told how long each fsync took.
    pub fsync_observer: Option<FsyncObserver>,
}

/// Is told how long each fsync took; called on the writer's thread, so it must not block.
pub type FsyncObserver = Arc<dyn Fn(Duration) + Send + Sync>;

impl LedgerConfig {
    /// Where the key lies.
    pub fn key_file(&self) -> PathBuf {
        self.key.clone().unwrap_or_else(|| self.dir.with_file_name("ledger.key"))
    }

    /// The settings, with `dir` and `key` as they are; relative paths are relative to the process.
    pub fn resolve(self, started: Started) -> LedgerSettings {
        LedgerSettings {
            key: self.key_file(),
            segment_max_bytes: self.segment_max_bytes,
            segment_max_age: self.segment_max_age.0,
            compress_after: self.compress_after.map(|after| after.0),
            retention: self.retention,
            ..LedgerSettings::new(self.dir, started)
        }
    }
}

impl LedgerSettings {
    /// The defaults, for a ledger in `dir` with its key beside it.
    pub fn new(dir: PathBuf, started: Started) -> Self {
        Self {
            key: dir.with_file_name("ledger.key"),
            dir,
            segment_max_bytes: default_segment_max_bytes(),
            segment_max_age: default_segment_max_age().0,
            compress_after: None,
            retention: RetentionConfig::default(),
            keeper_interval: Duration::from_secs(1),
            head_interval: Duration::from_secs(1),
            queue: 4096,
            reserve_bytes: 1024 * 1024,
            started,
            fsync_observer: None,
        }
    }
}

impl fmt::Debug for LedgerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerSettings").field("dir", &self.dir).field("key", &self.key).finish_non_exhaustive()
    }
}
