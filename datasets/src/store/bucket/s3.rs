//! Buckets of S3, and of what speaks as it does.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::super::http::Addressed;
use super::super::limit::RequestLimit;
use super::super::{StoreOptions, innermost, one_line};
use super::cloud::{
    Cloud, Codes, Opened, Settings, Variables, endpoint, environment, is_on, one_value, one_word, redacted,
};

/// S3.
pub(super) const S3: Cloud = Cloud {
    scheme: "s3",
    name: "S3",
    bucket: "bucket",
    keys: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    renew: "renew AWS_SESSION_TOKEN",
    move_to_region: "set AWS_REGION or the region option",
    codes: Codes {
        no_object: &["NoSuchKey"],
        no_bucket: &["NoSuchBucket"],
        denied: &["AccessDenied"],
        bad_credentials: &["SignatureDoesNotMatch", "InvalidAccessKeyId", "AuthFailure", "InvalidSecurity"],
        old_credentials: &["ExpiredToken", "InvalidToken", "TokenRefreshRequired"],
        other_region: &[
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        ],
    },
};

pub(super) fn open(
    bucket: &str,
    options: &StoreOptions,
    limit: &RequestLimit,
    variables: Variables,
) -> Result<Opened, String> {
    let mut builder = from_environment(variables)?.with_bucket_name(bucket);
    if let Some(region) = &options.region {
        builder = builder.with_region(one_word("the region", region)?);
    }
    if let Some(address) = &options.endpoint {
        // The variable for S3 alone would otherwise beat the option.
        let address = endpoint("the endpoint", address, S3.keys)?;
        builder = builder
            .with_endpoint(&address)
            .with_config(AmazonS3ConfigKey::S3Endpoint, &address)
            .with_virtual_hosted_style_request(false);
    }
    if options.anonymous {
        builder = builder.with_skip_signature(true);
    }
    let value = |key: AmazonS3ConfigKey| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let key_id = value(AmazonS3ConfigKey::AccessKeyId);
    let secret = value(AmazonS3ConfigKey::SecretAccessKey);
    let token = value(AmazonS3ConfigKey::Token);
    let address = value(AmazonS3ConfigKey::S3Endpoint).or(value(AmazonS3ConfigKey::Endpoint));
    let is_unsigned = is_on(value(AmazonS3ConfigKey::SkipSignature));
    let elsewhere = value(AmazonS3ConfigKey::WebIdentityTokenFile).is_some()
        || value(AmazonS3ConfigKey::ContainerCredentialsRelativeUri).is_some()
        || value(AmazonS3ConfigKey::ContainerCredentialsFullUri).is_some();
    match (&key_id, &secret) {
        (Some(_), None) => return Err("AWS_SECRET_ACCESS_KEY is not set".to_string()),
        (None, Some(_)) => return Err("AWS_ACCESS_KEY_ID is not set".to_string()),
        (None, None) if !is_unsigned && !elsewhere && !options.instance_metadata => {
            return Err(
                "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN where \
                 there is one), or ask for anonymous access or the machine's metadata service"
                    .to_string(),
            );
        }
        _ => {}
    }
    // Requests for credentials bear no signature.
    let addressed = match is_unsigned {
        true => Addressed::All,
        false => Addressed::WithHeader("x-amz-content-sha256"),
    };
    let asks_others = !is_unsigned && key_id.is_none();
    let settings = Settings::new(S3.name, addressed, address.as_deref(), asks_others, limit);
    for (key, value) in settings.client {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    let secrets: Vec<String> =
        [key_id, secret, token].into_iter().flatten().filter(|secret| secret.len() >= 4).collect();
    let whole = builder
        // One request an object: the request for many has an answer of its own for each, and some servers lack it.
        .with_disable_bulk_delete(true)
        .with_http_connector(settings.watching)
        .with_retry(settings.retry)
        .build()
        .map_err(|error| redacted(&one_line(&innermost(&error)), &secrets))?;
    Ok(Opened::new(whole, address, secrets))
}

/// A builder from the `AWS_*` variables.
fn from_environment(variables: Variables) -> Result<AmazonS3Builder, String> {
    use AmazonS3ConfigKey::{
        AccessKeyId, DefaultRegion, Endpoint, Region, S3Endpoint, SecretAccessKey, StsEndpoint, Token,
    };
    let key = |name: &str| name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse().ok())?;
    let known = environment(variables, key, |name, key, value| match key {
        Endpoint | S3Endpoint | StsEndpoint => endpoint(name, &value, S3.keys),
        AccessKeyId | SecretAccessKey | Token | Region | DefaultRegion => one_word(name, &value),
        _ => one_value(name, value),
    })?;
    let builder = AmazonS3Builder::new();
    Ok(known.into_iter().fold(builder, |builder, (key, value)| builder.with_config(key, value)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::Bucket;
    use super::super::cloud::variables;
    use super::*;
    use crate::store::StoreError;

    type Named<'a> = &'a [(&'a str, &'a str)];

    fn open(named: Named, options: &StoreOptions) -> Result<(String, Bucket), StoreError> {
        open_at("bucket/pre/fix/", named, options)
    }

    fn open_at(rest: &str, named: Named, options: &StoreOptions) -> Result<(String, Bucket), StoreError> {
        Bucket::open((&S3, super::open), rest, options, variables(named))
    }

    const KEY: (&str, &str) = ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    const SECRET: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI");

    fn at(endpoint: &str) -> StoreOptions {
        StoreOptions { endpoint: Some(endpoint.to_string()), ..Default::default() }
    }

    fn refused(named: Named, options: &StoreOptions) -> String {
        match open(named, options) {
            Ok(_) => panic!("opened"),
            Err(StoreError::Correct(line)) => line.trim_start_matches("s3://bucket/pre/fix/: ").to_string(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn s3_without_credentials_says_which_variables() {
        let default = StoreOptions::default();
        assert!(refused(&[], &default).starts_with("no credentials: set AWS_ACCESS_KEY_ID and"));
        assert_eq!(refused(&[KEY], &default), "AWS_SECRET_ACCESS_KEY is not set");
        assert_eq!(refused(&[SECRET], &default), "AWS_ACCESS_KEY_ID is not set");
        let anonymous = StoreOptions { anonymous: true, ..at("http://localhost:1") };
        assert!(open(&[], &anonymous).is_ok(), "a public bucket");
        let (location, _) = open(&[KEY, SECRET], &at("http://localhost:1")).expect("opens");
        assert_eq!(location, "s3://bucket/pre/fix");
    }

    /// The value that a builder got for a key.
    fn got(named: Named, key: AmazonS3ConfigKey) -> Option<String> {
        from_environment(variables(named)).expect("an environment").get_config_value(&key)
    }

    #[test]
    fn an_empty_variable_is_an_unset_one_and_values_are_trimmed() {
        assert_eq!(got(&[KEY, SECRET, ("AWS_SESSION_TOKEN", "")], AmazonS3ConfigKey::Token), None);
        assert_eq!(got(&[("AWS_SESSION_TOKEN", " \n")], AmazonS3ConfigKey::Token), None);
        let region = |named| got(named, AmazonS3ConfigKey::Region);
        assert_eq!(region(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "eu-1")]).as_deref(), Some("eu-1"));
        assert_eq!(region(&[("AWS_REGION", "a-1"), ("AWS_DEFAULT_REGION", "eu-1")]).as_deref(), Some("a-1"));
        assert_eq!(got(&[("AWS_ENDPOINT_URL", "")], AmazonS3ConfigKey::Endpoint), None);
        let key = got(&[("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE\r\n")], AmazonS3ConfigKey::AccessKeyId);
        assert_eq!(key.as_deref(), Some("AKIDEXAMPLE"));
        open(&[KEY, SECRET, ("AWS_ENDPOINT_URL", ""), ("AWS_REGION", "")], &at("http://localhost:1"))
            .map(drop)
            .expect("opens as without them");
    }

    #[test]
    fn a_bad_variable_or_option_is_one_line_and_no_panic() {
        let default = StoreOptions::default();
        let with = |name, value| refused(&[KEY, SECRET, (name, value)], &at("http://localhost:1"));
        let line = with("AWS_SESSION_TOKEN", "geheim\nis");
        assert_eq!(line, "AWS_SESSION_TOKEN holds white space or a control character");
        assert_eq!(
            refused(&[("AWS_ACCESS_KEY_ID", "AK\nID"), SECRET], &default),
            "AWS_ACCESS_KEY_ID holds white space or a control character"
        );
        assert_eq!(with("AWS_REGION", "eu 1"), "AWS_REGION holds white space or a control character");
        assert!(
            with("AWS_ENDPOINT_URL", "localhost").starts_with("AWS_ENDPOINT_URL localhost has no scheme")
        );
        let endpoint = |text: &str| refused(&[KEY, SECRET], &at(text));
        assert_eq!(
            endpoint("localhost:9000"),
            "the endpoint localhost:9000 has no scheme: write http://localhost:9000 or https://localhost:9000"
        );
        for text in ["", "ftp://host", "http://", "http:// host"] {
            let line = endpoint(text);
            assert!(line.contains("is no address: write http://host:port"), "{line}");
        }
        let line = endpoint("http://me:geheim@host");
        assert!(line.contains("may hold no credentials") && !line.contains("geheim"), "{line}");
        for text in
            ["ich:geheim@host", "ich:geheim@host:9000/x", "://ich:geheim@host", "http://ich:ge/heim@host"]
        {
            let line = endpoint(text);
            assert!(!line.contains("heim") && !line.contains("ich"), "{line}");
        }
        let region = StoreOptions { region: Some("eu\n1".to_string()), ..at("http://localhost:1") };
        assert!(refused(&[KEY, SECRET], &region).starts_with("the region holds white space"));
        let line = with("AWS_UNSIGNED_PAYLOAD", "perhaps");
        assert!(line.contains("perhaps"), "{line}");
        for bucket in ["my bucket/x", "b\u{e9}/x", "a:b/x", "a\nb"] {
            let error = open_at(bucket, &[KEY, SECRET], &default).expect_err("refused").to_string();
            assert!(error.contains("is no name of a bucket") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_a_server_says_becomes_one_line_without_secrets() {
        let (_, store) = open(&[KEY, SECRET], &at("http://localhost:1")).expect("opens");
        let explain = |verb: &str, error: &object_store::Error| {
            store.explain(verb, error, &|reason: &str| format!("cannot {verb} x: {reason}"))
        };
        let said = |verb: &str, code: &str, error: fn(String, io::Error) -> object_store::Error| {
            let code = if code.is_empty() { String::new() } else { format!("<Code>{code}</Code>") };
            let body = format!("status code: 403 Forbidden: <Error>\n{code}<K>AKIDEXAMPLE</K></Error>");
            explain(verb, &error("x".to_string(), io::Error::other(body)))
        };
        let denied =
            |path, source: io::Error| object_store::Error::PermissionDenied { path, source: source.into() };
        let missing = |path, source: io::Error| object_store::Error::NotFound { path, source: source.into() };
        let other =
            |_, source: io::Error| object_store::Error::Generic { store: "S3", source: source.into() };
        let stop = |line: &str| StoreError::Stop(line.to_string());
        assert_eq!(
            said("list", "SignatureDoesNotMatch", denied),
            stop(
                "cannot list x: the server refused the credentials (SignatureDoesNotMatch): \
                 check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        );
        assert_eq!(
            said("read", "NoSuchBucket", missing),
            stop("cannot read x: there is no bucket called bucket")
        );
        assert!(said("read", "AccessDenied", denied).loses_only_this_object());
        assert!(said("read", "NoSuchKey", missing).loses_only_this_object());
        // What something in between says costs the run and not the sample.
        for refusal in [denied, missing] {
            let error = said("read", "", refusal);
            assert!(!error.loses_only_this_object(), "{error}");
            assert!(error.to_string().contains("answered 403 Forbidden without a reason of S3"), "{error}");
        }
        assert!(!said("read", "RequestExpired", denied).loses_only_this_object());
        assert_eq!(
            said("write", "AccessDenied", denied),
            stop("cannot write x: access denied (AccessDenied): the credentials may not do this here")
        );
        assert_eq!(
            said("write", "Odd", other),
            stop("cannot write x: the server answered 403 Forbidden (Odd)")
        );
        let plain =
            object_store::Error::Generic { store: "S3", source: "a\nwJalrXUtnFEMI AKIDEXAMPLE".into() };
        assert_eq!(explain("write", &plain), stop("cannot write x: a [hidden] [hidden]"));
    }
}
