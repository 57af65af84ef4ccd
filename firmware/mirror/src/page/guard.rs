//! Which requests are answered at all.
//!
//! The device's own door has no password: whoever uses this machine's browser may see the page. The network's door asks
//! for pairing. What must be kept out of both is every *other* page in the same browser. Such a page can send requests
//! here, and it can make its own name point to this machine (DNS rebinding). So: the `Host` must be a name or address of
//! this machine, a request that the browser marks as coming from another site is refused, and a change additionally
//! needs a header that a foreign page cannot send without asking first.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::page::Trouble;

/// The header that changes must carry.
pub const CHANGE_HEADER: &str = "x-mirror-change";

/// The one change that programs make without [`CHANGE_HEADER`], as its description has it; see [`is_no_browser`].
const PARSE: &str = "/parse";

/// Through which door a request came, and so by which names this machine may be called.
#[derive(Clone, Debug)]
pub enum Door {
    /// From this machine, over HTTP.
    Device,
    /// From the home network, over HTTPS.
    Network {
        /// The address that was called.
        local: IpAddr,
        /// The address that calls.
        peer: IpAddr,
        /// This machine's names.
        names: Arc<[String]>,
    },
}

impl Door {
    fn scheme(&self) -> &'static str {
        match self {
            Door::Device => "http://",
            Door::Network { .. } => "https://",
        }
    }

    /// What [`Door::is_called`] knows, for people.
    fn known_as(&self) -> String {
        let Door::Network { local, names, .. } = self else {
            return "localhost, 127.0.0.1 and [::1]".to_owned();
        };
        let own = names.iter().filter(|name| !is_loopback_name(name) && *name != "::1");
        let own: Vec<&str> = own.map(String::as_str).collect();
        format!("{} and {}", own.join(", "), local.to_canonical())
    }

    /// Whether `host`, with or without a port, is this machine. The port is free: a tunnel (`ssh -L`) may use another
    /// one.
    pub(super) fn is_called(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        match self {
            Door::Device => is_loopback_name(name),
            Door::Network { local, names, .. } => {
                let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
                match bare.unwrap_or(name).parse::<IpAddr>() {
                    Ok(address) => address.to_canonical() == local.to_canonical(),
                    Err(_) if is_loopback_name(name) => local.to_canonical().is_loopback(),
                    Err(_) => names.iter().any(|known| known.eq_ignore_ascii_case(name)),
                }
            }
        }
    }
}

fn is_loopback_name(name: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Headers of every answer.
const ANSWER: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

/// Bytes of a refusal at most.
const LONGEST_REFUSAL: usize = 4096;

/// Refuses what [`check`] refuses, and adds the headers that keep other pages out. Whatever is refused is told alike.
pub async fn guard(request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let path = request.uri().path();
    let checked = match request.extensions().get::<Door>() {
        Some(door) => check(door, request.method(), path, request.headers(), authority),
        None => Err("this request came through no door".into()),
    };
    let mut response = match checked {
        Ok(()) => told(next.run(request).await).await,
        Err(reason) => Trouble::new(StatusCode::FORBIDDEN, reason).into_response(),
    };
    for (name, value) in ANSWER {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A refusal as JSON, as [`Trouble`] is one, whoever refused: axum's own are plain text, or empty.
async fn told(response: Response) -> Response {
    let (status, headers) = (response.status(), response.headers());
    let is_json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !status.is_client_error() || is_json {
        return response;
    }
    let text = to_bytes(response.into_body(), LONGEST_REFUSAL).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let reason = || status.canonical_reason().unwrap_or("refused").to_lowercase();
    let text = if text.is_empty() { reason() } else { text };
    Trouble::new(status, text).into_response()
}

/// Why a request is refused.
///
/// `authority` is the host in the request line, which a client may send besides the header.
fn check(
    door: &Door,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), String> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next().map(|host| host.to_str()), hosts.next()) {
        (Some(Ok(host)), None) => host,
        _ => return Err("a request needs exactly one Host header".into()),
    };
    for host in [Some(host), authority].into_iter().flatten() {
        if !door.is_called(host) {
            return Err(format!(
                "this page answers to {} only, not to `{}`",
                door.known_as(),
                host.escape_debug()
            ));
        }
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let navigation = text("sec-fetch-mode") == Some("navigate") && method == Method::GET;
    match text("sec-fetch-site") {
        // Typed, bookmarked, ours, or no browser at all.
        None | Some("same-origin" | "none") => {}
        // A link to the page: the browser shows it as a page of its own, and no frame is allowed.
        Some(_) if navigation && text("sec-fetch-dest") == Some("document") => {}
        Some(_) => return Err("requests from another site's page are refused".into()),
    }
    if *method == Method::GET || *method == Method::HEAD {
        return Ok(());
    }
    if headers.get(CHANGE_HEADER).is_none() && !(path == PARSE && is_no_browser(headers)) {
        return Err(format!("a change needs the header {CHANGE_HEADER}: 1"));
    }
    match headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or("?")) {
        Some(origin) if origin.strip_prefix(door.scheme()) != Some(host) => {
            Err("changes from another site's page are refused".into())
        }
        _ => Ok(()),
    }
}

/// A browser tells where a form or a script comes from, in one of these or in both; a program sends neither.
fn is_no_browser(headers: &HeaderMap) -> bool {
    ["origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "referer"]
        .iter()
        .all(|name| !headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &Method, headers: &[(&'static str, &'static str)]) -> Result<(), String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        check(&Door::Device, method, "/api/camera", &map, None)
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:8080");
    const CHANGE: (&str, &str) = (CHANGE_HEADER, "1");

    #[test]
    fn loopback_names_are_answered_with_any_port() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "[::1]"] {
            assert!(Door::Device.is_called(host), "{host}");
        }
        for host in [
            "",
            ":",
            ":8080",
            "localhost.evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "0.0.0.0:8080",
            "192.168.1.7",
            "::1",
            "[::1",
            "localhost:8080:evil",
            "localhost:http",
            "127.0.0.1@evil.example",
            "127.0.0.2",
        ] {
            assert!(!Door::Device.is_called(host), "{host}");
        }
    }

    #[test]
    fn a_rebound_name_sees_nothing() {
        assert!(answer(&Method::GET, &[HERE]).is_ok());
        assert!(answer(&Method::GET, &[("host", "evil.example:8080")]).is_err());
        assert!(answer(&Method::GET, &[]).is_err());
        assert!(answer(&Method::GET, &[HERE, ("host", "evil.example")]).is_err());
        let mut here = HeaderMap::new();
        here.insert(HOST, HeaderValue::from_static("127.0.0.1"));
        let called = |name| check(&Door::Device, &Method::GET, "/", &here, Some(name));
        assert!(called("evil.example").is_err());
        assert!(called("localhost:8080").is_ok());
    }

    #[test]
    fn other_sites_may_link_but_not_embed_or_read() {
        let from = |site, mode, dest| {
            let headers = [
                HERE,
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ];
            answer(&Method::GET, &headers).is_ok()
        };
        assert!(from("same-origin", "cors", "empty"));
        assert!(from("none", "navigate", "document"));
        assert!(from("cross-site", "navigate", "document"));
        assert!(!from("cross-site", "navigate", "iframe"));
        assert!(!from("cross-site", "no-cors", "image"));
        assert!(!from("same-site", "no-cors", "image"), "another port of this machine");
    }

    #[test]
    fn a_change_needs_our_own_page() {
        let post = |headers: &[(&'static str, &'static str)]| answer(&Method::POST, headers);
        let ours = ("origin", "http://127.0.0.1:8080");
        assert!(post(&[HERE, CHANGE, ours, ("sec-fetch-site", "same-origin")]).is_ok());
        assert!(post(&[HERE, CHANGE]).is_ok(), "curl on this machine");
        assert!(post(&[HERE, ours]).is_err(), "a form cannot set headers");
        assert!(post(&[HERE, CHANGE, ("sec-fetch-site", "cross-site")]).is_err());
        assert!(post(&[HERE, CHANGE, ("origin", "http://evil.example")]).is_err());
        assert!(post(&[HERE, CHANGE, ("origin", "null")]).is_err());
        assert!(post(&[HERE, CHANGE, ("origin", "http://127.0.0.1:3000")]).is_err());
        let navigate = ("sec-fetch-mode", "navigate");
        let document = ("sec-fetch-dest", "document");
        let form = [HERE, CHANGE, ("sec-fetch-site", "cross-site"), navigate, document];
        assert!(post(&form).is_err(), "a form that is sent by another site");
    }

    fn network(local: &str) -> Door {
        let names = ["localhost", "127.0.0.1", "::1", "kitchen", "kitchen.local"];
        Door::Network {
            local: local.parse().expect("an address"),
            peer: IpAddr::from([192, 168, 1, 20]),
            names: names.map(str::to_owned).into(),
        }
    }

    #[test]
    fn on_the_network_only_own_names_and_the_called_address_are_answered() {
        let door = network("192.168.1.7");
        for host in ["192.168.1.7:8443", "192.168.1.7", "kitchen.local:8443", "KITCHEN"] {
            assert!(door.is_called(host), "{host}");
        }
        for host in ["192.168.1.8", "localhost", "127.0.0.1", "evil.example", "kitchen.evil", ""] {
            assert!(!door.is_called(host), "{host}");
        }
        assert!(network("::ffff:192.168.1.7").is_called("192.168.1.7:8443"));
        assert!(network("fd00::7").is_called("[fd00::7]:8443"));
        assert!(network("127.0.0.1").is_called("localhost:8443"));
    }

    #[test]
    fn a_refused_name_is_told_the_right_ones() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("mirror.fritz.box:8443"));
        let checked = check(&network("::ffff:192.168.1.7"), &Method::GET, "/", &headers, None);
        let text = checked.expect_err("another name");
        assert!(text.contains("to kitchen, kitchen.local and 192.168.1.7 only"), "{text}");
    }

    #[test]
    fn on_the_network_an_origin_must_be_https() {
        let door = network("192.168.1.7");
        let post = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("192.168.1.7:8443"));
            headers.insert(CHANGE_HEADER, HeaderValue::from_static("1"));
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            check(&door, &Method::POST, "/api/camera", &headers, None)
        };
        assert!(post("https://192.168.1.7:8443").is_ok());
        assert!(post("http://192.168.1.7:8443").is_err());
        assert!(post("https://192.168.1.7").is_err());
        assert!(post("https://evil.example").is_err());
    }

    #[test]
    fn programs_may_parse_without_the_header_and_browsers_may_not() {
        let parse = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            check(&Door::Device, &Method::POST, "/parse", &map, None)
        };
        assert!(parse(&[HERE]).is_ok());
        assert!(parse(&[HERE, ("origin", "http://127.0.0.1:8080")]).is_err());
        assert!(parse(&[HERE, ("sec-fetch-site", "none")]).is_err());
        assert!(parse(&[HERE, ("referer", "http://evil.example/")]).is_err());
        assert!(parse(&[HERE, CHANGE, ("origin", "http://127.0.0.1:8080")]).is_ok());
        assert!(parse(&[HERE, CHANGE, ("origin", "http://evil.example")]).is_err());
    }
}
