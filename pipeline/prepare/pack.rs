//! Stored images to shards in the store, while they come: one row group is held, however large a shard is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use forebay_datasets::formats::{self, DatasetFormat, FileWriter};
use forebay_datasets::manifest::ShardRecord;
use forebay_datasets::sample::Sample;
use forebay_datasets::shard::{self, Footer, ROWS_PER_GROUP, Reject, Row};
use forebay_datasets::store::{Store, Upload};
use forebay_stages::encode::Stored;

use crate::flow::{Chunk, Error, kill_point};
use crate::plan::{PlannedShard, PreparePlan};

/// Bytes of a shard that are done.
pub(super) struct Piece {
    key: String,
    bytes: Bytes,
    /// What the shard is, with its last piece.
    last: Option<(ShardRecord, Footer)>,
}

/// Encodes the shards of a plan one after the other, from their samples in planned order.
pub(super) struct Packer {
    plan: Arc<PreparePlan>,
    /// The open one first.
    shards: VecDeque<PlannedShard>,
    open: Option<OpenShard>,
}

/// A shard that is being encoded.
struct OpenShard {
    writer: FileWriter,
    /// Planned rows that have arrived, as images or as tombstones.
    place: usize,
    holes: Vec<usize>,
    rejects: Vec<Reject>,
    rejected: BTreeSet<Arc<str>>,
    /// Of all pieces so far.
    bytes: u64,
    digest: blake3::Hasher,
}

impl Packer {
    pub(super) fn new(plan: Arc<PreparePlan>, shards: &[PlannedShard]) -> Packer {
        Packer { plan, shards: shards.iter().copied().filter(|shard| shard.rows > 0).collect(), open: None }
    }

    /// What of the shards is done with these samples.
    ///
    /// # Errors
    /// When an image cannot be a value of a shard.
    pub(super) fn push(&mut self, samples: Chunk<Stored>) -> Result<Vec<Piece>, Error> {
        let mut pieces = Vec::new();
        for sample in samples {
            self.push_one(sample, &mut pieces)?;
        }
        Ok(pieces)
    }

    fn push_one(&mut self, sample: Sample<Stored>, pieces: &mut Vec<Piece>) -> Result<(), Error> {
        let shard = *self.shards.front().expect("no more samples than planned");
        let key = shard.key();
        let failed = |error| Error::failed(format!("encode {key}"), error);
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(OpenShard {
                writer: self.plan.shard_writer(&shard).map_err(failed)?,
                place: 0,
                holes: Vec::new(),
                rejects: Vec::new(),
                rejected: BTreeSet::new(),
                bytes: 0,
                digest: blake3::Hasher::new(),
            }),
        };
        match sample.payload {
            Ok(stored) => {
                let row = Row {
                    bytes: stored.bytes,
                    label: sample.label,
                    id: sample.id,
                    copy: sample.copy,
                    size: (stored.width, stored.height),
                    original_size: stored.original.size,
                    extension: stored.extension,
                    provenance: self.plan.provenance(&shard, open.place, stored.original.blake3),
                };
                open.writer.push(row).map_err(failed)?;
            }
            Err(fault) => {
                open.holes.push(open.place);
                if open.rejected.insert(sample.id.clone()) {
                    open.rejects.push(Reject::new(&sample.id, &fault));
                }
            }
        }
        open.place += 1;
        let is_last = open.place == shard.rows;
        if is_last || open.place % ROWS_PER_GROUP == 0 {
            open.writer.end_group().map_err(failed)?;
        }
        let bytes = open.writer.take().map_err(failed)?;
        if !bytes.is_empty() {
            open.count(&bytes);
            pieces.push(Piece { key: key.clone(), bytes, last: None });
        }
        if is_last {
            let open = self.open.take().expect("it is open");
            self.shards.pop_front();
            pieces.push(open.end(&self.plan, &shard)?);
        }
        Ok(())
    }
}

impl OpenShard {
    fn count(&mut self, bytes: &Bytes) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn end(mut self, plan: &PreparePlan, shard: &PlannedShard) -> Result<Piece, Error> {
        let key = shard.key();
        let footer = Footer {
            fingerprint: plan.shard_plan(shard).fingerprint.clone(),
            holes: std::mem::take(&mut self.holes),
            rejects: std::mem::take(&mut self.rejects),
            ..Footer::of(shard.split, shard.index)
        };
        let OpenShard { writer, bytes: before, mut digest, .. } = self;
        let (bytes, footer) =
            writer.finish(footer).map_err(|error| Error::failed(format!("encode {key}"), error))?;
        digest.update(&bytes);
        let record = ShardRecord {
            key: key.clone(),
            split: footer.split,
            fingerprint: footer.fingerprint.clone(),
            bytes: before + bytes.len() as u64,
            blake3: digest.finalize().to_hex().to_string(),
            groups: footer.groups.clone(),
            index: (shard.format == DatasetFormat::Parquet).then(|| shard::packed_index(&bytes)),
        };
        Ok(Piece { key, bytes, last: Some((record, footer)) })
    }
}

/// Puts shards piece by piece, one after the other.
pub(super) struct Writer {
    store: Store,
    open: Option<Upload>,
}

impl Writer {
    pub(super) fn new(store: Store) -> Writer {
        Writer { store, open: None }
    }

    /// Writes the pieces, and says which shards are whole with them.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn write(&mut self, pieces: Vec<Piece>) -> Result<Vec<(ShardRecord, Footer)>, Error> {
        let mut whole = Vec::new();
        for Piece { key, bytes, last } in pieces {
            let upload = match &mut self.open {
                Some(upload) => upload,
                none => none.insert(self.store.upload(&key)?),
            };
            upload.write(bytes).await?;
            if let Some((record, footer)) = last {
                if let Some(record_key) = formats::record_key(&key) {
                    // Before the shard is there, so that no shard is there of which nobody could say what it is.
                    self.store.put(&record_key, formats::to_record(&footer).into()).await?;
                }
                self.open.take().expect("it is open").finish().await?;
                tracing::debug!(key, bytes = record.bytes, "shard written");
                kill_point("prepare: between shards");
                whole.push((record, footer));
            }
        }
        Ok(whole)
    }
}
