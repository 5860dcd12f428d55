//! Buckets of Google Cloud Storage.

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

use super::super::http::Addressed;
use super::super::limit::RequestLimit;
use super::super::{StoreOptions, innermost, one_line};
use super::cloud::{
    Cloud, Codes, Opened, Settings, Variables, endpoint, environment, is_on, one_value, one_word, redacted,
};

/// Google Cloud Storage, by its XML API, which answers much as S3 does.
pub(super) const GOOGLE: Cloud = Cloud {
    scheme: "gs",
    name: "Google Cloud Storage",
    bucket: "bucket",
    keys: "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
    renew: "renew GOOGLE_BEARER_TOKEN",
    move_to_region: "check the endpoint",
    codes: Codes {
        no_object: &["NoSuchKey"],
        no_bucket: &["NoSuchBucket"],
        denied: &["AccessDenied"],
        bad_credentials: &["SignatureDoesNotMatch", "InvalidSecurity", "InvalidAccessKeyId"],
        old_credentials: &["ExpiredToken", "InvalidToken", "TokenRefreshRequired"],
        other_region: &[],
    },
};

/// Where the store is when no variable and no option says another place.
const USUAL: &str = "https://storage.googleapis.com";

pub(super) fn open(
    bucket: &str,
    options: &StoreOptions,
    limit: &RequestLimit,
    variables: Variables,
) -> Result<Opened, String> {
    use GoogleConfigKey::{
        ApplicationCredentials, BaseUrl, BearerToken, ServiceAccount, ServiceAccountKey, SkipSignature,
    };
    let key = |name: &str| match name {
        "GOOGLE_BUCKET" | "GOOGLE_BUCKET_NAME" => None,
        _ if name.starts_with("GOOGLE_") => name.to_ascii_lowercase().parse().ok(),
        _ => None,
    };
    let known = environment(variables, key, |name, key, value| match key {
        BaseUrl => endpoint(name, &value, GOOGLE.keys),
        BearerToken => one_word(name, &value),
        // JSON has lines.
        ServiceAccountKey => Ok(value),
        _ => one_value(name, value),
    })?;
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
    for (key, value) in known {
        builder = builder.with_config(key, value);
    }
    if let Some(address) = &options.endpoint {
        builder = builder.with_base_url(&endpoint("the endpoint", address, GOOGLE.keys)?);
    }
    let value = |key: GoogleConfigKey| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let is_unsigned = options.anonymous || is_on(value(SkipSignature));
    let (token, json) = (value(BearerToken), value(ServiceAccountKey));
    let has_file = value(ServiceAccount).is_some() || value(ApplicationCredentials).is_some();
    if !is_unsigned && token.is_none() && json.is_none() && !has_file && !options.instance_metadata {
        return Err("no credentials: set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to the path of a JSON \
             file of credentials, or ask for anonymous access or the machine's metadata service"
            .to_string());
    }
    let address = value(BaseUrl);
    let host = address.as_deref().unwrap_or(USUAL).split("://").nth(1).unwrap_or_default();
    let addressed = match is_unsigned {
        true => Addressed::All,
        false => Addressed::ToHost(host.split('/').next().unwrap_or_default().to_ascii_lowercase()),
    };
    if is_unsigned {
        // With a token that is never sent nobody looks for another one, in files of the user or at a metadata service.
        builder = builder.with_skip_signature(true).with_bearer_token("");
    }
    let asks_others = !is_unsigned && token.is_none();
    let settings = Settings::new(GOOGLE.name, addressed, address.as_deref(), asks_others, limit);
    for (key, value) in settings.client {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    let secrets: Vec<String> =
        [token, json].into_iter().flatten().filter(|secret| secret.len() >= 4).collect();
    let built = builder.with_http_connector(settings.watching).with_retry(settings.retry).build();
    let whole = built.map_err(|error| match has_file {
        // What stands in a file of credentials is not repeated.
        true => format!(
            "the file of GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT cannot be used: {}",
            kind(&innermost(&error))
        ),
        false => redacted(&one_line(&innermost(&error)), &secrets),
    })?;
    Ok(Opened::new(whole, address, secrets))
}

/// The first sentence of what is wrong with a file, without what stands in it.
fn kind(text: &str) -> String {
    one_line(text.split(['`', '"', '{']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::Bucket;
    use super::super::cloud::opened;
    use super::*;

    fn open(named: &[(&str, &str)], options: &StoreOptions) -> Result<Bucket, String> {
        opened((&GOOGLE, super::open), "bucket/pre", named, options)
    }

    #[test]
    fn credentials_of_google_come_from_its_variables() {
        let at = StoreOptions { endpoint: Some("http://localhost:1".to_string()), ..Default::default() };
        let said = open(&[], &at).expect_err("no credentials");
        assert!(said.starts_with("no credentials: set GOOGLE_APPLICATION_CREDENTIALS or"), "{said}");
        // Those of another cloud are none.
        assert!(open(&[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")], &at).is_err());
        open(&[("GOOGLE_BEARER_TOKEN", "ya29.x")], &at).expect("a token");
        open(&[], &StoreOptions { anonymous: true, ..at.clone() }).expect("a public bucket");
        open(&[("GOOGLE_SKIP_SIGNATURE", "true")], &at).expect("a public bucket");
        let said = open(&[("GOOGLE_BEARER_TOKEN", "ya29 x")], &at).expect_err("two words");
        assert_eq!(said, "GOOGLE_BEARER_TOKEN holds white space or a control character");
        let said = open(&[("GOOGLE_APPLICATION_CREDENTIALS", "/no/such.json")], &at).expect_err("no file");
        assert!(said.contains("GOOGLE_APPLICATION_CREDENTIALS") && !said.contains('\n'), "{said}");
        let said = open(&[("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"private_key\": \"geheim\"}")], &at);
        assert!(!said.as_ref().is_err_and(|said| said.contains("geheim")), "{said:?}");
    }

    #[test]
    fn what_stands_in_a_file_of_credentials_is_not_repeated() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), r#"{"type": "authorized_user", "client_secret": "geheim", "x": 1"#)
            .expect("room");
        let path = file.path().to_str().expect("UTF-8");
        for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"] {
            let said = open(&[(name, path)], &StoreOptions::default()).expect_err("no JSON");
            assert!(said.contains("cannot be used") && !said.contains("geheim"), "{said}");
        }
    }
}
