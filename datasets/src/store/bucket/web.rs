//! A folder of a web server as a bucket that can be read and cannot be listed.

use object_store::ObjectStore;
use object_store::http::HttpBuilder;
use reqwest::Url;

use super::super::limit::RequestLimit;
use super::super::patience::Patience;
use super::super::resend::Resend;
use super::super::web::WebConnector;
use super::super::{StoreError, StoreOptions, innermost, one_line};
use super::cloud::{Cloud, Codes, install_tls, is_plain, retries, without_secrets};
use super::{Arc, Bucket};
use crate::escape::escape_text;

/// The web. What S3, Google and Azure answer to those who read their buckets by plain URLs, it answers too.
const WEB: Cloud = Cloud {
    scheme: "https",
    name: "a web server",
    bucket: "folder",
    keys: "nothing: only public files are read from the web",
    renew: "",
    move_to_region: "check the address",
    codes: Codes {
        no_object: &["", "NoSuchKey", "BlobNotFound"],
        no_bucket: &[],
        denied: &["", "AccessDenied"],
        bad_credentials: &[],
        old_credentials: &[],
        other_region: &[],
    },
};

impl Bucket {
    /// Opens the folder at an `http://` or `https://` URL; also gives the location as messages name it.
    pub(in super::super) fn open_web(
        location: &str,
        options: &StoreOptions,
    ) -> Result<(String, Bucket), StoreError> {
        let shown = escape_text(&without_secrets(location)).into_owned();
        let correct = |what: &str| StoreError::Correct(format!("{shown}: {what}"));
        let url = Url::parse(location).ok().filter(Url::has_host);
        let mut url = url.ok_or_else(|| correct("no address: write https://host/folder"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(correct("a URL may hold no credentials: only public files are read from the web"));
        }
        if url.query().is_some() {
            return Err(correct(
                "a URL with a query (?..) is not read: download the file, and give its path",
            ));
        }
        if url.fragment().is_some() {
            return Err(correct(
                "a URL with a fragment (#..) names no file: leave it out, or write %23 for a #",
            ));
        }
        let path = url.path().trim_end_matches('/').to_string();
        url.set_path(&path);
        install_tls();
        let patience = Patience::usual();
        let resend = Resend { patience, limit: RequestLimit::new(options.requests_max) };
        let connector = WebConnector {
            resend,
            allow_private: options.allow_private,
            from_strangers: options.from_strangers,
        };
        let whole = HttpBuilder::new()
            .with_url(url.as_str())
            .with_http_connector(connector)
            .with_retry(retries(&patience))
            .build()
            .map_err(|error| correct(&one_line(&innermost(&error))))?;
        let whole: Arc<dyn ObjectStore> = Arc::new(whole);
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or(host.to_string(), |port| format!("{host}:{port}"));
        let bucket = Bucket {
            cloud: &WEB,
            objects: Arc::clone(&whole),
            whole,
            pages: None,
            bucket: format!("{host}{path}").into(),
            endpoint: format!("the address ({}://{host})", url.scheme()).into(),
            tags_are_md5: Arc::default(),
            is_plain: is_plain(url.as_str()),
            is_anonymous: false,
            prefix: "".into(),
            secrets: Arc::new([]),
        };
        Ok((shown.trim_end_matches('/').to_string(), bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_secrets_is_a_folder_of_a_web_server() {
        let open = |location: &str| Bucket::open_web(location, &StoreOptions::default());
        let (location, bucket) = open("https://host:8443/data%20sets/x/").expect("opens");
        assert_eq!(
            (&*location, bucket.server()),
            ("https://host:8443/data%20sets/x", "the address (https://host:8443)")
        );
        for (location, says) in [
            ("https://", "https://: no address: write https://host/folder"),
            ("https://me:geheim@host/x", "https://host/x: a URL may hold no credentials"),
            ("https://host/x?token=geheim", "https://host/x: a URL with a query"),
            ("https://me:ge?heim@host/x", "https://..: "),
        ] {
            let said = open(location).expect_err(location).to_string();
            assert!(said.starts_with(says) && !said.contains("geheim"), "{said}");
        }
    }
}
