//! Compressing one file: made beside it, read back, put in its place, and only then is the original removed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};

use crate::{
    chain::{Hash, Hashing},
    files,
    log::Shared,
    stored::{self, in_making, packed},
};

const CHUNK: usize = 128 * 1024;

/// For each moment of work so many of rest: a quarter of a core at most, however many are free.
const REST: u32 = 3;

/// How fast the keeper works, and whether it is to go on.
pub(crate) struct Pace {
    shared: Arc<Shared>,
}

impl Pace {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// Rests after work that took so long. An error once the ledger is being closed.
    pub(crate) fn breathe(&self, worked: Duration) -> io::Result<()> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the ledger is being closed"));
        }
        std::thread::sleep(worked * REST);
        Ok(())
    }
}

/// Compresses `path`. Whatever step is the last before a crash, one whole form is there.
pub(crate) fn compress(path: &Path, pace: &Pace) -> io::Result<()> {
    pack(path, pace)?;
    take_place(&packed(path))?;
    std::fs::remove_file(path)?;
    files::sync_parent(path)
}

/// Makes the compressed form under a name that nobody reads, durably, and reads it back.
pub(crate) fn pack(path: &Path, pace: &Pace) -> io::Result<()> {
    let target = in_making(&packed(path));
    stored::remove_if_there(&target)?;
    has_room_beside(path)?;
    pack_to(&target, path, pace).inspect_err(|_| discard(&target))
}

/// What is made beside a file must not take the room that the writer needs.
pub(crate) fn has_room_beside(path: &Path) -> io::Result<()> {
    let needed = path.metadata()?.len().saturating_mul(2);
    let free = path.parent().and_then(files::disk_free);
    if free.is_none_or(|free| free >= needed) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::StorageFull, "the disk has no room for what is to take its place"))
}

/// Half of something is worth nothing, and takes room.
pub(crate) fn discard(path: &Path) {
    if let Err(error) = stored::remove_if_there(path) {
        tracing::warn!(path = %path.display(), %error, "what was not finished could not be removed");
    }
}

fn pack_to(target: &Path, path: &Path, pace: &Pace) -> io::Result<()> {
    let mut source = BufReader::with_capacity(CHUNK, File::open(path)?);
    // Fast: most of what is here are hashes and salts, which no effort makes smaller.
    let mut encoder = GzEncoder::new(files::create_new(target)?, Compression::fast());
    let wanted = drain(&mut source, pace, |chunk| encoder.write_all(chunk))?;
    encoder.finish()?.sync_all()?;
    let decoder = MultiGzDecoder::new(BufReader::with_capacity(CHUNK, File::open(target)?));
    let read_back = drain(&mut BufReader::with_capacity(CHUNK, decoder), pace, |_| Ok(()))?;
    if read_back == wanted { Ok(()) } else { Err(io::Error::other("what was compressed did not read back as it was")) }
}

/// Gives what was made for `path` its name.
pub(crate) fn take_place(path: &Path) -> io::Result<()> {
    std::fs::rename(in_making(path), path)?;
    files::sync_parent(path)
}

/// Reads all of `source`, a piece at a time, and returns its hash.
fn drain<R: Read>(
    source: &mut BufReader<R>,
    pace: &Pace,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Hash> {
    let mut hashing = Hashing::new();
    loop {
        let before = net::clock::monotonic();
        let chunk = source.fill_buf()?;
        if chunk.is_empty() {
            return Ok(hashing.finish());
        }
        hashing.update(chunk);
        each(chunk)?;
        let length = chunk.len();
        source.consume(length);
        pace.breathe(net::clock::monotonic().saturating_duration_since(before))?;
    }
}
