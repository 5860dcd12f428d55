//! The members of a tar file by its headers: names, places and sizes, without the data between them.
//!
//! Read as POSIX.1-2001 (ustar and pax) and GNU tar write it. Nothing is unpacked: a name is only a name here.

use serde::{Deserialize, Serialize};

use crate::store::{ByteWindow, ObjectName, Store, StoreError};

/// A header, and what data is rounded up to.
const BLOCK: u64 = 512;

/// Bytes of a header that says something of the next one: names of a few thousand letters.
const EXTENDED_BYTES_MAX: u64 = 1 << 20;

/// A member of a tar file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Its name as it stands there.
    pub(super) name: String,
    /// Where its data begins.
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// What it is where it is no regular file, such as "a symbolic link".
    pub(super) oddity: Option<String>,
    /// Its data, where it was asked for and is small.
    pub(super) data: Option<String>,
}

/// Why the members of a tar file are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is damaged, in one line without its name.
    #[error("{0}")]
    Damaged(String),
}

/// What the headers before a member say of it.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    bytes: Option<u64>,
}

/// The members of a tar file of `file_bytes` bytes, in their order; the data of those of which `keeps` says so is kept.
///
/// # Errors
/// [`TarError::Damaged`] for a file that is cut short or whose headers are damaged: what follows would be lost.
pub(super) async fn members(
    store: &Store,
    object: &ObjectName,
    file_bytes: u64,
    keeps: impl Fn(&str, u64) -> bool,
) -> Result<Vec<Member>, TarError> {
    let mut window = ByteWindow::new(store, object, file_bytes);
    let mut members: Vec<Member> = Vec::new();
    let mut extended = Extended::default();
    let mut at = 0;
    while at < file_bytes {
        let place = format!("after {} members, at byte {at}", members.len());
        let damaged = |what: &str| TarError::Damaged(format!("{what} {place}: make it or download it again"));
        if file_bytes - at < BLOCK {
            return Err(damaged("it is cut short"));
        }
        let block = window.at(at, BLOCK).await?;
        if block.iter().all(|byte| *byte == 0) {
            // The end, or what pads the last record of a file that was appended to.
            break;
        }
        let header = Header::parse(&block).ok_or_else(|| damaged("it holds no header of a tar file"))?;
        let of_data = if header.has_data() { extended.bytes.unwrap_or(header.bytes) } else { 0 };
        let start = at + BLOCK;
        let end = start.checked_add(of_data).ok_or_else(|| damaged("it holds a size that cannot be"))?;
        if end > file_bytes {
            return Err(damaged("it is cut short, or says a size that it does not have,"));
        }
        at = end.next_multiple_of(BLOCK);
        match header.kind {
            b'x' | b'g' | b'L' | b'K' if of_data > EXTENDED_BYTES_MAX => {
                return Err(damaged(&format!("it holds {of_data} bytes about one name")));
            }
            b'L' => {
                let name = window.at(start, of_data).await?;
                extended.name = Some(text(&name));
            }
            b'x' => {
                let records = window.at(start, of_data).await?;
                let found = records_of(&records).ok_or_else(|| damaged("it holds a damaged pax header"))?;
                for (key, value) in found {
                    match key.as_str() {
                        "path" => extended.name = Some(value),
                        "size" => {
                            let bytes =
                                value.parse().map_err(|_| damaged("it holds a damaged pax header"))?;
                            extended.bytes = Some(bytes);
                        }
                        _ => {}
                    }
                }
            }
            // Of all members, which no name or size is; the target of a link.
            b'g' | b'K' => {}
            b'5' => extended = Extended::default(),
            kind => {
                let name = extended.name.take().unwrap_or(header.name);
                extended = Extended::default();
                let oddity = oddity(kind).map(String::from);
                let data = match oddity.is_none() && keeps(&name, of_data) {
                    true => String::from_utf8(window.at(start, of_data).await?.to_vec()).ok(),
                    false => None,
                };
                members.push(Member { name, start, bytes: of_data, oddity, data });
            }
        }
    }
    Ok(members)
}

/// What a member is that is no regular file.
fn oddity(kind: u8) -> Option<&'static str> {
    match kind {
        b'0' | 0 | b'7' => None,
        b'1' => Some("a hard link"),
        b'2' => Some("a symbolic link"),
        b'3' | b'4' => Some("a device"),
        b'6' => Some("a pipe"),
        b'S' => Some("a sparse file"),
        _ => Some("of a kind that is not known"),
    }
}

/// The block before each member.
struct Header {
    name: String,
    bytes: u64,
    kind: u8,
}

impl Header {
    /// Reads a block; `None` where its checksum or its size says that it is none.
    fn parse(block: &[u8]) -> Option<Header> {
        let sum: u64 = number(&block[148..156])?;
        let signs = |byte: u8, at: usize| if (148..156).contains(&at) { b' ' } else { byte };
        let unsigned: u64 = block.iter().zip(0..).map(|(byte, at)| u64::from(signs(*byte, at))).sum();
        // Some old programs added them up with signs.
        let signed: i64 = block.iter().zip(0..).map(|(byte, at)| i64::from(signs(*byte, at) as i8)).sum();
        if sum != unsigned && i64::try_from(sum).ok()? != signed {
            return None;
        }
        let name = text(&block[..100]);
        let is_ustar = &block[257..263] == b"ustar\0";
        let prefix = if is_ustar { text(&block[345..500]) } else { String::new() };
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        Some(Header { name, bytes: number(&block[124..136])?, kind: block[156] })
    }

    /// Whether data follows: links and devices may say a size and have none.
    fn has_data(&self) -> bool {
        !matches!(self.kind, b'1'..=b'6')
    }
}

/// A number in octal, or in base 256 where its first bit is set, as GNU tar writes what octal cannot.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first()? {
        (0x80, rest) => {
            rest.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()))
        }
        (first, _) if *first >= 0x80 => None,
        _ => {
            let text = std::str::from_utf8(field).ok()?;
            let digits = text.trim_matches(|c: char| c == ' ' || c == '\0');
            if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
        }
    }
}

/// A text that ends at its first zero.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// The records of a pax header: `LENGTH KEY=VALUE` and a line end, where the length counts all of the record.
fn records_of(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        records
            .push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
        bytes = &bytes[length..];
    }
    Some(records)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use futures::executor::block_on;

    /// A tar file of these members: name, kind and data. Names beyond 100 letters go into a pax header.
    pub(in crate::catalog) fn tar(members: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut file = Vec::new();
        for (name, kind, data) in members {
            if name.len() > 100 {
                let record = |length: usize| format!("{length} path={name}\n");
                let length = (1..).find(|n| record(*n).len() == *n).expect("a length");
                file.extend(block("././@PaxHeader", b'x', record(length).as_bytes()));
            }
            file.extend(block(&name[..name.len().min(100)], *kind, data));
        }
        file.extend([0; 1024]);
        file
    }

    fn block(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[156] = kind;
        header[257..263].copy_from_slice(b"ustar\0");
        sum(&mut header);
        let mut block = header.to_vec();
        block.extend(data);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    fn sum(header: &mut [u8]) {
        header[148..156].fill(b' ');
        let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn read(file: &[u8]) -> Result<Vec<Member>, TarError> {
        let store = Store::memory();
        block_on(store.put("x.tar", file.to_vec().into())).expect("an object");
        let keeps = |name: &str, _: u64| name.ends_with(".cls");
        block_on(members(&store, &"x.tar".into(), file.len() as u64, keeps))
    }

    #[test]
    fn members_are_found_where_they_lie() {
        let long = format!("{}/b.jpg", "a".repeat(200));
        let large = vec![7; 300_000];
        let file =
            tar(&[("1.jpg", b'0', b"jpeg"), ("1.cls", b'0', b"3"), (&long, 0, &large), ("d/", b'5', b"")]);
        let found = read(&file).expect("members");
        let names: Vec<&str> = found.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["1.jpg", "1.cls", &long]);
        assert_eq!(found[1].data.as_deref(), Some("3"));
        for (member, data) in found.iter().zip([b"jpeg".as_slice(), b"3", &large]) {
            assert_eq!(&file[member.start as usize..][..member.bytes as usize], data, "{}", member.name);
        }
    }

    #[test]
    fn what_is_no_file_is_named_and_what_is_damaged_ends_it() {
        let odd = tar(&[("a", b'2', b""), ("b", b'1', b""), ("c", b'3', b""), ("d", b'0', b"x")]);
        let kinds: Vec<Option<String>> = read(&odd).expect("members").into_iter().map(|m| m.oddity).collect();
        let expected = [Some("a symbolic link"), Some("a hard link"), Some("a device"), None];
        assert_eq!(kinds, expected.map(|kind| kind.map(String::from)));

        let whole = tar(&[("a", b'0', &[1; 600]), ("b", b'0', &[2; 600])]);
        let line = |file: &[u8]| read(file).expect_err("damaged").to_string();
        assert!(line(&whole[..2000]).starts_with("it is cut short"), "{}", line(&whole[..2000]));
        assert!(line(&whole[..700]).starts_with("it is cut short"));
        let mut flipped = whole.clone();
        flipped[1536 + 3] ^= 1;
        assert_eq!(
            line(&flipped),
            "it holds no header of a tar file after 1 members, at byte 1536: make it or download it again"
        );
        // A size that lies: it reaches into the next header, or beyond the end.
        for size in ["00000000500", "77777777777"] {
            let mut lying = whole.clone();
            lying[124..135].copy_from_slice(size.as_bytes());
            sum(&mut lying[..512]);
            assert!(read(&lying).is_err(), "{size}");
        }
        // 100 MiB about one name.
        let mut pax = block("x", b'x', &[]);
        pax[124..135].copy_from_slice(format!("{:011o}", 100 << 20).as_bytes());
        sum(&mut pax);
        pax.resize(512 + (100 << 20) + 512, 0);
        assert!(line(&pax).contains("104857600 bytes about one name"), "{}", line(&pax));
        assert_eq!(read(&[0; 1024]).expect("an empty one"), []);
    }

    #[test]
    fn numbers_are_octal_or_of_base_256() {
        for (field, expected) in [
            (b"00000000017\0".as_slice(), Some(15)),
            (b"  17 \0", Some(15)),
            (b"\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff", None),
            (b"8", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }
}
