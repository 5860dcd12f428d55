//! Samples in pieces that are unpacked as a whole, such as a group of rows of a Parquet file of another program.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use futures::{FutureExt, lock};

use crate::store::{ByteWindow, ObjectName, Store, StoreError};

/// Bytes of unpacked pieces that are kept for the next reader; a larger piece is kept alone.
pub(super) const KEPT_BYTES_MAX: u64 = 256 << 20;

/// A piece that is unpacked while others are waits for its turn where it is larger than this.
const LARGE_BYTES: u64 = 16 << 20;

/// Rows of so many bytes are read alone from a disk.
const READ_ALONE_BYTES: u64 = 8 << 10;

/// Bytes that a piece may have, unpacked.
pub(super) const PIECE_BYTES_MAX: u64 = 2 << 30;

/// How the bytes of a piece become its rows.
pub(super) trait Unpack: Send + Sync + fmt::Debug {
    /// The rows of the piece, or why it has none, in one line.
    fn unpack(&self, bytes: Bytes) -> Result<Unpacked, String>;

    /// Where each row lies in the object, where it lies there as it is, so that it can be read alone.
    fn places<'a>(&'a self, _: &'a mut ByteWindow<'_>) -> BoxFuture<'a, Result<Option<Places>, StoreError>> {
        ready(Ok(None)).boxed()
    }
}

/// Where each row lies in an object; `None` for a row without an image.
pub(super) type Places = Vec<Option<Range<u64>>>;

/// The rows of a piece.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) bytes: Bytes,
    /// Where each row lies among the bytes; `None` for a row without an image.
    pub(super) rows: Vec<Option<Range<usize>>>,
}

/// A range of the bytes of an object that holds several samples.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) object: ObjectName,
    /// Its bytes in the object.
    pub(super) range: Range<u64>,
    /// Its samples.
    pub(super) rows: u32,
    /// The number of the first of them in the object.
    first_row: u64,
    /// Bytes of its samples, unpacked, as far as is known before.
    pub(super) unpacked_bytes: u64,
    unpack: Box<dyn Unpack>,
    /// Where its rows lie in the object, once that was looked for; `None` where they do not lie there as they are.
    places: OnceLock<Option<Places>>,
    /// Why it cannot be unpacked, once that was tried.
    damage: OnceLock<String>,
    /// One reader unpacks it, and others wait for that.
    turn: lock::Mutex<()>,
    shelf: Arc<Shelf>,
    /// Its number on the shelf.
    number: u64,
}

/// The pieces of one catalog that were unpacked last.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The one that was used last comes last.
    kept: Mutex<VecDeque<(u64, Arc<Unpacked>)>>,
    /// Whoever unpacks a large piece.
    large: lock::Mutex<()>,
    /// Pieces that were made.
    made: AtomicU64,
}

impl Piece {
    /// A piece whose unpacked rows stand on `shelf`: those of these numbers in the object, fewer than 2³².
    pub(super) fn new(
        object: ObjectName,
        range: Range<u64>,
        rows: Range<u64>,
        unpacked_bytes: u64,
        unpack: Box<dyn Unpack>,
        shelf: &Arc<Shelf>,
    ) -> Arc<Piece> {
        let number = shelf.made.fetch_add(1, Ordering::Relaxed);
        let (places, damage, turn) = (OnceLock::new(), OnceLock::new(), lock::Mutex::default());
        let (first_row, rows) = (rows.start, (rows.end - rows.start) as u32);
        Arc::new(Piece {
            object,
            range,
            rows,
            first_row,
            unpacked_bytes,
            unpack,
            places,
            damage,
            turn,
            shelf: shelf.clone(),
            number,
        })
    }

    /// Its samples, in their order.
    pub(super) fn samples(self: &Arc<Piece>) -> impl Iterator<Item = PackedRow> + '_ {
        (0..self.rows).map(|row| PackedRow { piece: self.clone(), row })
    }

    async fn unpacked(self: &Arc<Piece>, store: &Store) -> Result<Arc<Unpacked>, StoreError> {
        if let Some(found) = self.shelf.find(self.number) {
            return Ok(found);
        }
        if let Some(reason) = self.damage.get() {
            return Err(self.refuse(store, reason));
        }
        let _turn = self.turn.lock().await;
        if let Some(found) = self.shelf.find(self.number) {
            return Ok(found);
        }
        let _large = match self.unpacked_bytes > LARGE_BYTES {
            true => Some(self.shelf.large.lock().await),
            false => None,
        };
        let bytes = store.read_exactly(&self.object, self.range.clone()).await?;
        self.look_for_places(&mut ByteWindow::held(self.range.start, bytes.clone())).await?;
        let unpacked = self.unpack.unpack(bytes).and_then(|unpacked| match unpacked.rows.len() {
            n if n == self.rows as usize => Ok(unpacked),
            n => Err(format!("{n} rows were found where {} were promised", self.rows)),
        });
        let unpacked = unpacked.map_err(|reason| {
            let reason = self.damage.get_or_init(|| reason);
            self.refuse(store, reason)
        });
        let unpacked = Arc::new(unpacked?);
        self.shelf.keep(self.number, unpacked.clone());
        Ok(unpacked)
    }

    /// Where its rows lie, where that is known or can be found on a disk by a few bytes at a time. Small rows come faster
    /// together.
    async fn places(&self, store: &Store) -> Result<Option<&Places>, StoreError> {
        if let Some(places) = self.places.get() {
            return Ok(places.as_ref());
        }
        let mean_bytes = self.unpacked_bytes / u64::from(self.rows.max(1));
        if store.local_root().is_none() || mean_bytes < READ_ALONE_BYTES {
            return Ok(None);
        }
        let _turn = self.turn.lock().await;
        self.look_for_places(&mut ByteWindow::new(store, &self.object, self.range.end)).await
    }

    async fn look_for_places(&self, window: &mut ByteWindow<'_>) -> Result<Option<&Places>, StoreError> {
        if self.places.get().is_none() {
            let places = self.unpack.places(window).await?;
            // Another reader may have been as fast, and found the same.
            let _ = self.places.set(places.filter(|places| places.len() == self.rows as usize));
        }
        Ok(self.places.get().and_then(Option::as_ref))
    }

    fn refuse(&self, store: &Store, reason: &str) -> StoreError {
        StoreError::LeaveOut(format!("cannot read {}: {reason}", store.name(&self.object.printable())))
    }
}

impl Shelf {
    fn find(&self, piece: u64) -> Option<Arc<Unpacked>> {
        let mut kept = self.kept.lock().expect("no holder panics");
        let at = kept.iter().position(|(other, _)| *other == piece)?;
        let found = kept.remove(at)?;
        let unpacked = found.1.clone();
        kept.push_back(found);
        Some(unpacked)
    }

    fn keep(&self, piece: u64, unpacked: Arc<Unpacked>) {
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.push_back((piece, unpacked));
        let mut bytes: u64 = kept.iter().map(|(_, unpacked)| unpacked.bytes.len() as u64).sum();
        while bytes > KEPT_BYTES_MAX && kept.len() > 1 {
            bytes -= kept.pop_front().map_or(0, |(_, unpacked)| unpacked.bytes.len() as u64);
        }
    }
}

/// The most memory that these pieces take while they are read, bytes: those that are kept, and one that is unpacked.
pub(super) fn bytes_max<'a>(pieces: impl Iterator<Item = &'a Arc<Piece>>) -> u64 {
    let (mut sum, mut largest, mut last) = (0_u64, 0, None);
    for piece in pieces {
        // Samples of one piece follow each other.
        if last != Some(piece.number) {
            last = Some(piece.number);
            sum = sum.saturating_add(piece.unpacked_bytes);
            largest = largest.max(piece.unpacked_bytes.saturating_add(piece.range.end - piece.range.start));
        }
    }
    sum.min(KEPT_BYTES_MAX) + largest
}

/// One sample of a piece.
#[derive(Clone, Debug)]
pub(super) struct PackedRow {
    piece: Arc<Piece>,
    row: u32,
}

/// The same row of the same bytes.
impl PartialEq for PackedRow {
    fn eq(&self, other: &PackedRow) -> bool {
        let of = |row: &PackedRow| (row.piece.object.clone(), row.piece.range.clone(), row.row);
        of(self) == of(other)
    }
}

impl Eq for PackedRow {}

impl PackedRow {
    pub(super) fn object(&self) -> &ObjectName {
        &self.piece.object
    }

    pub(super) fn piece(&self) -> &Arc<Piece> {
        &self.piece
    }

    /// Its number in the object, counted from 0.
    pub(super) fn number(&self) -> u64 {
        self.piece.first_row + u64::from(self.row)
    }

    pub(super) fn mean_bytes(&self) -> u64 {
        self.piece.unpacked_bytes / u64::from(self.piece.rows.max(1))
    }

    /// Reads the row alone where its place is known, and the piece otherwise. The row is a copy: it holds no piece.
    pub(super) async fn read(&self, store: &Store) -> Result<Bytes, StoreError> {
        let row = self.row as usize;
        let missing = || {
            self.piece.refuse(
                store,
                &format!(
                    "row {row} of its group holds no bytes of an image, but at most the name of its file"
                ),
            )
        };
        if let Some(unpacked) = self.piece.shelf.find(self.piece.number) {
            let range = unpacked.rows[row].clone().ok_or_else(missing)?;
            return Ok(Bytes::copy_from_slice(&unpacked.bytes[range]));
        }
        if let Some(places) = self.piece.places(store).await? {
            let range = places[row].clone().ok_or_else(missing)?;
            return store.read_exactly(&self.piece.object, range).await;
        }
        let unpacked = self.piece.unpacked(store).await?;
        let range = unpacked.rows[row].clone().ok_or_else(missing)?;
        Ok(Bytes::copy_from_slice(&unpacked.bytes[range]))
    }
}
