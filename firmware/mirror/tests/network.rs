//! The network's door: what somebody who is not paired gets, pairing, and the end of a pairing.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::{Answer, Folder, Running, answer, mirror, output, stdout};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use sha2::{Digest, Sha256};

/// Trusts the one certificate whose fingerprint the mirror shows, as its owner does.
#[derive(Debug)]
struct Fingerprint(String);

impl ServerCertVerifier for Fingerprint {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest: String =
            Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
        match digest == self.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General("another certificate".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A mirror that lets paired browsers in.
struct Home {
    running: Running,
    address: String,
    tls: Arc<ClientConfig>,
}

impl Home {
    fn start(folder: &Folder) -> Home {
        let mut command = mirror(folder);
        command.args(["run", "--source", "demo", "--display", "headless"]);
        command.env("MIRROR_PAGE_ACCESS", "paired");
        command.env("MIRROR_PAGE_NETWORK_LISTEN", "127.0.0.1:0");
        let running = Running::start(&mut command);
        running
            .wait_for("network door", |_| running.get("/api/access").json()["network"].is_string());
        let access = running.get("/api/access").json();
        let text = |key: &str| access[key].as_str().expect("a text").to_owned();
        let address =
            text("network").trim_start_matches("https://").trim_end_matches('/').to_owned();
        let verifier = Arc::new(Fingerprint(text("fingerprint").replace(' ', "")));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("usual versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Home { running, address, tls: Arc::new(tls) }
    }

    fn open(&self, request: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let stream = TcpStream::connect(&self.address).expect("the door listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a valid time");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).expect("a client");
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(request.as_bytes()).expect("the door reads");
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            text += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let mut bytes = Vec::new();
        // A server that ends without TLS's farewell has still answered.
        let _ = self.open(&text).read_to_end(&mut bytes);
        answer(&bytes)
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json"), ("x-mirror-change", "1")];
        self.ask("POST", path, &headers, body)
    }

    fn code(&self) -> String {
        let host = self.running.host();
        let headers = [("host", host.as_str()), ("x-mirror-change", "1")];
        let shown = self.running.request("POST", "/api/pairing", &headers, "").json();
        shown["code"].as_str().expect("told on the device").to_owned()
    }

    /// Pairs a browser; its cookie.
    fn pair(&self, name: &str) -> String {
        let body = format!("{{\"code\":\"{}\",\"name\":\"{name}\"}}", self.code());
        let answer = self.post("/api/pairing/finish", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
        for part in ["__Host-", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(part), "{part}: {cookie}");
        }
        cookie.split(';').next().expect("a first part").to_owned()
    }
}

/// Every address that the page has.
const PATHS: [&str; 16] = [
    "/preview.mjpg",
    "/page.js",
    "/learn.js",
    "/learn.css",
    "/correct.js",
    "/access.js",
    "/metrics",
    "/api/state",
    "/api/settings",
    "/api/access",
    "/api/learning",
    "/api/frozen/1/picture.png",
    "/api/frozen/1/parts",
    "/api/corrections/0/picture.png",
    "/api/corrections/0/mask.png",
    "/nowhere",
];

const CHANGES: [&str; 12] = [
    "/parse",
    "/api/camera",
    "/api/freeze",
    "/api/frozen/1/save",
    "/api/frozen/1/discard",
    "/api/learning/consent",
    "/api/learning/train",
    "/api/learning/undo",
    "/api/learning/delete",
    "/api/corrections/remove",
    "/api/browsers/remove",
    "/api/browsers/remove-all",
];

/// How JPEG and PNG files begin.
fn has_picture(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|four| four.starts_with(b"\xFF\xD8\xFF") || four == b"\x89PNG")
}

#[test]
fn whoever_is_not_paired_gets_the_pairing_page_and_nothing_else() {
    let folder = Folder::new("unpaired");
    let home = Home::start(&folder);
    home.running.wait_for("overlay", |state| state["counters"]["overlays"].as_u64() > Some(0));
    let page = home.ask("GET", "/", &[], "");
    assert!(page.status == 200 && page.text().contains("Pair this browser"), "{}", page.text());
    assert_eq!(home.ask("GET", "/healthz", &[], "").text(), "ok\n");
    for cookie in ["", "__Host-mirror=", "__Host-mirror=00ff", "mirror=x; __Host-mirror=y"] {
        for path in PATHS {
            let answer = home.ask("GET", path, &[("cookie", cookie)], "");
            assert_eq!(answer.status, 401, "{path}");
            assert!(!has_picture(&answer.body) && answer.body.len() < 200, "{path}");
        }
    }
    for path in CHANGES {
        let answer = home.post(path, "{\"on\":false,\"id\":\"x\",\"number\":0}");
        assert_eq!(answer.status, 401, "{path}");
    }
    assert_eq!(home.running.state()["camera_wanted"], true, "nothing was changed");
    let shown = home.post("/api/pairing", "").json();
    assert!(shown["code"].is_null() && shown["seconds_left"].as_u64() > Some(100), "{shown}");
    assert_eq!(shown["on_screen"], false, "nobody sees a headless display");
    assert_eq!(home.ask("GET", "/", &[("host", "evil.example")], "").status, 403);
    let foreign = [("x-mirror-change", "1"), ("origin", "https://evil.example")];
    assert_eq!(home.ask("POST", "/api/pairing", &foreign, "").status, 403);
    let plain = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", home.address);
    let mut stream = TcpStream::connect(&home.address).expect("the door listens");
    stream.write_all(plain.as_bytes()).expect("a socket");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP"), "no answer without TLS");
}

#[test]
fn a_paired_browser_sees_the_page_until_its_pairing_ends() {
    let folder = Folder::new("paired");
    let home = Home::start(&folder);
    home.running.wait_for("overlay", |state| state["counters"]["overlays"].as_u64() > Some(0));
    let cookie = home.pair("Ada's phone");
    let other = home.pair("Tablet");
    assert_ne!(cookie, other);
    let state = home.ask("GET", "/api/state", &[("cookie", &cookie)], "");
    assert_eq!(state.status, 200, "{}", state.text());
    let access = home.ask("GET", "/api/access", &[("cookie", &cookie)], "").json();
    let browsers = access["browsers"].as_array().expect("a list");
    assert_eq!((browsers.len(), &browsers[0]["this"]), (2, &true.into()));

    let request =
        format!("GET /preview.mjpg HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n\r\n", home.address);
    let mut stream = home.open(&request);
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while !has_picture(&bytes) {
        let count = stream.read(&mut chunk).expect("a picture in time");
        bytes.extend_from_slice(&chunk[..count]);
    }
    let id = browsers[0]["id"].as_str().expect("an id");
    let headers = [
        ("cookie", other.as_str()),
        ("content-type", "application/json"),
        ("x-mirror-change", "1"),
    ];
    let removed =
        home.ask("POST", "/api/browsers/remove", &headers, &format!("{{\"id\":\"{id}\"}}"));
    assert_eq!(removed.status, 204, "{}", removed.text());
    // The open stream ends, and new requests are those of a stranger.
    let mut rest = 0;
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        rest += count;
        assert!(rest < 10_000_000, "the stream goes on");
    }
    assert_eq!(home.ask("GET", "/api/state", &[("cookie", &cookie)], "").status, 401);
    assert_eq!(home.ask("GET", "/api/state", &[("cookie", &other)], "").status, 200);
}

#[test]
fn all_browsers_are_removed_at_once_and_stay_so() {
    let folder = Folder::new("give-away");
    let home = Home::start(&folder);
    let cookies = [home.pair("Phone"), home.pair("Tablet")];
    let state =
        |home: &Home, cookie: &str| home.ask("GET", "/api/state", &[("cookie", cookie)], "").status;
    let headers = [("cookie", cookies[0].as_str()), ("x-mirror-change", "1")];
    assert_eq!(home.ask("POST", "/api/browsers/remove-all", &headers, "").status, 204);
    assert_eq!(cookies.each_ref().map(|cookie| state(&home, cookie)), [401, 401]);
    let listed = home.running.get("/api/access").json()["browsers"].clone();
    assert_eq!(listed, serde_json::json!([]));
    home.running.stop();
    let home = Home::start(&folder);
    assert_eq!(cookies.each_ref().map(|cookie| state(&home, cookie)), [401, 401]);
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A change from a browser with this cookie, whose head has come to where its body is waited for.
fn half_a_change(home: &Home, cookie: &str, path: &str, body: &str) -> Stream {
    let (host, length) = (&home.address, body.len());
    let mut stream = home.open(&format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\ncontent-type: application/json\r\n\
         x-mirror-change: 1\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    ));
    let mut head = [0; 25];
    stream.read_exact(&mut head).expect("the body is wanted");
    assert_eq!(&head, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// What comes back after the body; 0 for a connection that has ended without an answer.
fn status_after(mut stream: Stream, body: &str) -> u16 {
    let mut bytes = Vec::new();
    let _ = stream.write_all(body.as_bytes()).and_then(|()| stream.flush());
    let _ = stream.read_to_end(&mut bytes);
    if bytes.is_empty() { 0 } else { answer(&bytes).status }
}

#[test]
fn what_was_begun_before_the_end_of_a_pairing_is_not_obeyed_after_it() {
    let folder = Folder::new("begun");
    let home = Home::start(&folder);
    let (guest, owner) = (home.pair("Guest"), home.pair("Owner"));
    let browsers = || home.running.get("/api/access").json()["browsers"].clone();
    let id = |name: &str| {
        let browsers = browsers();
        let found = browsers.as_array().expect("a list").iter().find(|b| b["name"] == name);
        found.expect("paired")["id"].as_str().expect("an id").to_owned()
    };
    let removal = |name: &str| format!("{{\"id\":\"{}\"}}", id(name));
    let changes = [
        ("/api/camera", "{\"on\":false}".to_owned()),
        ("/api/browsers/remove", removal("Owner")),
        ("/api/frozen/1/save", "0123456789".to_owned()),
    ];
    let begun: Vec<_> =
        changes.iter().map(|(path, body)| half_a_change(&home, &guest, path, body)).collect();
    let other = half_a_change(&home, &owner, "/api/camera", "{\"on\":true}");
    let headers = [
        ("cookie", owner.as_str()),
        ("content-type", "application/json"),
        ("x-mirror-change", "1"),
    ];
    let removed = home.ask("POST", "/api/browsers/remove", &headers, &removal("Guest"));
    assert_eq!(removed.status, 204, "{}", removed.text());
    for (stream, (path, body)) in begun.into_iter().zip(&changes) {
        let status = status_after(stream, body);
        assert!(matches!(status, 0 | 401), "{path}: {status}");
    }
    assert_eq!(home.running.state()["camera_wanted"], true, "nothing was switched");
    id("Owner");
    let status = status_after(other, "{\"on\":true}");
    assert_eq!(status, 200, "the others' requests go on");

    // One browser too many ends the pairing of the one that was longest not here.
    let begun = half_a_change(&home, &owner, "/api/camera", "{\"on\":false}");
    for number in 0..16 {
        home.pair(&number.to_string());
    }
    let status = status_after(begun, "{\"on\":false}");
    assert!(matches!(status, 0 | 401), "{status}");
    assert_eq!(home.running.state()["camera_wanted"], true, "nothing was switched");
}

#[test]
fn idle_connections_of_others_do_not_keep_a_paired_browser_out() {
    let folder = Folder::new("siege");
    let home = Home::start(&folder);
    let cookie = home.pair("phone");
    let door: std::net::SocketAddr = home.address.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let idle: Vec<_> = (0..80)
        .filter_map(|number| {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            let own = std::net::SocketAddr::from(([127, 0, 0, 2 + number % 4], 0));
            socket.bind(own).expect("a loopback address");
            runtime.block_on(socket.connect(door)).ok()
        })
        .collect();
    let began = std::time::Instant::now();
    let state = home.ask("GET", "/api/state", &[("cookie", &cookie)], "");
    let taken = began.elapsed();
    assert_eq!(state.status, 200, "{}", state.text());
    assert!(taken < Duration::from_secs(4), "it took {taken:?}");
    drop(idle);
}

#[test]
fn a_port_that_becomes_free_is_taken() {
    let folder = Folder::new("busy-network");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("bound").to_string();
    let mut command = mirror(&folder);
    command.args(["run", "--source", "demo", "--display", "headless"]);
    command.env("MIRROR_PAGE_ACCESS", "paired").env("MIRROR_PAGE_NETWORK_LISTEN", &address);
    let running = Running::start(&mut command);
    let notices = |state: &serde_json::Value| state["notices"].to_string();
    running.wait_for("notice", |state| notices(state).contains("page.network_listen"));
    let notice = notices(&running.state());
    assert_eq!(notice.matches("no page").count(), 1, "{notice}");
    let network = || running.get("/api/access").json()["network"].clone();
    assert!(network().is_null(), "{}", network());
    drop(other);
    running.wait_for("network door", |_| network() == format!("https://{address}/"));
    running.wait_for("end of the notice", |state| !notices(state).contains("network_listen"));
}

#[test]
fn guesses_are_limited() {
    let folder = Folder::new("guesses");
    let home = Home::start(&folder);
    let guess = |code: &str| {
        home.post("/api/pairing/finish", &format!("{{\"code\":\"{code}\",\"name\":\"\"}}")).status
    };
    assert_eq!(guess("123456"), 409, "no code was asked for");
    for _ in 0..2 {
        assert_eq!(home.post("/api/pairing", "").status, 200);
        let answers = [(); 3].map(|()| guess("12345"));
        assert_eq!(answers, [403, 403, 410], "the last one says that the code is dead");
        assert_eq!(guess("12345"), 409, "the code is dead");
    }
    assert_eq!(home.post("/api/pairing", "").status, 429);
    assert_eq!(
        home.running.get("/api/access").json()["browsers"].as_array().map(Vec::len),
        Some(0)
    );
    let notices = || home.running.state()["notices"].to_string();
    assert!(notices().contains("typed wrong codes"), "{}", notices());
    home.pair("at the mirror itself it goes on");
    assert!(notices().contains("at the mirror itself"), "{}", notices());
}

#[test]
fn a_browser_that_is_used_keeps_its_cookie() {
    let folder = Folder::new("renewed");
    let home = Home::start(&folder);
    let cookie = home.pair("phone");
    home.running.stop();
    let file = folder.path().join("mirror/paired-browsers.json");
    let stored = std::fs::read_to_string(&file).expect("stored");
    let mut stored: serde_json::Value = serde_json::from_str(&stored).expect("JSON");
    stored["browsers"][0]["seen_at"] = 0.into();
    std::fs::write(&file, stored.to_string()).expect("writable");
    let home = Home::start(&folder);
    let visit = || home.ask("GET", "/api/state", &[("cookie", &cookie)], "");
    let renewed = visit();
    let set = renewed.header("set-cookie").unwrap_or_default();
    assert!(set.starts_with(&cookie) && set.contains("Max-Age=34560000"), "{set}");
    assert_eq!(visit().header("set-cookie"), None, "once in a while");
}

#[test]
fn the_device_prints_a_code_and_the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("pair");
    let home = Home::start(&folder);
    let mut command = mirror(&folder);
    command.env("MIRROR_PAGE_LISTEN", home.running.host());
    let result = output(command.arg("pair"));
    let text = stdout(&result);
    assert!(result.status.success() && text.contains(&home.address), "{text}");
    home.pair("phone");
    for name in ["page-key.der", "paired-browsers.json"] {
        let path = folder.path().join("mirror").join(name);
        let mode = std::fs::metadata(&path).expect("stored").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let alone = Folder::new("alone");
    let mut command = mirror(&alone);
    let running =
        Running::start(command.args(["run", "--source", "demo", "--display", "headless"]));
    let mut command = mirror(&alone);
    command.env("MIRROR_PAGE_LISTEN", running.host());
    let result = output(command.arg("pair"));
    assert_eq!(result.status.code(), Some(1));
    assert!(common::stderr(&result).contains("page.access"), "{}", common::stderr(&result));
}
