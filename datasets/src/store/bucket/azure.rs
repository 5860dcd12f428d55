//! Containers of Azure Blob Storage.

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::super::http::Addressed;
use super::super::limit::RequestLimit;
use super::super::{StoreOptions, innermost, one_line};
use super::cloud::{
    Cloud, Codes, Opened, Settings, Variables, endpoint, environment, is_on, one_value, one_word, redacted,
};

/// Azure Blob Storage.
pub(super) const AZURE: Cloud = Cloud {
    scheme: "az",
    name: "Azure",
    bucket: "container",
    keys: "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    renew: "renew AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_TOKEN",
    move_to_region: "check AZURE_STORAGE_ACCOUNT_NAME",
    codes: Codes {
        no_object: &["BlobNotFound"],
        no_bucket: &["ContainerNotFound"],
        denied: &[
            "AuthorizationPermissionMismatch",
            "AuthorizationFailure",
            "InsufficientAccountPermissions",
        ],
        bad_credentials: &["AuthenticationFailed", "InvalidAuthenticationInfo"],
        old_credentials: &[],
        other_region: &[],
    },
};

pub(super) fn open(
    container: &str,
    options: &StoreOptions,
    limit: &RequestLimit,
    variables: Variables,
) -> Result<Opened, String> {
    use AzureConfigKey::{
        AccessKey, AccountName, AuthorityId, ClientId, ClientSecret, Endpoint, FabricSessionToken,
        FederatedTokenFile, MsiEndpoint, SasKey, SkipSignature, Token, UseAzureCli, UseEmulator,
    };
    let key = |name: &str| match name {
        // As Azure's own command line calls them.
        "AZURE_STORAGE_ACCOUNT" => Some(AccountName),
        "AZURE_STORAGE_KEY" => Some(AccessKey),
        "AZURE_CONTAINER_NAME" => None,
        _ if name.starts_with("AZURE_") => name.to_ascii_lowercase().parse().ok(),
        _ => None,
    };
    let known = environment(variables, key, |name, key, value| match key {
        Endpoint => endpoint(name, &value, AZURE.keys),
        AccountName | AccessKey | ClientId | ClientSecret | AuthorityId | SasKey | Token => {
            one_word(name, &value)
        }
        _ => one_value(name, value),
    })?;
    let mut builder = MicrosoftAzureBuilder::new().with_container_name(container);
    for (key, value) in known {
        builder = builder.with_config(key, value);
    }
    if let Some(address) = &options.endpoint {
        builder = builder.with_endpoint(endpoint("the endpoint", address, AZURE.keys)?);
    }
    if options.anonymous {
        builder = builder.with_skip_signature(true);
    }
    let value = |key: AzureConfigKey| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let is_emulator = is_on(value(UseEmulator));
    let is_unsigned = is_on(value(SkipSignature));
    if value(AccountName).is_none() && !is_emulator {
        return Err("the storage account is not named: set AZURE_STORAGE_ACCOUNT_NAME".to_string());
    }
    let has_client = value(ClientId).is_some() && value(AuthorityId).is_some();
    let asks_others = has_client && (value(ClientSecret).is_some() || value(FederatedTokenFile).is_some())
        || is_on(value(UseAzureCli))
        || value(MsiEndpoint).is_some()
        || options.instance_metadata;
    let has_own = [AccessKey, SasKey, Token].into_iter().any(|key| value(key).is_some());
    if !is_unsigned && !has_own && !asks_others && !is_emulator {
        return Err("no credentials: set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, \
             AZURE_CLIENT_SECRET and AZURE_TENANT_ID, or ask for anonymous access or the machine's metadata service"
            .to_string());
    }
    let address = value(Endpoint);
    let secrets: Vec<String> = [AccessKey, ClientSecret, SasKey, Token, FabricSessionToken]
        .into_iter()
        .filter_map(value)
        .filter(|secret| secret.len() >= 4)
        .collect();
    // Of the parameters of a shared access signature, the signature alone gives access.
    let signatures: Vec<String> = secrets
        .iter()
        .flat_map(|secret| secret.split('&').filter_map(|part| part.strip_prefix("sig=")))
        .map(str::to_string)
        .collect();
    let secrets = [secrets, signatures].concat();
    // Each request to the store says which version of its interface it means, and none for credentials does.
    let addressed = Addressed::WithHeader("x-ms-version");
    let settings =
        Settings::new(AZURE.name, addressed, address.as_deref(), asks_others && !is_unsigned, limit);
    for (key, value) in settings.client {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let whole = builder
        .with_http_connector(settings.watching)
        .with_retry(settings.retry)
        .build()
        .map_err(|error| redacted(&one_line(&innermost(&error)), &secrets))?;
    Ok(Opened::new(whole, address, secrets))
}

#[cfg(test)]
mod tests {
    use super::super::Bucket;
    use super::super::cloud::opened;
    use super::*;

    const ACCOUNT: (&str, &str) = ("AZURE_STORAGE_ACCOUNT_NAME", "me");
    const KEY: (&str, &str) = ("AZURE_STORAGE_ACCOUNT_KEY", "Z2VoZWltZ2VoZWlt");

    fn open(named: &[(&str, &str)], options: &StoreOptions) -> Result<Bucket, String> {
        opened((&AZURE, super::open), "pictures/pre", named, options)
    }

    #[test]
    fn account_and_credentials_of_azure_come_from_its_variables() {
        let at = StoreOptions { endpoint: Some("http://localhost:1/me".to_string()), ..Default::default() };
        let refused = |named: &[(&str, &str)]| open(named, &at).expect_err("refused");
        assert_eq!(refused(&[]), "the storage account is not named: set AZURE_STORAGE_ACCOUNT_NAME");
        assert!(refused(&[ACCOUNT]).starts_with("no credentials: set AZURE_STORAGE_ACCOUNT_KEY or"));
        open(&[ACCOUNT, KEY], &at).expect("a key");
        open(&[("AZURE_STORAGE_ACCOUNT", "me"), ("AZURE_STORAGE_KEY", KEY.1)], &at).expect("as az has them");
        open(&[ACCOUNT, ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=geheim")], &at).expect("a signature");
        open(&[ACCOUNT], &StoreOptions { anonymous: true, ..at.clone() }).expect("a public container");
        let said = refused(&[ACCOUNT, ("AZURE_STORAGE_ACCOUNT_KEY", "geheim geheim")]);
        assert_eq!(said, "AZURE_STORAGE_ACCOUNT_KEY holds white space or a control character");
        let said = refused(&[ACCOUNT, ("AZURE_STORAGE_ACCOUNT_KEY", "no base64 !geheim")]);
        assert!(!said.contains("geheim") && !said.contains('\n'), "{said}");
        let said = refused(&[ACCOUNT, KEY, ("AZURE_STORAGE_ENDPOINT", "nowhere")]);
        assert!(said.starts_with("AZURE_STORAGE_ENDPOINT nowhere has no scheme"), "{said}");
    }

    #[test]
    fn a_signature_is_hidden_also_where_it_stands_alone() {
        let at = StoreOptions { endpoint: Some("http://localhost:1/me".to_string()), ..Default::default() };
        let bucket = open(&[ACCOUNT, ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=geheim")], &at).expect("opens");
        let error =
            object_store::Error::Generic { store: "x", source: "no geheim, no sv=1&sig=geheim".into() };
        let said = bucket.explain("read", &error, &str::to_string).to_string();
        assert_eq!(said, "no [hidden], no [hidden]");
    }

    #[test]
    fn refusals_of_azure_say_what_to_do() {
        let at = StoreOptions { endpoint: Some("http://localhost:1/me".to_string()), ..Default::default() };
        let bucket = open(&[ACCOUNT, KEY], &at).expect("opens");
        let said = |verb: &str, code: &str, is_missing: bool| {
            let source =
                std::io::Error::other(format!("status code: 404: <Error><Code>{code}</Code></Error>"));
            let (path, source) = ("x".to_string(), source.into());
            let error = match is_missing {
                true => object_store::Error::NotFound { path, source },
                false => object_store::Error::PermissionDenied { path, source },
            };
            bucket.explain(verb, &error, &|reason: &str| format!("cannot {verb} x: {reason}"))
        };
        assert!(said("read", "BlobNotFound", true).loses_only_this_object());
        assert!(said("read", "AuthorizationPermissionMismatch", false).loses_only_this_object());
        let line = "cannot list x: there is no container called pictures";
        assert_eq!(said("list", "ContainerNotFound", true).to_string(), line);
        let said = said("read", "AuthenticationFailed", false);
        assert!(!said.loses_only_this_object(), "{said}");
        assert!(
            said.to_string().ends_with("check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
            "{said}"
        );
    }
}
