//! IDX files, the form of MNIST and of Fashion-MNIST, KMNIST, EMNIST and others after it: `train-images-idx3-ubyte` beside
//! `train-labels-idx1-ubyte`, packed with gzip or not (<http://yann.lecun.com/exdb/mnist/>).

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::GzDecoder;

use super::gathered::{FoundSample, Gathered, broken, class_name, split_of_path};
use super::listing::File;
use super::packed::{PIECE_BYTES_MAX, Piece, Shelf, Unpack, Unpacked};
use super::pixels::{PixelOrder, RawPixels};
use super::{Layout, LayoutKind, Locator, Misfit, Reading, Source, SourceContents};
use crate::sample::Split;

/// Bytes before the images: magic number, images, rows, columns.
const HEADER_BYTES: u64 = 16;

/// Images and their labels in files of their own.
pub(super) struct MnistIdx;

impl Layout for MnistIdx {
    fn kind(&self) -> LayoutKind {
        LayoutKind::Idx
    }

    fn looks_for(&self) -> &'static str {
        "files of MNIST's form: train-images-idx3-ubyte beside train-labels-idx1-ubyte, each with or without .gz"
    }

    fn finds(&self, source: &Source<'_>) -> Option<String> {
        images(source).first().map(|file| file.id.to_string())
    }

    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a> {
        Box::pin(read(source))
    }
}

fn images<'a>(source: &Source<'a>) -> Vec<&'a File> {
    let is_images = |file: &&File| {
        let name = file.id.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(name);
        file.fault.is_none() && name.contains("images") && (name.ends_with("idx3-ubyte"))
    };
    source.listing.files.iter().filter(is_images).collect()
}

/// The file of the labels of some images.
fn labels<'a>(source: &Source<'a>, images: &File) -> Option<&'a File> {
    let (folder, name) =
        images.id.rsplit_once('/').map_or(("", &*images.id), |(folder, name)| (folder, name));
    let name = name.strip_suffix(".gz").unwrap_or(name).replace("images", "labels").replace("idx3", "idx1");
    let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
    source.listing.files.iter().find(|file| file.id.strip_suffix(".gz").unwrap_or(&file.id) == path)
}

fn is_packed(file: &File) -> bool {
    file.id.ends_with(".gz")
}

/// The first `length` bytes of a file, unpacked.
async fn start(source: &Source<'_>, file: &File, length: u64) -> Result<Vec<u8>, Misfit> {
    let mut bytes = Vec::new();
    match is_packed(file) {
        // The labels of a million images have some hundred kilobytes.
        true => {
            let packed = source.store.read_exactly(&file.name, 0..file.bytes.min(16 << 20)).await?;
            let unpacked = GzDecoder::new(&packed[..]).take(length).read_to_end(&mut bytes);
            unpacked.map_err(|error| broken(format!("cannot unpack {}: {error}", source.name(file))))?;
        }
        false => {
            let read = source.store.read_exactly(&file.name, 0..file.bytes.min(length)).await?;
            bytes.extend_from_slice(&read);
        }
    }
    Ok(bytes)
}

/// Three or one dimension of bytes, after the magic number of so many.
fn dimensions<const N: usize>(start: &[u8]) -> Option<[u64; N]> {
    let (magic, rest) = start.split_at_checked(4)?;
    let mut dimensions = [0; N];
    for (dimension, bytes) in dimensions.iter_mut().zip(rest.chunks_exact(4)) {
        *dimension = u64::from(u32::from_be_bytes(bytes.try_into().ok()?));
    }
    // 8: unsigned bytes.
    (rest.len() >= 4 * N && magic == [0, 0, 8, N as u8]).then_some(dimensions)
}

async fn read(source: &Source<'_>) -> Result<SourceContents, Misfit> {
    let files = images(source);
    let mut found = Gathered {
        layout: format!("IDX (MNIST's form), {} files of images", files.len()),
        ..Gathered::default()
    };
    let shelf = Arc::new(Shelf::default());
    if files.is_empty() {
        return Err(Misfit::Holds("no file called images-idx3-ubyte".to_string()));
    }
    for file in files {
        let odd = |file: &File, what: &str| broken(format!("{}: {what}", source.name(file)));
        let header = dimensions::<3>(&start(source, file, HEADER_BYTES).await?);
        let [n, height, width] = header.ok_or_else(|| odd(file, "it is no IDX file of gray images"))?;
        let sizes = u16::try_from(height).ok().zip(u16::try_from(width).ok());
        let (height, width) = sizes
            .filter(|(height, width)| *height > 0 && *width > 0)
            .ok_or_else(|| odd(file, &format!("images of {width}x{height} pixels are none")))?;
        let pixels = RawPixels { width, height, channels: PixelOrder::Gray };
        let unpacked = n.saturating_mul(pixels.bytes()).saturating_add(HEADER_BYTES);
        if unpacked > PIECE_BYTES_MAX || (!is_packed(file) && unpacked != file.bytes) {
            return Err(odd(
                file,
                &format!("it says {n} images of {width}x{height} pixels, and has {} bytes", file.bytes),
            ));
        }
        let classes = match labels(source, file) {
            None => Vec::new(),
            Some(labels) => {
                let bytes = start(source, labels, n + 9).await?;
                let expected = dimensions::<1>(&bytes) == Some([n]) && bytes.len() as u64 == n + 8;
                if !expected {
                    return Err(odd(labels, &format!("it is no IDX file of {n} labels, one for each image")));
                }
                bytes[8..].to_vec()
            }
        };
        let split = split_of_path(&file.id).or_else(|| file.id.contains("t10k").then_some(Split::Test));
        found.splits.extend(split);
        let locators: Vec<Locator> = match is_packed(file) {
            true => {
                let unpack = Box::new(PackedImages { pixels, n });
                let bytes = n * pixels.file_bytes();
                u32::try_from(n).map_err(|_| odd(file, "it holds too many images"))?;
                Piece::new(file.name.clone(), 0..file.bytes, 0..n, bytes, unpack, &shelf)
                    .samples()
                    .map(Locator::packed)
                    .collect()
            }
            false => {
                let at = |row: u64| {
                    let start = HEADER_BYTES + row * pixels.bytes();
                    Locator::pixels(file.name.clone(), start, pixels, file.bytes).expect("it was measured")
                };
                (0..n).map(at).collect()
            }
        };
        for (row, locator) in locators.into_iter().enumerate() {
            let id = format!("{}/{row:06}", file.id).into();
            let class = classes.get(row).and_then(|label| class_name(&label.to_string()));
            found.samples.push(FoundSample {
                id,
                own_id: None,
                class,
                split,
                locator,
                version: file.version,
                kept: None,
            });
        }
    }
    found.into_contents()
}

/// Images that are packed together.
#[derive(Debug)]
struct PackedImages {
    pixels: RawPixels,
    n: u64,
}

impl Unpack for PackedImages {
    fn unpack(&self, bytes: Bytes) -> Result<Unpacked, String> {
        let expected = HEADER_BYTES + self.n * self.pixels.bytes();
        let mut unpacked = Vec::new();
        let read = GzDecoder::new(&bytes[..]).take(expected + 1).read_to_end(&mut unpacked);
        read.map_err(|error| format!("cannot unpack it: {error}"))?;
        if unpacked.len() as u64 != expected {
            return Err(format!("it says {} images and holds other bytes", self.n));
        }
        let mut images: Vec<u8> = Vec::with_capacity((self.n * self.pixels.file_bytes()) as usize);
        let mut rows: Vec<Option<Range<usize>>> = Vec::with_capacity(self.n as usize);
        for pixels in unpacked[HEADER_BYTES as usize..].chunks_exact(self.pixels.bytes() as usize) {
            let start = images.len();
            images.extend_from_slice(&self.pixels.file(pixels));
            rows.push(Some(start..images.len()));
        }
        Ok(Unpacked { bytes: images.into(), rows })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crate::catalog::{Catalog, LayoutOptions, read};
    use crate::store::Store;
    use futures::executor::block_on;

    fn idx(dimensions: &[u32], data: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, dimensions.len() as u8];
        file.extend(dimensions.iter().flat_map(|dimension| dimension.to_be_bytes()));
        file.extend(data);
        file
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    }

    fn catalog(files: &[(&str, Vec<u8>)]) -> Result<(Store, Catalog), String> {
        let store = Store::memory();
        for (name, bytes) in files {
            block_on(store.put(name, bytes.clone().into())).expect("an object");
        }
        let catalog = block_on(read(&store, &LayoutOptions::default())).map_err(|error| error.to_string())?;
        Ok((store, catalog))
    }

    #[test]
    fn packed_and_unpacked_files_hold_the_same_images() {
        let images = idx(&[2, 1, 2], &[1, 2, 3, 4]);
        let labels = idx(&[2], &[7, 0]);
        let plain =
            [("train-images-idx3-ubyte", images.clone()), ("train-labels-idx1-ubyte", labels.clone())];
        let packed = [("t10k-images-idx3-ubyte.gz", gz(&images)), ("t10k-labels-idx1-ubyte.gz", gz(&labels))];
        for (files, split) in [(plain, "train"), (packed, "test")] {
            let (store, found) = catalog(&files).expect("a catalog");
            assert_eq!(found.classes(), ["0", "7"]);
            let of = |entry: &crate::catalog::Entry| {
                let image = block_on(entry.locator.read(&store)).expect("an image");
                (entry.label, entry.split.expect("a split").name(), image.to_vec())
            };
            let found: Vec<_> = found.entries().iter().map(of).collect();
            let image = |pixels: [u8; 2]| [b"P5\n2 1\n255\n".as_slice(), &pixels].concat();
            assert_eq!(found, [(1, split, image([1, 2])), (0, split, image([3, 4]))]);
        }
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let images = idx(&[2, 1, 2], &[1, 2, 3, 4]);
        let line = |files: &[(&str, Vec<u8>)]| catalog(files).expect_err("refused");
        let other =
            [("train-images-idx3-ubyte", images.clone()), ("train-labels-idx1-ubyte", idx(&[3], &[1, 2, 3]))];
        assert!(line(&other).contains("no IDX file of 2 labels"), "{}", line(&other));
        let cut = [("train-images-idx3-ubyte", images[..18].to_vec())];
        assert!(line(&cut).contains("says 2 images of 2x1 pixels, and has 18 bytes"), "{}", line(&cut));
        let none = [("train-images-idx3-ubyte", images)];
        assert!(line(&none).contains("none of its 2 images has a label"), "{}", line(&none));
        let huge = [("train-images-idx3-ubyte", idx(&[u32::MAX, 60000, 60000], &[]))];
        assert!(line(&huge).contains("pixels, and has 16 bytes"), "{}", line(&huge));
    }
}
