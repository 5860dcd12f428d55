//! A shard that is written while its rows come, whatever its form.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{DatasetFormat, mds, webdataset};
use crate::catalog::KeptColumn;
use crate::shard::{Footer, Row, ShardError, ShardWriter};

/// A shard that is written while its rows come. What is done of the file can be taken out of it at any time; of MDS, whose
/// file begins with where its samples lie, that is nothing before its end.
pub enum FileWriter {
    /// A shard of Forebay.
    Parquet(Box<ShardWriter>),
    /// A shard of another program.
    Other(Box<OtherWriter>),
}

/// A shard of another program.
pub struct OtherWriter {
    classes: Vec<String>,
    kept: Vec<KeptColumn>,
    body: Body,
    /// Rows of the open planned group, and of those before it.
    rows: usize,
    groups: Vec<usize>,
    extensions: BTreeSet<String>,
    /// Of all that was taken out.
    digest: blake3::Hasher,
}

enum Body {
    /// Members that are done, and the number of the next row in its split.
    Tar { file: Vec<u8>, number: u64 },
    /// Every row, and the bytes of their images.
    Mds { rows: Vec<Row>, bytes: u64 },
}

impl FileWriter {
    /// A shard without rows, of which the first will be row `first` of its split; `kept` are the columns of the source that
    /// go along.
    ///
    /// # Errors
    /// [`ShardError`] when the class names do not fit the metadata of a file.
    pub fn new(
        format: DatasetFormat,
        classes: &[String],
        kept: &[KeptColumn],
        first: u64,
    ) -> Result<FileWriter, ShardError> {
        let body = match format {
            DatasetFormat::Parquet => {
                return Ok(FileWriter::Parquet(Box::new(ShardWriter::new(classes, kept)?)));
            }
            DatasetFormat::WebDataset => Body::Tar { file: Vec::new(), number: first },
            DatasetFormat::Mds => Body::Mds { rows: Vec::new(), bytes: 0 },
        };
        Ok(FileWriter::Other(Box::new(OtherWriter {
            classes: classes.to_vec(),
            kept: kept.to_vec(),
            body,
            rows: 0,
            groups: Vec::new(),
            extensions: BTreeSet::new(),
            digest: blake3::Hasher::new(),
        })))
    }

    /// Adds a row to the open planned group.
    ///
    /// # Errors
    /// [`ShardError`] when it does not fit the form: an image of 2 GiB, in a tar file one of 8 GiB, in MDS what makes the shard
    /// larger than [`MDS_BYTES_MAX`](super::MDS_BYTES_MAX).
    pub fn push(&mut self, row: Row) -> Result<(), ShardError> {
        match self {
            FileWriter::Parquet(writer) => writer.push(row),
            FileWriter::Other(writer) => writer.push(row),
        }
    }

    /// Ends the planned group: the next row belongs to the next one.
    ///
    /// # Errors
    /// As [`FileWriter::push`].
    pub fn end_group(&mut self) -> Result<(), ShardError> {
        match self {
            FileWriter::Parquet(writer) => writer.end_group(),
            FileWriter::Other(writer) => {
                writer.groups.push(std::mem::take(&mut writer.rows));
                Ok(())
            }
        }
    }

    /// The bytes of the file that are done and were not taken before.
    ///
    /// # Errors
    /// Never in memory.
    pub fn take(&mut self) -> Result<Bytes, ShardError> {
        match self {
            FileWriter::Parquet(writer) => writer.take(),
            FileWriter::Other(writer) => Ok(writer.take()),
        }
    }

    /// Ends the file: its last bytes, and `footer` with what is known now of groups and data.
    ///
    /// # Errors
    /// As [`FileWriter::push`].
    pub fn finish(self, footer: Footer) -> Result<(Bytes, Footer), ShardError> {
        match self {
            FileWriter::Parquet(writer) => writer.finish(footer),
            FileWriter::Other(writer) => writer.finish(footer),
        }
    }
}

impl OtherWriter {
    fn push(&mut self, row: Row) -> Result<(), ShardError> {
        self.rows += 1;
        if !self.extensions.contains(row.extension) {
            self.extensions.insert(row.extension.to_string());
        }
        match &mut self.body {
            Body::Tar { file, number } => {
                webdataset::row(file, &self.classes, &self.kept, *number, &row)?;
                *number += 1;
            }
            Body::Mds { rows, bytes } => {
                *bytes += row.bytes.len() as u64;
                rows.push(row);
                if *bytes > mds::SHARD_BYTES_MAX {
                    let most = mds::SHARD_BYTES_MAX >> 20;
                    return Err(ShardError::TooLarge(format!(
                        "the images of a shard of MDS take more than {most} MiB, and are in memory together: give fewer \
                         --samples-per-shard"
                    )));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Bytes {
        let Body::Tar { file, .. } = &mut self.body else { return Bytes::new() };
        let bytes = std::mem::take(file);
        self.digest.update(&bytes);
        bytes.into()
    }

    fn finish(mut self, mut footer: Footer) -> Result<(Bytes, Footer), ShardError> {
        if self.rows > 0 {
            self.groups.push(self.rows);
        }
        footer.groups = self.groups;
        footer.extensions = self.extensions.into_iter().collect();
        let last: Bytes = match self.body {
            Body::Tar { mut file, .. } => {
                webdataset::end(&mut file);
                file.into()
            }
            Body::Mds { rows, .. } => {
                mds::shard(&self.classes, &self.kept, &footer.extensions, &rows)?.into()
            }
        };
        self.digest.update(&last);
        footer.data_blake3 = self.digest.finalize().to_hex().to_string();
        Ok((last, footer))
    }
}
