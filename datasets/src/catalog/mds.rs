//! MosaicML Streaming's shards (MDS): `index.json` beside `shard.00000.mds`.
//!
//! A shard is the number of its samples, where each begins and where the last ends (u32, from the start of the file), the
//! columns as JSON, and the samples. A sample is the sizes (u32) of those of its columns whose encoding has none, and then
//! its columns, in the order of the index.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::gathered::{FoundSample, Gathered, broken, class_name, id_of_copy, split_of_path};
use super::kept;
use super::listing::File;
use super::packed::{PIECE_BYTES_MAX, Piece, Shelf, Unpack, Unpacked};
use super::pixels::{PixelOrder, RawPixels};
use super::rows;
use super::table::LABEL_COLUMNS;
use super::{
    Layout, LayoutKind, LayoutOptions, Locator, Misfit, NamedColumns, Reading, Source, SourceContents,
};
use crate::columns::Value;
use crate::escape::{escape_text, one_line};
use crate::store::{ByteWindow, StoreError};
use crate::words::few;

/// Bytes of an index.
const INDEX_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a label or an id.
const VALUE_BYTES_MAX: u64 = 64 << 10;

/// Encodings of image files, and of pixels with their size before them.
const IMAGE_ENCODINGS: [&str; 4] = ["jpeg", "png", "pil", "bytes"];

/// Columns of classes' names, before those that may hold numbers.
const NAME_COLUMNS: [&str; 2] = ["class_name", "label_name"];

/// Shards of samples with columns.
pub(super) struct Mds;

impl Layout for Mds {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Mds
    }

    fn looks_for(&self) -> &'static str {
        "index.json beside the .mds shards that it names (MosaicML Streaming)"
    }

    fn finds(&self, source: &Source<'_>) -> Option<String> {
        let indexes = indexes(source);
        let names: Vec<&str> = indexes.iter().map(|file| &*file.id).collect();
        (!names.is_empty()).then(|| few(&names))
    }

    fn columns(&self) -> NamedColumns {
        NamedColumns::ALL
    }

    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a> {
        Box::pin(read(source))
    }
}

/// The indexes that have a shard beside them.
fn indexes<'a>(source: &Source<'a>) -> Vec<&'a File> {
    fn folder(file: &File) -> &str {
        file.id.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
    let with_shards: std::collections::HashSet<&str> =
        source.listing.files.iter().filter(|file| file.id.contains(".mds")).map(folder).collect();
    let is_index =
        |file: &&File| file.id.rsplit('/').next() == Some("index.json") && with_shards.contains(folder(file));
    source.files_called(&["json"]).into_iter().filter(is_index).collect()
}

#[derive(Deserialize)]
struct MdsIndex {
    version: u64,
    shards: Vec<MdsShard>,
}

#[derive(Deserialize)]
struct MdsShard {
    format: String,
    column_names: Vec<String>,
    column_encodings: Vec<String>,
    column_sizes: Vec<Option<u64>>,
    compression: Option<String>,
    raw_data: ShardFile,
    zip_data: Option<ShardFile>,
    samples: u64,
}

#[derive(Deserialize)]
struct ShardFile {
    basename: String,
    bytes: u64,
}

impl MdsShard {
    /// The file that holds it, and whether that is packed; else how it is packed, which is not read.
    fn file(&self) -> Result<(&ShardFile, bool), &str> {
        match (&self.compression, &self.zip_data) {
            (None, _) => Ok((&self.raw_data, false)),
            (Some(how), Some(file)) if how.split(':').next() == Some("zstd") => Ok((file, true)),
            (Some(how), _) => Err(how),
        }
    }
}

async fn read(source: &Source<'_>) -> Result<SourceContents, Misfit> {
    let mut found = Gathered::default();
    let shelf = Arc::new(Shelf::default());
    let mut n_shards = 0;
    let mut said = String::new();
    for file in indexes(source) {
        let odd = |what: &str| broken(format!("cannot read {}: {what}", source.name(file)));
        if file.bytes > INDEX_BYTES_MAX {
            return Err(odd("it is larger than any such index"));
        }
        let json = source.store.read_whole(&file.name, file.bytes).await?;
        let index: MdsIndex = serde_json::from_slice(&json)
            .map_err(|error| odd(&format!("it is no index of MDS: {}", one_line(&error.to_string()))))?;
        if index.version != 2 {
            return Err(odd(&format!("it is of version {}, and version 2 is read", index.version)));
        }
        found.splits.extend(split_of_path(&file.id));
        let folder = file.id.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        for shard in &index.shards {
            n_shards += 1;
            let (of_shard, is_packed) = shard.file().map_err(|how| {
                odd(&format!(
                    "{} is packed with {}, and zstd is read: write it with that, or without compression",
                    escape_text(&shard.raw_data.basename),
                    escape_text(how)
                ))
            })?;
            let path = format!("{folder}{}", escape_text(&of_shard.basename));
            if shard.format != "mds" {
                return Err(odd(&format!(
                    "{path} is of the format {}, and mds is read",
                    escape_text(&shard.format)
                )));
            }
            let there = source.listing.files.iter().find(|file| *file.id == *path && file.fault.is_none());
            let there = there.ok_or_else(|| odd(&format!("it names {path}, which is not there")))?;
            let columns = MdsColumns::of(shard, source.options).map_err(|why| odd(&why))?;
            said = columns.in_words(shard);
            let piece = match is_packed {
                true => Some(PackedShard::of(shard, &columns).piece(there, &shelf).map_err(|why| odd(&why))?),
                false => None,
            };
            samples(source, there, shard, &columns, piece, &mut found).await?;
        }
    }
    found.layout = format!("MDS, {n_shards} shards, {said}");
    found.kept_columns.clone_from(&source.options.keep_columns);
    found.into_contents()
}

/// The columns of a shard that are read, by their places.
struct MdsColumns {
    image: usize,
    label: Option<usize>,
    id: Option<usize>,
    copy: Option<usize>,
    kept: Vec<usize>,
}

impl MdsColumns {
    fn of(shard: &MdsShard, options: &LayoutOptions) -> Result<MdsColumns, String> {
        let MdsShard { column_names: names, column_encodings: encodings, column_sizes: sizes, .. } = shard;
        if names.len() != encodings.len() || names.len() != sizes.len() {
            return Err("its columns, encodings and sizes are not as many".to_string());
        }
        let having = || few(names);
        let called = |wanted: &str| names.iter().position(|name| name == wanted);
        let exactly = |wanted: &str| {
            called(wanted).ok_or_else(|| format!("has no column `{wanted}`; it has {}", having()))
        };
        let image = match &options.image_column {
            Some(name) => exactly(name)?,
            None => {
                let of_encoding = |wanted: &str| encodings.iter().position(|encoding| encoding == wanted);
                IMAGE_ENCODINGS.into_iter().find_map(of_encoding).ok_or_else(|| {
                    format!("has no column of images; it has {}: say which (--image-column)", having())
                })?
            }
        };
        if !IMAGE_ENCODINGS.contains(&&*encodings[image]) {
            return Err(format!(
                "holds its column `{}` as {}, and images are read as {}",
                names[image],
                escape_text(&encodings[image]),
                IMAGE_ENCODINGS.join(", ")
            ));
        }
        let is_label = |at: &usize| encodings[*at] == "str" || integer_bytes(&encodings[*at]).is_some();
        let label = match &options.label_column {
            Some(name) => Some(exactly(name)?),
            None => NAME_COLUMNS.into_iter().chain(LABEL_COLUMNS).find_map(called),
        };
        if let Some(at) = label.filter(|at| !is_label(at)) {
            return Err(format!(
                "holds its column `{}` as {}, which can be no class",
                names[at],
                escape_text(&encodings[at])
            ));
        }
        let kept = kept::places(names, options)?;
        let is_kept =
            |at: &usize| is_label(at) || float_bytes(&encodings[*at]).is_some() || encodings[*at] == "json";
        if let Some(at) = kept.iter().find(|at| !is_kept(at)) {
            return Err(format!(
                "holds its column `{}` as {}, and texts and numbers can be kept",
                names[*at],
                escape_text(&encodings[*at])
            ));
        }
        let id = called("id").filter(|at| encodings[*at] == "str");
        // As shards of Forebay have it beside the id.
        let copy = called("copy").filter(|at| id.is_some() && integer_bytes(&encodings[*at]).is_some());
        Ok(MdsColumns { image, label, id, copy, kept })
    }

    fn in_words(&self, shard: &MdsShard) -> String {
        let name = |at: usize| shard.column_names[at].as_str();
        match self.label {
            None => format!("images in `{}`, no labels", name(self.image)),
            Some(label) => format!("images in `{}` and labels in `{}`", name(self.image), name(label)),
        }
    }
}

/// The bytes of a number with a fraction of this encoding.
fn float_bytes(encoding: &str) -> Option<u64> {
    match encoding {
        "float32" => Some(4),
        "float64" => Some(8),
        _ => None,
    }
}

/// A text or a number by its encoding; else what is wrong with it, as it reads after its name.
fn value_of(bytes: &[u8], encoding: &str) -> Result<Value, String> {
    let size = bytes.len() as u64;
    match (integer_bytes(encoding), float_bytes(encoding)) {
        (Some((n, is_signed)), _) if n == size => {
            let mut number = [if is_signed && bytes[bytes.len() - 1] >= 0x80 { 0xff } else { 0 }; 16];
            number[..bytes.len()].copy_from_slice(bytes);
            let number = i128::from_le_bytes(number);
            Ok(i64::try_from(number).map_or_else(|_| Value::Text(number.to_string().into()), Value::Integer))
        }
        (_, Some(n)) if n == size => Ok(Value::Number(match bytes.try_into() {
            Ok(bytes) => f64::from(f32::from_le_bytes(bytes)),
            Err(_) => f64::from_le_bytes(bytes.try_into().expect("eight bytes")),
        })),
        (None, None) if encoding == "json" => match serde_json::from_slice(bytes) {
            Ok(json) => Ok(rows::value_of(Some(&json))),
            Err(_) => Err("is no JSON".to_string()),
        },
        (None, None) => match String::from_utf8(bytes.to_vec()) {
            Ok(text) => Ok(Value::Text(text.into())),
            Err(_) => Err("is no text".to_string()),
        },
        _ => Err("is of another size than its encoding".to_string()),
    }
}

/// The bytes of a whole number of this encoding, and whether it has a sign.
fn integer_bytes(encoding: &str) -> Option<(u64, bool)> {
    Some(match encoding {
        "int" | "int64" => (8, true),
        "int8" => (1, true),
        "int16" => (2, true),
        "int32" => (4, true),
        "uint8" => (1, false),
        "uint16" => (2, false),
        "uint32" => (4, false),
        "uint64" => (8, false),
        _ => return None,
    })
}

async fn samples(
    source: &Source<'_>,
    file: &File,
    shard: &MdsShard,
    columns: &MdsColumns,
    piece: Option<Arc<Piece>>,
    found: &mut Gathered,
) -> Result<(), Misfit> {
    let damaged = |what: &str| broken(format!("cannot read {}: {what}", source.name(file)));
    let (mut window, bytes) = match &piece {
        None => (ByteWindow::new(source.store, &file.name, file.bytes), file.bytes),
        Some(_) => {
            let packed = source.store.read_whole(&file.name, file.bytes).await?;
            let raw = unpacked(&packed, shard.raw_data.bytes).map_err(|what| damaged(&what))?;
            (ByteWindow::held(0, raw), shard.raw_data.bytes)
        }
    };
    let n = shard.samples;
    let table_bytes = table_bytes(n).filter(|table| *table <= bytes);
    let table_bytes = table_bytes.ok_or_else(|| damaged("it is shorter than its index says"))?;
    let table = match &piece {
        None => source.store.read_exactly(&file.name, 0..table_bytes).await?,
        Some(_) => window.at(0, table_bytes).await?,
    };
    let offsets = offsets(&table, n, bytes).map_err(damaged)?;
    let mut rows = piece.iter().flat_map(|piece| piece.samples());
    let n_sizes = shard.column_sizes.iter().filter(|size| size.is_none()).count() as u64;
    let split = split_of_path(&file.id);
    for (row, place) in offsets.windows(2).enumerate() {
        let id = format!("{}/{row:06}", file.id);
        let (start, end) = (place[0], place[1]);
        let cut = || damaged(&format!("sample {row} is shorter than its columns"));
        if end - start < 4 * n_sizes {
            return Err(cut());
        }
        let sizes = window.at(start, 4 * n_sizes).await?;
        let mut sizes =
            sizes.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")));
        let mut at = start + 4 * n_sizes;
        let mut places = Vec::with_capacity(shard.column_sizes.len());
        for size in &shard.column_sizes {
            let size = size.unwrap_or_else(|| sizes.next().map_or(0, u64::from));
            let next = at.checked_add(size).filter(|next| *next <= end).ok_or_else(cut)?;
            places.push((at, size));
            at = next;
        }
        let image = match rows.next() {
            Some(row) => Ok(Locator::packed(row)),
            None => {
                let encoding = &shard.column_encodings[columns.image];
                image(source, file, &mut window, encoding, places[columns.image]).await?
            }
        };
        let mut value = async |column: usize| -> Result<Result<Value, String>, StoreError> {
            let ((at, size), name) = (places[column], &shard.column_names[column]);
            if size > VALUE_BYTES_MAX {
                return Ok(Err(format!("its column `{name}` is longer than any class")));
            }
            let bytes = window.at(at, size).await?;
            Ok(value_of(&bytes, &shard.column_encodings[column])
                .map_err(|why| format!("its column `{name}` {why}")))
        };
        let copy = match columns.copy {
            None => 0,
            Some(column) => match value(column).await? {
                Ok(Value::Integer(copy)) => copy,
                _ => 0,
            },
        };
        let own_id = match columns.id {
            None => None,
            Some(column) => match value(column).await? {
                Ok(Value::Text(id)) => id_of_copy(&id, copy),
                _ => None,
            },
        };
        let label = match columns.label {
            None => Ok(None),
            Some(column) => value(column).await?.map(|label| match label {
                Value::Integer(label) => class_name(&label.to_string()),
                Value::Text(label) => class_name(&label),
                Value::Null | Value::Number(_) | Value::Other => None,
            }),
        };
        let mut kept = Vec::with_capacity(columns.kept.len());
        for column in &columns.kept {
            kept.push(value(*column).await?);
        }
        let kept: Result<Vec<Value>, String> = kept.into_iter().collect();
        let kept = kept.and_then(|kept| kept::values(kept, source.options));
        let label = label.and_then(|class| Ok((class, kept?)));
        match (image, label) {
            (Ok(locator), Ok((class, kept))) => found.samples.push(FoundSample {
                id: id.into(),
                own_id,
                class,
                split,
                locator,
                version: file.version,
                kept,
            }),
            (Err(why), _) | (_, Err(why)) => found.reject(id.into(), why),
        }
    }
    Ok(())
}

/// Bytes of the number of samples and of where each begins and the last ends.
fn table_bytes(samples: u64) -> Option<u64> {
    samples.checked_add(2)?.checked_mul(4)
}

/// Where each sample begins and the last one ends, in a shard of `bytes` bytes; else what is wrong with its table.
fn offsets(table: &[u8], samples: u64, bytes: u64) -> Result<Vec<u64>, &'static str> {
    let mut numbers = table.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")));
    if numbers.next().map(u64::from) != Some(samples) {
        return Err("it holds another number of samples than its index says");
    }
    let offsets: Vec<u64> = numbers.map(u64::from).collect();
    match offsets.is_sorted() && offsets.last().is_none_or(|end| *end <= bytes) {
        true => Ok(offsets),
        false => Err("its samples lie outside of it: it is cut short or damaged"),
    }
}

/// The bytes of a packed shard, which are so many unpacked.
fn unpacked(packed: &[u8], bytes: u64) -> Result<Bytes, String> {
    let most = usize::try_from(bytes).ok().filter(|_| bytes <= PIECE_BYTES_MAX);
    let most = most.ok_or_else(|| format!("it says {bytes} bytes of itself, which no shard has"))?;
    match zstd::bulk::decompress(packed, most) {
        Ok(raw) if raw.len() == most => Ok(raw.into()),
        Ok(raw) => Err(format!("it has {} bytes unpacked, and its index says {bytes}", raw.len())),
        Err(error) => Err(format!("it cannot be unpacked: {}", one_line(&error.to_string()))),
    }
}

/// A shard that is packed as a whole, and where the image of a sample is among its columns.
#[derive(Debug)]
struct PackedShard {
    raw_bytes: u64,
    samples: u64,
    column_sizes: Vec<Option<u64>>,
    image: usize,
    encoding: String,
}

impl PackedShard {
    fn of(shard: &MdsShard, columns: &MdsColumns) -> PackedShard {
        PackedShard {
            raw_bytes: shard.raw_data.bytes,
            samples: shard.samples,
            column_sizes: shard.column_sizes.clone(),
            image: columns.image,
            encoding: shard.column_encodings[columns.image].clone(),
        }
    }

    fn piece(self, file: &File, shelf: &Arc<Shelf>) -> Result<Arc<Piece>, String> {
        if self.encoding == "pil" {
            return Err(
                "a shard that is packed holds its images as pixels (pil): write them as png".to_string()
            );
        }
        let rows =
            0..u64::from(u32::try_from(self.samples).map_err(|_| "a shard has fewer samples than 2^32")?);
        let (raw_bytes, range) = (self.raw_bytes, 0..file.bytes);
        Ok(Piece::new(file.name.clone(), range, rows, raw_bytes, Box::new(self), shelf))
    }

    /// Where the image of the sample between two bytes is.
    fn image(&self, raw: &[u8], start: u64, end: u64) -> Option<Range<usize>> {
        let n_sizes = self.column_sizes.iter().filter(|size| size.is_none()).count() as u64;
        let mut at = start.checked_add(4 * n_sizes).filter(|at| *at <= end)?;
        let mut sizes = raw.get(start as usize..at as usize)?.chunks_exact(4);
        for (column, size) in self.column_sizes.iter().enumerate() {
            let size = match size {
                Some(size) => *size,
                None => u64::from(u32::from_le_bytes(sizes.next()?.try_into().expect("four"))),
            };
            let next = at.checked_add(size).filter(|next| *next <= end)?;
            if column == self.image {
                return Some(at as usize..next as usize);
            }
            at = next;
        }
        None
    }
}

impl Unpack for PackedShard {
    fn unpack(&self, bytes: Bytes) -> Result<Unpacked, String> {
        let raw = unpacked(&bytes, self.raw_bytes)?;
        let table = table_bytes(self.samples).and_then(|bytes| raw.get(..bytes as usize));
        let offsets = offsets(table.unwrap_or_default(), self.samples, self.raw_bytes)?;
        let rows = offsets.windows(2).map(|place| self.image(&raw, place[0], place[1])).collect();
        Ok(Unpacked { bytes: raw, rows })
    }
}

/// Where the image of a sample is; else why it has none.
async fn image(
    source: &Source<'_>,
    file: &File,
    window: &mut ByteWindow<'_>,
    encoding: &str,
    (at, size): (u64, u64),
) -> Result<Result<Locator, String>, Misfit> {
    let whole = || Locator::range(file.name.clone(), at..at + size, file.bytes);
    let lost = || broken(format!("cannot read {}: an image lies outside of it", source.name(file)));
    if encoding != "pil" {
        return whole().map(Ok).ok_or_else(lost);
    }
    // Width, height and the length of the mode (u32), the mode, and the pixels.
    if size < 12 {
        return Ok(Err("its pixels have no size".to_string()));
    }
    let header = window.at(at, 12).await?;
    let number = |n: usize| u64::from(u32::from_le_bytes(header[4 * n..4 * n + 4].try_into().expect("four")));
    let (width, height, mode_bytes) = (number(0), number(1), number(2));
    if mode_bytes > 16 || 12 + mode_bytes > size {
        return Ok(Err("its pixels have no mode".to_string()));
    }
    let mode = window.at(at + 12, mode_bytes).await?;
    let channels = match &mode[..] {
        b"L" => PixelOrder::Gray,
        b"RGB" => PixelOrder::Rgb,
        other => {
            let mode = escape_text(&String::from_utf8_lossy(other)).into_owned();
            return Ok(Err(format!("its pixels are of the mode {mode}, and RGB and L are read")));
        }
    };
    let sizes = u16::try_from(width).ok().zip(u16::try_from(height).ok());
    let pixels = sizes.map(|(width, height)| RawPixels { width, height, channels });
    let pixels = pixels.filter(|pixels| 12 + mode_bytes + pixels.bytes() == size && pixels.bytes() > 0);
    let Some(pixels) = pixels else { return Ok(Err(format!("it has no {width}x{height} pixels"))) };
    let start = at + 12 + mode_bytes;
    Locator::pixels(file.name.clone(), start, pixels, file.bytes).map(Ok).ok_or_else(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, read};
    use crate::store::Store;
    use futures::executor::block_on;

    /// A shard of these samples, each its columns: variable ones with their size.
    fn shard(samples: &[Vec<(&[u8], bool)>]) -> Vec<u8> {
        let config = b"{}";
        let mut at = 4 * (samples.len() as u32 + 2) + config.len() as u32;
        let mut file = (samples.len() as u32).to_le_bytes().to_vec();
        let mut data = Vec::new();
        for sample in samples {
            file.extend(at.to_le_bytes());
            let start = data.len();
            for (bytes, _) in sample.iter().filter(|(_, is_variable)| *is_variable) {
                data.extend((bytes.len() as u32).to_le_bytes());
            }
            sample.iter().for_each(|(bytes, _)| data.extend(*bytes));
            at += (data.len() - start) as u32;
        }
        file.extend(at.to_le_bytes());
        file.extend(config);
        file.extend(data);
        file
    }

    fn index(samples: usize, columns: &str, compression: &str) -> String {
        format!(
            r#"{{"version": 2, "shards": [{{"format": "mds", "version": 2, {columns}, "compression": {compression},
            "hashes": [], "raw_data": {{"basename": "shard.00000.mds", "bytes": 1, "hashes": {{}}}}, "samples": {samples},
            "size_limit": 1, "zip_data": null}}]}}"#
        )
    }

    const COLUMNS: &str = r#""column_names": ["id", "image", "label"], "column_encodings": ["str", "jpeg", "int"], "column_sizes": [null, null, 8]"#;

    fn catalog(files: &[(&str, Vec<u8>)]) -> Result<(Store, Catalog), String> {
        let store = Store::memory();
        for (name, bytes) in files {
            block_on(store.put(name, bytes.clone().into())).expect("an object");
        }
        let catalog = block_on(read(&store, &LayoutOptions::default())).map_err(|error| error.to_string())?;
        Ok((store, catalog))
    }

    #[test]
    fn a_packed_shard_is_unpacked_once_and_what_lies_about_itself_is_refused() {
        let (one, two) = (1_i64.to_le_bytes(), 2_i64.to_le_bytes());
        let samples = [
            vec![(b"b".as_slice(), true), (b"image b", true), (&one, false)],
            vec![(b"a".as_slice(), true), (b"image a", true), (&two, false)],
        ];
        let raw = shard(&samples);
        let zip = zstd::bulk::compress(&raw, 3).expect("packs");
        let index = |bytes: usize| {
            index(2, COLUMNS, "\"zstd:7\"").replace("\"bytes\": 1", &format!("\"bytes\": {bytes}")).replace(
                "\"zip_data\": null",
                "\"zip_data\": {\"basename\": \"shard.00000.mds.zstd\", \"bytes\": 1}",
            )
        };
        let of = |bytes: usize, zip: &[u8]| {
            catalog(&[("index.json", index(bytes).into_bytes()), ("shard.00000.mds.zstd", zip.to_vec())])
        };
        let (store, found) = of(raw.len(), &zip).expect("a catalog");
        let images: Vec<_> = (found.entries().iter())
            .map(|entry| {
                let bytes = block_on(entry.locator.read(&store)).expect("an image");
                (entry.id.to_string(), found.classes()[entry.label as usize].clone(), bytes)
            })
            .collect();
        assert_eq!(
            images,
            [
                ("a".to_string(), "2".to_string(), Bytes::from("image a")),
                ("b".to_string(), "1".to_string(), Bytes::from("image b")),
            ]
        );
        for (bytes, zip, says) in [
            (raw.len() - 1, &zip[..], "it cannot be unpacked"),
            (raw.len() + 1, &zip[..], "bytes unpacked, and its index says"),
            (raw.len(), &zip[..zip.len() / 2], "it cannot be unpacked"),
            (3 << 30, &zip[..], "which no shard has"),
        ] {
            let line = of(bytes, zip).expect_err("refused");
            assert!(line.contains(says), "{line}");
        }
    }

    #[test]
    fn samples_are_read_by_their_columns() {
        let (one, two) = (1_i64.to_le_bytes(), 12_i64.to_le_bytes());
        let samples = [
            vec![(b"x/b".as_slice(), true), (b"image b", true), (&one, false)],
            vec![(b"x/a", true), (b"image a", true), (&two, false)],
        ];
        let files =
            [("val/index.json", index(2, COLUMNS, "null").into()), ("val/shard.00000.mds", shard(&samples))];
        let (store, found) = catalog(&files).expect("a catalog");
        let of = |entry: &crate::catalog::Entry| {
            let image = block_on(entry.locator.read(&store)).expect("an image");
            let class = &found.classes()[entry.label as usize];
            format!("{} {class} {} {}", entry.id, entry.split.expect("one"), String::from_utf8_lossy(&image))
        };
        let found_in_words: Vec<String> = found.entries().iter().map(of).collect();
        assert_eq!(found_in_words, ["x/a 12 validation image a", "x/b 1 validation image b"]);
        assert_eq!(found.layout(), "MDS, 1 shards, images in `image` and labels in `label`");
    }

    #[test]
    fn pixels_with_their_size_become_images() {
        let columns = r#""column_names": ["class", "x"], "column_encodings": ["uint8", "pil"], "column_sizes": [1, null]"#;
        let pil = |width: u32, mode: &[u8], pixels: &[u8]| {
            [&width.to_le_bytes(), &1_u32.to_le_bytes(), &(mode.len() as u32).to_le_bytes(), mode, pixels]
                .concat()
        };
        let images =
            [pil(1, b"RGB", &[1, 2, 3]), pil(2, b"L", &[4, 5]), pil(2, b"L", &[4]), pil(1, b"1", &[4])];
        let samples: Vec<Vec<(&[u8], bool)>> =
            images.iter().map(|image| vec![([200].as_slice(), false), (&image[..], true)]).collect();
        let files = [("index.json", index(4, columns, "null").into()), ("shard.00000.mds", shard(&samples))];
        let (store, found) = catalog(&files).expect("a catalog");
        let images: Vec<_> =
            found.entries().iter().map(|e| block_on(e.locator.read(&store)).expect("one")).collect();
        assert_eq!(images, ["P6\n1 1\n255\n\x01\x02\x03".as_bytes(), b"P5\n2 1\n255\n\x04\x05"]);
        assert_eq!(found.classes(), ["200"]);
        let reasons: Vec<&str> = found.rejects().iter().map(|(_, fault)| &*fault.reason).collect();
        assert_eq!(reasons, ["it has no 2x1 pixels", "its pixels are of the mode 1, and RGB and L are read"]);
    }

    #[test]
    fn a_dataset_that_cannot_be_read_is_refused_in_one_line() {
        let one = 1_i64.to_le_bytes();
        let whole = shard(&[vec![(b"x", true), (b"image", true), (&one, false)]]);
        let line = |index: String, shard: Vec<u8>| {
            catalog(&[("index.json", index.into()), ("shard.00000.mds", shard)]).expect_err("refused")
        };
        let packed = line(index(1, COLUMNS, "\"br\""), whole.clone());
        assert!(packed.contains("shard.00000.mds is packed with br, and zstd is read"), "{packed}");
        for n in [2, 0] {
            let other = line(index(n, COLUMNS, "null"), whole.clone());
            assert!(other.contains("another number of samples"), "{other}");
        }
        let mut cut = whole.clone();
        cut.truncate(whole.len() - 3);
        let cut = line(index(1, COLUMNS, "null"), cut);
        assert!(cut.contains("cut short or damaged"), "{cut}");
        let mut lying = whole.clone();
        lying[14..18].copy_from_slice(&u32::MAX.to_le_bytes());
        let lying = line(index(1, COLUMNS, "null"), lying);
        assert!(lying.contains("sample 0 is shorter than its columns"), "{lying}");
        let pickled = COLUMNS.replace("jpeg", "pkl");
        let pickled = line(index(1, &pickled, "null"), whole);
        assert!(pickled.contains("has no column of images; it has id, image, label"), "{pickled}");
    }
}
