//! Answers that are not the store's, or not the ones to what was asked, in words.

use reqwest::StatusCode;

use super::body::PAGE_BYTES_MAX;
use super::listing::NoListing;

/// An answer that is not the store's, or not the one to what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Strange {
    #[error("{0}")]
    Listing(#[from] NoListing),
    #[error("the server answered {status} without a reason of {cloud}")]
    NoReason { status: StatusCode, cloud: &'static str },
    #[error("the server answered with something else than {cloud} does: {what}")]
    Other { cloud: &'static str, what: &'static str },
    #[error("it was changed while it was read")]
    Changed,
    #[error("the server answered {status}{}", match code.as_str() { "" => String::new(), code => format!(" ({code})") })]
    Failing { status: StatusCode, code: String },
    #[error("what comes is not what its entity tag says, and something else each time")]
    Damaged,
    #[error(
        "its entity tag is not the MD5 of what comes, the same each time, as those of other objects there are"
    )]
    OtherTag,
    #[error("the server announced {announced} bytes and sent fewer")]
    Short { announced: u64 },
    #[error("the server announces {announced} bytes where {listed} were listed")]
    Longer { announced: u64, listed: u64 },
    #[error("it leads to {0}, a private address, from a public one; --allow-private follows it")]
    Private(String),
    #[error(
        "it leads from https:// to http://{0}, where anybody on the way may change it: give that address if you trust it"
    )]
    Plain(String),
    #[error("it leads from one address to another more than {0} times")]
    Redirects(usize),
    #[error("it leads elsewhere, and names no web address")]
    NoAddress,
    #[error(
        "the server sends no parts of files, and this one has {}: download it and give its path",
        .0.map_or("no known size".to_string(), |bytes| format!("{bytes} bytes"))
    )]
    NoParts(Option<u64>),
    #[error("the server does not say how many bytes it has")]
    NoTotal,
    #[error(
        "the server does not say how many bytes the file has, and they are more than {} MiB: download it and give its path",
        PAGE_BYTES_MAX >> 20
    )]
    NoLength,
    #[error("the server sent {sent} where bytes {asked} were asked for")]
    OtherPart { asked: String, sent: String },
}
