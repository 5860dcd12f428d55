//! One page of a bucket's listing, read strictly.
//!
//! `object_store` takes an answer that is no listing for an empty page, and one key that it cannot name ends its
//! whole listing. Its requests, signatures and retries are kept; the page is read here, as it passes by.

use serde::Deserialize;

use super::object::Version;
use crate::escape::one_line;

/// A page as the server wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whose form it has.
    pub form: ListingForm,
    /// In the order of the server.
    pub objects: Vec<PageObject>,
    /// What the next page is asked with; `None` on the last one.
    pub next: Option<String>,
}

/// The forms that a page can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingForm {
    /// S3's second version, which Google Cloud Storage has too.
    S3,
    /// Azure's.
    Azure,
}

impl ListingForm {
    /// A page without objects, for `object_store`.
    pub(super) fn empty(self) -> &'static [u8] {
        match self {
            ListingForm::S3 => b"<ListBucketResult></ListBucketResult>",
            ListingForm::Azure => b"<EnumerationResults><Blobs></Blobs></EnumerationResults>",
        }
    }
}

/// An object of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageObject {
    /// The whole key in its bucket.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Which bytes they are.
    pub version: Version,
}

/// Why an answer to a listing is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a listing: {0}")]
pub struct NoListing(pub(super) String);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    #[serde(default)]
    contents: Vec<Contents>,
    is_truncated: Option<bool>,
    next_continuation_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    size: u64,
    last_modified: Option<String>,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnumerationResults {
    blobs: Blobs,
    next_marker: Option<String>,
}

#[derive(Deserialize)]
struct Blobs {
    #[serde(rename = "Blob", default)]
    blobs: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    properties: BlobProperties,
}

#[derive(Deserialize)]
struct BlobProperties {
    #[serde(rename = "Content-Length")]
    bytes: u64,
    #[serde(rename = "Etag")]
    etag: Option<String>,
    #[serde(rename = "Last-Modified")]
    last_modified: Option<String>,
    /// Accounts with real folders list these too.
    #[serde(rename = "ResourceType")]
    resource_type: Option<String>,
}

/// The seconds since 1970 of a time as S3 writes it, `2026-01-31T23:59:59.000Z`, or as headers do,
/// `Sat, 31 Jan 2026 23:59:59 GMT`.
pub(super) fn seconds(time: &str) -> Option<i64> {
    let time = time.trim();
    // No number of a date is larger, and none of a liar makes a sum wrap.
    let number = |digits: &str| digits.parse::<u16>().ok().map(i64::from);
    let days_of = |year: i64, month: i64, day: i64| {
        // Years begin in March, so that the day of a leap year is the last one.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        year * 365 + year.div_euclid(4) - year.div_euclid(100)
            + year.div_euclid(400)
            + (month * 153 + 2) / 5
            + day
            - 719_469
    };
    let (days, clock) = match time.split_once('T') {
        Some((date, clock)) if date.len() == 10 => {
            let mut parts = date.split('-').map(number);
            (days_of(parts.next()??, parts.next()??, parts.next()??), clock.strip_suffix('Z')?)
        }
        _ => {
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let mut words = time.split_once(", ")?.1.split(' ');
            let (day, month, year) = (words.next()?, words.next()?, words.next()?);
            let month = MONTHS.find(month).filter(|_| month.len() == 3)? / 3 + 1;
            (days_of(number(year)?, month as i64, number(day)?), words.next()?)
        }
    };
    let mut parts = clock.split(['.', ':']).map(number);
    Some(days * 86_400 + parts.next()?? * 3600 + parts.next()?? * 60 + parts.next()??)
}

fn version(etag: Option<String>, last_modified: Option<String>) -> Version {
    match (etag, last_modified) {
        (Some(tag), _) if !tag.is_empty() => Version::of_etag(&tag),
        (_, Some(time)) => seconds(&time).map_or(Version::UNKNOWN, Version::of_seconds),
        (_, None) => Version::UNKNOWN,
    }
}

impl Page {
    /// Reads a `ListBucketResult` of S3 or the `EnumerationResults` of Azure, and nothing else.
    ///
    /// # Errors
    /// [`NoListing`], one line of what it is instead.
    pub fn parse(xml: &[u8]) -> Result<Page, NoListing> {
        Page::read(xml).map_err(|what| NoListing(one_line(&what).into_owned()))
    }

    fn read(xml: &[u8]) -> Result<Page, String> {
        let text = std::str::from_utf8(xml).map_err(|_| "it is not text".to_string())?;
        match root(text) {
            Some("ListBucketResult") => {}
            Some("EnumerationResults") => return Page::of_azure(text),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let code = super::between(text, "<Code>", "</Code>").filter(|_| other == "Error");
                let code = code.map(|code| format!(" ({})", code.chars().take(40).collect::<String>()));
                return Err(format!("it is <{other}>{}", code.unwrap_or_default()));
            }
            None => return Err("it is no XML".to_string()),
        }
        let list: ListBucketResult =
            quick_xml::de::from_str(text).map_err(|error| format!("it is damaged: {error}"))?;
        let next = list.next_continuation_token.filter(|token| !token.is_empty());
        let next = match (list.is_truncated, next) {
            (Some(true), None) => {
                return Err("it breaks off without saying how to go on".to_string());
            }
            (Some(false), _) => None,
            (_, next) => next,
        };
        let object = |contents: Contents| PageObject {
            key: contents.key,
            bytes: contents.size,
            version: version(contents.etag, contents.last_modified),
        };
        Ok(Page { form: ListingForm::S3, objects: list.contents.into_iter().map(object).collect(), next })
    }

    fn of_azure(text: &str) -> Result<Page, String> {
        let list: EnumerationResults =
            quick_xml::de::from_str(text).map_err(|error| format!("it is damaged: {error}"))?;
        let is_object = |blob: &Blob| blob.properties.resource_type.as_deref() != Some("directory");
        let object = |Blob { name, properties }: Blob| PageObject {
            key: name,
            bytes: properties.bytes,
            version: version(properties.etag, properties.last_modified),
        };
        Ok(Page {
            form: ListingForm::Azure,
            objects: list.blobs.blobs.into_iter().filter(is_object).map(object).collect(),
            next: list.next_marker.filter(|marker| !marker.is_empty()),
        })
    }
}

/// The name of the outermost element.
pub(super) fn root(mut text: &str) -> Option<&str> {
    text = text.trim_start_matches('\u{feff}');
    loop {
        text = text.trim_start().strip_prefix('<')?;
        let skipped = match text {
            _ if text.starts_with('?') => text.find("?>")? + 2,
            _ if text.starts_with("!--") => text.find("-->")? + 3,
            _ if text.starts_with('!') => text.find('>')? + 1,
            _ => return text.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next(),
        };
        text = &text[skipped..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_every_key_however_odd() {
        let page = Page::parse(
            b"<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3/\"><IsTruncated>true</IsTruncated>\
              <NextContinuationToken>n&amp;1</NextContinuationToken>\
              <Contents><Key>a//x.png</Key><Size>7</Size><ETag>&quot;t&quot;</ETag></Contents>\
              <Contents><Key>./z &lt;1&gt;.png</Key><Size>0</Size><LastModified>2024-02-29T12:00:01.000Z</LastModified></Contents>\
              </ListBucketResult>",
        )
        .expect("a page");
        assert_eq!(page.next.as_deref(), Some("n&1"));
        let object = |key: &str, bytes, version| PageObject { key: key.to_string(), bytes, version };
        let expected = [
            object("a//x.png", 7, Version::of_etag("t")),
            object("./z <1>.png", 0, Version::of_seconds(1_709_208_001)),
        ];
        assert_eq!(page.objects, expected);
        assert_eq!(page.form, ListingForm::S3);
        let last = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        assert_eq!(
            Page::parse(last.as_bytes()),
            Ok(Page { form: ListingForm::S3, objects: vec![], next: None })
        );
    }

    #[test]
    fn a_page_of_azure_has_its_objects_and_no_folders() {
        let blob = |name: &str, more: &str| {
            format!(
                "<Blob><Name>{name}</Name><Properties><Last-Modified>now</Last-Modified><Etag>0x8D</Etag>\
                 <Content-Length>7</Content-Length>{more}</Properties><OrMetadata /></Blob>"
            )
        };
        let text = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\"><Prefix>a/</Prefix>\
             <Blobs>{}{}</Blobs><NextMarker>2!80!x</NextMarker></EnumerationResults>",
            blob("a/x y.png", "<BlobType>BlockBlob</BlobType><ResourceType>file</ResourceType>"),
            blob("a/b", "<ResourceType>directory</ResourceType>")
        );
        let object = PageObject { key: "a/x y.png".to_string(), bytes: 7, version: Version::of_etag("0x8D") };
        let page = Page { form: ListingForm::Azure, objects: vec![object], next: Some("2!80!x".to_string()) };
        assert_eq!(Page::parse(text.as_bytes()), Ok(page));
        let empty = Page { form: ListingForm::Azure, objects: vec![], next: None };
        assert_eq!(Page::parse(ListingForm::Azure.empty()), Ok(empty.clone()));
        let last = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
        assert_eq!(Page::parse(last.as_bytes()), Ok(empty));
        let cut = &text[..text.len() - 90];
        assert!(Page::parse(cut.as_bytes()).is_err(), "{cut}");
    }

    #[test]
    fn a_time_is_the_same_in_a_listing_and_in_a_header() {
        for (listed, header, expected) in [
            ("1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("2024-02-29T23:59:59.999Z", "Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("2026-12-31T08:07:06.000Z", "Thu, 31 Dec 2026 08:07:06 GMT", 1_798_704_426),
        ] {
            assert_eq!((seconds(listed), seconds(header)), (Some(expected), Some(expected)), "{listed}");
        }
        for odd in ["", "now", "2024-02-29", "29 Feb 2024", "Thu, 29 Feb"] {
            assert_eq!(seconds(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_is_no_listing_is_no_empty_page() {
        let refused = |text: &str| Page::parse(text.as_bytes()).expect_err(text).0;
        assert_eq!(refused("<!DOCTYPE html>\n<html><body>Log in</body></html>"), "it is <html>");
        assert_eq!(refused("<Error><Code>SlowDown</Code></Error>"), "it is <Error> (SlowDown)");
        assert_eq!(refused(""), "it is no XML");
        assert_eq!(refused("{\"a\": 1}"), "it is no XML");
        let cut = "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>";
        assert!(refused(cut).starts_with("it is damaged"), "{}", refused(cut));
        let lost = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert_eq!(refused(lost), "it breaks off without saying how to go on");
    }
}
