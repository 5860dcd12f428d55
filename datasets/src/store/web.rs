//! The HTTP client of web servers: which redirects are followed, and what of the answers is a file.
//!
//! A server of strangers may send one on to a machine that only this one can reach: the metadata service of a cloud, a
//! printer, a database. So a redirect from a public address to a private one is refused; the rule is [`may_follow`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name as HostName};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};
use tower_service::Service;

use super::body::{paced, whole};
use super::part::{measured, part};
use super::patience::public_for_tests;
use super::resend::{Answer, Resend};
use super::strange::Strange;

/// As many as curl and browsers follow in about the same way.
const REDIRECTS_MAX: usize = 10;

/// Of a server that sends no parts of files, files up to this size are read whole for a part.
const SMALL_BYTES: usize = 16 << 20;

/// Whether an address is of this machine or of a network that the public cannot reach.
fn is_private(address: IpAddr) -> bool {
    let v4 = |address: Ipv4Addr| {
        let [a, b, ..] = address.octets();
        address.is_private()
            || address.is_loopback()
            || address.is_link_local()
            || address.is_broadcast()
            || a == 0
            // Of providers behind one address, and of benches of networks.
            || (a == 100 && (64..128).contains(&b))
            || (a == 198 && (18..20).contains(&b))
    };
    let v6 = |address: Ipv6Addr| {
        let [a, b, c, .., y, z] = address.segments();
        let inner = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Ipv4Addr::new(a, b, c, d)
        };
        address.is_loopback()
            || address.is_unspecified()
            // Unique local ones, and those of one link.
            || a & 0xfe00 == 0xfc00
            || a & 0xffc0 == 0xfe80
            // An address of version 4 in one of version 6: mapped, translated, or tunnelled.
            || address.to_ipv4_mapped().is_some_and(v4)
            || ([a, b] == [0x64, 0xff9b] && v4(inner(y, z)))
            || (a == 0x2002 && v4(inner(b, c)))
    };
    match address {
        _ if public_for_tests() == Some(address) => false,
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

/// Whether a redirect may be followed to a server with these addresses.
fn may_follow(from_is_private: bool, to: &[IpAddr], allow_private: bool) -> bool {
    allow_private || from_is_private || !to.iter().any(|address| is_private(*address))
}

/// Whether a redirect leads from a server that nobody can pretend to be to one that anybody on the way can.
fn is_downgrade(from: &Url, to: &Url) -> bool {
    from.scheme() == "https" && to.scheme() != "https"
}

/// The addresses of a host.
async fn look_up(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    let name: HostName = host.parse().map_err(std::io::Error::other)?;
    Ok(GaiResolver::new().call(name).await?.collect())
}

/// The address that a URL names without a name.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Looks hosts up, and remembers which are private.
#[derive(Clone, Debug)]
struct Names {
    is_private: Arc<Mutex<HashMap<String, bool>>>,
    /// Gives no address of a private host: one that was public a moment ago may be another now.
    only_public: bool,
}

impl Names {
    /// Whether the server of a URL that was asked is private. Behind a proxy nobody looked its name up, and it counts as
    /// public.
    fn was_private(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let seen = || self.is_private.lock().expect("nothing panics while it is held").get(host).copied();
        literal(url).map(is_private).or_else(seen).unwrap_or(false)
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let Names { is_private: seen, only_public } = self.clone();
        Box::pin(async move {
            let found = look_up(name.as_str()).await?;
            let is_private = found.iter().any(|address| is_private(address.ip()));
            if is_private && only_public {
                return Err("it has a private address".into());
            }
            let mut seen = seen.lock().expect("nothing panics while it is held");
            seen.insert(name.as_str().to_string(), is_private);
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Connects to web servers.
#[derive(Debug)]
pub(super) struct WebConnector {
    pub(super) resend: Resend,
    pub(super) allow_private: bool,
    /// The address itself comes from strangers.
    pub(super) from_strangers: bool,
}

impl WebConnector {
    fn client(&self, names: &Names) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.resend.patience.connect)
            .read_timeout(self.resend.patience.silence)
            .dns_resolver(Arc::new(names.clone()))
            .build();
        let failed =
            |error: reqwest::Error| object_store::Error::Generic { store: "web", source: error.into() };
        Ok(HttpClient::new(client.map_err(failed)?))
    }
}

impl HttpConnector for WebConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let names = Names { is_private: Arc::default(), only_public: false };
        let guarded = self.client(&Names { only_public: true, ..names.clone() })?;
        Ok(HttpClient::new(WebClient {
            client: self.client(&names)?,
            from_strangers: self.from_strangers && !self.allow_private,
            guarded,
            names,
            resend: self.resend.clone(),
            allow_private: self.allow_private,
        }))
    }
}

#[derive(Debug)]
struct WebClient {
    client: HttpClient,
    /// For servers to which a public one sends.
    guarded: HttpClient,
    names: Names,
    resend: Resend,
    allow_private: bool,
    /// The first server is as one to which a public one sends.
    from_strangers: bool,
}

impl HttpService for WebClient {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.resend.send(request, |request| Box::pin(self.answer(request))))
    }
}

/// What no second try would make better.
fn hopeless(strange: Strange) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, strange)
}

impl WebClient {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = request.headers().get("range").and_then(|range| range.to_str().ok()).map(str::to_string);
        let is_get = request.method() == Method::GET;
        let response = self.follow(request).await?;
        let strange = |strange| HttpError::new(HttpErrorKind::Interrupted, strange);
        match (response.status(), asked) {
            (StatusCode::OK, Some(asked)) if is_get => self.cut(response, &asked).await,
            (StatusCode::OK, None) if is_get => {
                measured(response, self.resend.patience).await?.map_err(strange)
            }
            (StatusCode::PARTIAL_CONTENT, asked) => {
                let part = part(response, asked.as_deref()).map_err(strange)?;
                Ok(paced(part, self.resend.patience))
            }
            // It was there once, and is no more there than what never was.
            (StatusCode::GONE, _) => {
                let mut response = response;
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(paced(response, self.resend.patience))
            }
            _ => Ok(paced(response, self.resend.patience)),
        }
    }

    /// One request, and the redirects after it.
    async fn follow(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let no_url = |_| hopeless(Strange::NoAddress);
        let mut url = Url::parse(&request.uri().to_string()).map_err(no_url)?;
        let mut client = &self.client;
        if self.from_strangers {
            self.check(&url).await?;
            client = &self.guarded;
        }
        for _ in 0..=REDIRECTS_MAX {
            let mut next = HttpRequest::new(Bytes::new().into());
            *next.method_mut() = request.method().clone();
            *next.headers_mut() = request.headers().clone();
            *next.uri_mut() = url.as_str().parse().map_err(|_| hopeless(Strange::NoAddress))?;
            let response = client.execute(next).await?;
            let place = response.headers().get("location").and_then(|place| place.to_str().ok());
            let leads_on = [301, 302, 303, 307, 308].contains(&response.status().as_u16());
            let Some(place) = place.filter(|_| leads_on) else {
                return if leads_on { Err(hopeless(Strange::NoAddress)) } else { Ok(response) };
            };
            let to = url.join(place).map_err(no_url)?;
            if !["http", "https"].contains(&to.scheme()) || !to.has_host() {
                return Err(hopeless(Strange::NoAddress));
            }
            if is_downgrade(&url, &to) {
                let host = to.host_str().unwrap_or_default();
                return Err(hopeless(Strange::Plain(host.chars().take(100).collect())));
            }
            let is_private = !self.from_strangers && self.names.was_private(&url);
            if !self.allow_private && !is_private {
                self.check(&to).await?;
                client = &self.guarded;
            }
            url = to;
        }
        Err(hopeless(Strange::Redirects(REDIRECTS_MAX)))
    }

    /// Refuses a private server to which a public one sends, or that strangers name.
    async fn check(&self, to: &Url) -> Result<(), HttpError> {
        let host = to.host_str().unwrap_or_default();
        let addresses: Vec<IpAddr> = match literal(to) {
            Some(address) => vec![address],
            // Where nobody can say, a proxy may know, or connecting says what is wrong.
            None => look_up(host).await.unwrap_or_default().iter().map(SocketAddr::ip).collect(),
        };
        match may_follow(false, &addresses, self.allow_private) {
            true => Ok(()),
            false => Err(hopeless(Strange::Private(host.chars().take(100).collect()))),
        }
    }

    /// The part that was asked for, of a server that sends all of a file.
    async fn cut(&self, response: HttpResponse, asked: &str) -> Result<HttpResponse, HttpError> {
        let length = response.headers().get("content-length").and_then(|length| length.to_str().ok());
        let length: Option<u64> = length.and_then(|length| length.parse().ok());
        let too_large = || hopeless(Strange::NoParts(length));
        if length.is_some_and(|length| length > SMALL_BYTES as u64) {
            return Err(too_large());
        }
        let (mut parts, body) = response.into_parts();
        let Some(whole) = whole(body, self.resend.patience, SMALL_BYTES).await? else {
            return Err(too_large());
        };
        if length.is_some_and(|length| length != whole.len() as u64) {
            let strange = Strange::Short { announced: length.unwrap_or_default() };
            return Err(HttpError::new(HttpErrorKind::Interrupted, strange));
        }
        let range = asked.trim_start_matches("bytes=").split_once('-');
        let bounds = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok())));
        let Some((first, last)) = bounds.filter(|(first, _)| *first < whole.len()) else {
            parts.status = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(HttpResponse::from_parts(parts, Bytes::new().into()));
        };
        let last: usize = last.unwrap_or(usize::MAX).min(whole.len() - 1);
        parts.status = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {first}-{last}/{}", whole.len());
        parts.headers.insert("content-range", range.parse().expect("digits"));
        parts.headers.insert("content-length", HeaderValue::from(last + 1 - first));
        Ok(HttpResponse::from_parts(parts, whole.slice(first..=last).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    #[test]
    fn a_redirect_from_a_public_address_to_a_private_one_is_not_followed() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
        ] {
            assert!(!may_follow(false, &addresses(&[private]), false), "{private}");
            assert!(!may_follow(false, &addresses(&["1.1.1.1", private]), false), "{private} among others");
            assert!(may_follow(true, &addresses(&[private]), false), "from a private one to {private}");
            assert!(may_follow(false, &addresses(&[private]), true), "{private}, where it is allowed");
        }
        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "192.169.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(may_follow(false, &addresses(&[public]), false), "{public}");
        }
    }

    #[test]
    fn a_redirect_from_https_to_http_is_a_downgrade() {
        let url = |text: &str| Url::parse(text).expect(text);
        for (from, to, expected) in [
            ("https://a/x", "http://a/x", true),
            ("https://a/x", "https://b/x", false),
            ("http://a/x", "http://b/x", false),
            ("http://a/x", "https://a/x", false),
        ] {
            assert_eq!(is_downgrade(&url(from), &url(to)), expected, "{from} {to}");
        }
    }

    /// A server that sends everybody to one place.
    #[derive(Debug)]
    struct Redirecting(&'static str);

    impl HttpService for Redirecting {
        fn call<'a, 'b>(&'a self, _: HttpRequest) -> Answer<'b>
        where
            'a: 'b,
            Self: 'b,
        {
            let mut response = HttpResponse::new(Bytes::new().into());
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", HeaderValue::from_static(self.0));
            Box::pin(async move { Ok(response) })
        }
    }

    #[test]
    fn a_redirect_to_a_plain_address_is_refused() {
        let resend = Resend {
            patience: super::super::patience::Patience::usual(),
            limit: super::super::limit::RequestLimit::new(1),
        };
        let names = Names { is_private: Arc::default(), only_public: false };
        let to = |place| {
            let client = HttpClient::new(Redirecting(place));
            let (guarded, resend, names) = (client.clone(), resend.clone(), names.clone());
            WebClient { client, guarded, names, resend, allow_private: true, from_strangers: false }
        };
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.uri_mut() = "https://1.1.1.1/x".parse().expect("an address");
        let ask = |place| {
            let answer = futures::executor::block_on(to(place).follow(request.clone()));
            super::super::cause::<Strange>(&answer.expect_err("it leads on for ever")).cloned()
        };
        assert_eq!(ask("http://1.0.0.1/x"), Some(Strange::Plain("1.0.0.1".to_string())));
        assert_eq!(ask("https://1.0.0.1/x"), Some(Strange::Redirects(REDIRECTS_MAX)));
    }

    #[test]
    fn an_address_is_known_however_a_url_spells_it() {
        let literal = |url: &str| literal(&Url::parse(url).expect(url)).map(is_private);
        for private in ["http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://127.1:8080/x"] {
            assert_eq!(literal(private), Some(true), "{private}");
        }
        assert_eq!(literal("https://1.1.1.1/x"), Some(false));
        assert_eq!(literal("https://localhost/x"), None);
    }
}
