//! The local page: live preview, states, timings, settings, the camera switch, and learning at home.
//!
//! It has two doors. The device's own listens on a loopback address, over HTTP, and asks nothing. The network's, when it
//! is wanted, speaks HTTPS and lets paired browsers in; everybody else sees the pairing page and nothing more.
//!
//! Invariants: a request that names another host, or that another site's page sends, is refused; nothing it serves is
//! stored by the browser; the unpaired router has no route to a picture.

pub(crate) mod access;
mod api;
pub(crate) mod door;
mod guard;
mod learning;
mod metrics;
mod parse;
pub mod preview;
mod silence;
mod stream;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Extension, Json, Router, middleware};
use camera::backoff::Backoff;
use prometheus_client::registry::Registry;
use settings::Effective;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::access::Access;
use crate::access::certificate;
use crate::fleet::Fleet;
use crate::learning::Learning;
use crate::page::door::NetworkDoor;
use crate::page::guard::Door;
use crate::parsing::Desk;
use crate::report;
use crate::run::switch::SwitchFile;
use crate::shared::{Health, Shared, Topic, lock};

/// Whose port it is, and so which setting names it.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// This machine's own browser.
    Device,
    /// Paired browsers of the home network.
    Network,
}

impl Whose {
    fn key(self) -> &'static str {
        match self {
            Whose::Device => "page.listen",
            Whose::Network => "page.network_listen",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Whose::Device => "MIRROR_PAGE_LISTEN",
            Whose::Network => "MIRROR_PAGE_NETWORK_LISTEN",
        }
    }
}

/// What is missing without the port.
impl fmt::Display for Whose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Whose::Device => "page",
            Whose::Network => "page for the home network",
        })
    }
}

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum PageError {
    #[error(
        "the page would be reachable from outside at {address}; only a loopback address \
         (127.0.0.1 or [::1]) is allowed for page.listen"
    )]
    NotLoopback { address: SocketAddr },
    #[error(
        "no {whose}: port {} of {} is in use, perhaps by another mirror; stop that program, or choose \
         another port with {} or {}={}",
        address.port(), address.ip(), whose.key(), whose.variable(), next_port(*address)
    )]
    Busy { whose: Whose, address: SocketAddr },
    #[error(
        "no {whose}: port {} of {} needs administrator rights; choose one above 1023 for {}",
        address.port(), address.ip(), whose.key()
    )]
    Forbidden { whose: Whose, address: SocketAddr },
    #[error("no {whose}: cannot listen at {address}: {source}; change {}", whose.key())]
    Listen { whose: Whose, address: SocketAddr, source: io::Error },
}

/// The same address with the next port.
fn next_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().wrapping_add(1))
}

/// Opens the page's port; port 0 takes any free one.
///
/// # Errors
/// An address that is not loopback, or a port that cannot be had.
pub fn listen(address: SocketAddr) -> Result<TcpListener, PageError> {
    if !address.ip().is_loopback() {
        return Err(PageError::NotLoopback { address });
    }
    bind(Whose::Device, address)
}

fn bind(whose: Whose, address: SocketAddr) -> Result<TcpListener, PageError> {
    let opened = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    opened.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => PageError::Busy { whose, address },
        ErrorKind::PermissionDenied => PageError::Forbidden { whose, address },
        _ => PageError::Listen { whose, address, source },
    })
}

/// How often to look whether a frozen picture is too old.
const TIDY: Duration = Duration::from_secs(10);

/// The page's part of the mirror.
pub struct Page {
    address: SocketAddr,
    first: Mutex<Option<TcpListener>>,
    context: Arc<Served>,
}

/// What every request may look at.
pub(crate) struct Served {
    pub shared: Arc<Shared>,
    /// Locked while it is written.
    pub switch: Mutex<SwitchFile>,
    pub settings: Effective,
    pub registry: Registry,
    pub access: Arc<Access>,
    /// Where the network's door is, while it is open.
    pub network: Mutex<Option<SocketAddr>>,
    pub learning: Arc<Learning>,
    pub fleet: Arc<Fleet>,
    pub desk: Desk,
}

impl Served {
    /// Where the home network finds the page, while it does.
    pub fn network_address(&self) -> Option<String> {
        let address = (*lock(&self.network))?;
        let shown = reachable(address, leads_out(), &certificate::names())?;
        Some(format!("https://{shown}/"))
    }

    /// Tells the glass and the page what happened about pairing, for as long as it is news.
    pub fn tell_pairing(&self) {
        let sessions = &self.access.sessions;
        let news = self.access.pairing.news(self.shared.uptime(), |id| sessions.is_paired(id));
        if self.shared.with_health(|health| health.notices.get(Topic::Pairing) != news.as_deref()) {
            self.shared.set_notice(Topic::Pairing, news);
        }
    }

    /// Tells the screen where that is, if it has changed: a network may come after the start, and give another address.
    fn tell_network(&self) {
        let network = self.network_address();
        if self.shared.with_health(|health| health.network != network) {
            self.shared.update_health(|health| health.network = network);
        }
    }
}

/// An address that others can use: a listener on all addresses is reached by the one that leads out or, while none does,
/// by this machine's name in its home.
fn reachable(address: SocketAddr, own: Option<IpAddr>, names: &[String]) -> Option<String> {
    if !address.ip().is_unspecified() {
        return Some(address.to_string());
    }
    let port = address.port();
    let name = || names.iter().find(|name| name.ends_with(".local"));
    match own {
        Some(own) => Some(SocketAddr::new(own, port).to_string()),
        None => name().map(|name| format!("{name}:{port}")),
    }
}

/// This machine's address on the network. Connecting a UDP socket sends nothing; it asks the kernel which address it would
/// use (192.0.2.1: RFC 5737).
fn leads_out() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Visitor {
    /// Somebody at this machine.
    Device,
    /// A paired browser.
    Browser { id: String },
}

impl Visitor {
    /// Whether it is this paired browser.
    pub fn is(&self, other: &str) -> bool {
        matches!(self, Visitor::Browser { id } if id == other)
    }

    /// Whether it may still look: a pairing can be ended while a stream is open.
    pub fn is_welcome(&self, access: &Access) -> bool {
        match self {
            Visitor::Device => true,
            Visitor::Browser { id } => access.sessions.is_paired(id),
        }
    }

    /// Waits until it may not look any more.
    pub async fn is_gone(&self, access: &Access) {
        match self {
            Visitor::Device => std::future::pending().await,
            Visitor::Browser { id } => access.sessions.ended(id).await,
        }
    }
}

/// A refusal, with the next step, as JSON.
#[derive(Debug)]
pub(crate) struct Trouble {
    status: StatusCode,
    text: String,
}

impl Trouble {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Trouble {
        Trouble { status, text: text.into() }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.text }))).into_response()
    }
}

impl Page {
    /// A page at the settings' address.
    pub fn new(
        shared: Arc<Shared>,
        switch: SwitchFile,
        settings: Effective,
        access: Access,
        learning: Arc<Learning>,
        fleet: Arc<Fleet>,
        desk: Desk,
    ) -> Page {
        let registry = metrics::registry(&shared);
        let address = settings.settings.page.listen;
        let (access, network) = (Arc::new(access), Mutex::new(None));
        let context = Arc::new(Served {
            shared,
            switch: Mutex::new(switch),
            settings,
            registry,
            access,
            network,
            learning,
            fleet,
            desk,
        });
        Page { address, first: Mutex::new(None), context }
    }

    /// The same on a port that is open already, if it could be opened.
    pub fn on(self, first: Option<TcpListener>) -> Page {
        Page { first: Mutex::new(first), ..self }
    }

    /// Serves until the mirror stops.
    ///
    /// # Errors
    /// A port that cannot be had; the supervisor tries again.
    pub fn run(&self) -> Result<()> {
        let shared = &self.context.shared;
        let listener = match lock(&self.first).take() {
            Some(listener) => listener,
            None => listen(self.address).inspect_err(|error| {
                shared.set_notice(Topic::Page, Some(error.to_string()));
            })?,
        };
        let address = url(&listener).context("the page's own address")?;
        info!("page: {address}");
        shared.update_health(|health| {
            health.page = Some(address);
            health.notices.set(Topic::Page, None);
        });
        let result = self.serve(listener);
        shared.update_health(|health| health.page = None);
        result
    }

    fn serve(&self, listener: TcpListener) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("the page's runtime")?;
        let router = device_router(Arc::clone(&self.context));
        // When the mirror stops, the runtime is dropped and with it every open preview.
        let result = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|connection| {
                if let Err(error) = silence::ends(&*connection) {
                    warn!("page: a browser that vanishes will not be noticed: {error}");
                }
            });
            tokio::select! {
                served = axum::serve(listener, router) => served.context("the page"),
                served = self.serve_network() => served,
                () = self.tidy() => Ok(()),
                () = self.context.shared.page_stop.notified() => Ok(()),
            }
        });
        *lock(&self.context.network) = None;
        self.context.tell_network();
        result
    }

    /// Lets no frozen picture grow old, whether somebody asks for it or not, no address and no news.
    async fn tidy(&self) {
        loop {
            tokio::time::sleep(TIDY).await;
            self.context.shared.frozen.forget_old(Instant::now());
            self.context.tell_network();
            self.context.tell_pairing();
            self.mend_storage().await;
        }
    }

    /// Tries again where the data folder could not be used, so that what is told of it stays true.
    async fn mend_storage(&self) {
        let is_told = |health: &Health| health.notices.get(Topic::Storage).is_some();
        if !self.context.shared.with_health(is_told) {
            return;
        }
        let context = Arc::clone(&self.context);
        let kept = tokio::task::spawn_blocking(move || api::keep_switch(&context)).await;
        if matches!(kept, Ok(Ok(()))) {
            info!("the data folder can be used again");
        }
    }

    /// Serves the network's door if it is wanted. The device's own works without it, so it is tried again for as long as it
    /// cannot be opened.
    async fn serve_network(&self) -> Result<()> {
        let context = &self.context;
        let wanted = context.settings.settings.page.network;
        let Some(wanted) = wanted else { return std::future::pending().await };
        let mut backoff = Backoff::new();
        loop {
            let access = Arc::clone(&context.access);
            let opened = tokio::task::spawn_blocking(move || access.open()).await?;
            let opened = opened.with_context(|| format!("no {}", Whose::Network));
            match opened.and_then(|()| self.open_network(wanted)) {
                Ok((door, listener)) => return door.serve(listener).await,
                Err(error) => self.no_network(&report::describe(&error)),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    fn open_network(&self, wanted: SocketAddr) -> Result<(NetworkDoor, TcpListener)> {
        let context = &self.context;
        let certificate = context.access.certificate().context("no certificate")?;
        let tls = certificate.tls().with_context(|| format!("no {}", Whose::Network))?;
        let listener = bind(Whose::Network, wanted)?;
        let address = listener.local_addr().with_context(|| format!("no {}", Whose::Network))?;
        let door = NetworkDoor {
            tls: TlsAcceptor::from(tls),
            names: certificate::names,
            paired: paired_router(Arc::clone(context)),
            unpaired: unpaired_router(Arc::clone(context)),
            access: Arc::clone(&context.access),
        };
        *lock(&context.network) = Some(address);
        context.shared.set_notice(Topic::Network, None);
        context.tell_network();
        let shown = context.network_address();
        info!("page for paired browsers: {}", shown.unwrap_or_else(|| address.to_string()));
        Ok((door, listener))
    }

    /// Notes why the network's door is not open; told once, not at every attempt.
    fn no_network(&self, text: &str) {
        let shared = &self.context.shared;
        if shared.with_health(|health| health.notices.get(Topic::Network) == Some(text)) {
            debug!("{text}");
            return;
        }
        warn!("{text}; tried again, and so on");
        shared.set_notice(Topic::Network, Some(text.to_owned()));
    }
}

/// The address to type into a browser.
///
/// # Errors
/// A listener whose own address cannot be asked.
pub fn url(listener: &TcpListener) -> std::io::Result<String> {
    Ok(format!("http://{}/", listener.local_addr()?))
}

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const CALL_SCRIPT: &str = include_str!("call.js");
const SCRIPT: &str = include_str!("page.js");
const LEARN_STYLE: &str = include_str!("learn.css");
const LEARN_SCRIPT: &str = include_str!("learn.js");
const CORRECT_SCRIPT: &str = include_str!("correct.js");
const ACCESS_SCRIPT: &str = include_str!("access.js");
const PAIR_HTML: &str = include_str!("pair.html");
const PAIR_SCRIPT: &str = include_str!("pair.js");
const ICON: &str = include_str!("icon.svg");

/// A code and a name are short.
const MOST_UNPAIRED_BYTES: usize = 4096;

/// What this machine's own browser and paired browsers have in common.
fn routes() -> Router<Arc<Served>> {
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", HTML)))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/call.js", get(|| asset("text/javascript; charset=utf-8", CALL_SCRIPT)))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/access.js", get(|| asset("text/javascript; charset=utf-8", ACCESS_SCRIPT)))
        .route("/icon.svg", get(|| asset("image/svg+xml", ICON)))
        .route("/preview.mjpg", get(stream::preview))
        .route("/api/state", get(api::state))
        .route("/api/settings", get(api::settings))
        .route("/api/camera", post(api::camera))
        .route("/api/access", get(access::access))
        .route("/api/browsers/remove", post(access::remove))
        .route("/learn.css", get(|| asset("text/css; charset=utf-8", LEARN_STYLE)))
        .route("/learn.js", get(|| asset("text/javascript; charset=utf-8", LEARN_SCRIPT)))
        .route("/correct.js", get(|| asset("text/javascript; charset=utf-8", CORRECT_SCRIPT)))
        .route("/api/learning", get(learning::state))
        .route("/api/learning/consent", post(learning::consent))
        .route("/api/learning/train", post(learning::train))
        .route("/api/learning/undo", post(learning::undo))
        .route("/api/learning/delete", post(learning::delete))
        .route("/api/corrections/remove", post(learning::remove))
        .route("/api/corrections/{number}/picture.png", get(learning::correction_picture))
        .route("/api/corrections/{number}/mask.png", get(learning::correction_mask))
        .route("/api/freeze", post(learning::freeze))
        .route("/api/frozen/{id}/picture.png", get(learning::frozen_picture))
        .route("/api/frozen/{id}/parts", get(learning::frozen_parts))
        .route("/api/frozen/{id}/discard", post(learning::discard))
        .route(
            "/api/frozen/{id}/save",
            post(learning::save).layer(DefaultBodyLimit::max(parse::MOST_BYTES)),
        )
        .route("/parse", post(parse::parse).layer(DefaultBodyLimit::max(parse::MOST_BYTES)))
        .route("/healthz", get(api::healthz))
        .route("/metrics", get(metrics::metrics))
}

fn device_router(context: Arc<Served>) -> Router {
    routes()
        .route("/api/pairing", post(access::begin))
        .layer(middleware::from_fn(guard::guard))
        .layer(Extension(Door::Device))
        .layer(Extension(Visitor::Device))
        .with_state(context)
}

fn paired_router(context: Arc<Served>) -> Router {
    routes().layer(middleware::from_fn(guard::guard)).with_state(context)
}

/// The pairing page. What is not in this list does not exist for whoever is not paired.
fn unpaired_router(context: Arc<Served>) -> Router {
    let pair_first = || async {
        Trouble::new(StatusCode::UNAUTHORIZED, "pair this browser with the mirror first")
    };
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", PAIR_HTML)))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/call.js", get(|| asset("text/javascript; charset=utf-8", CALL_SCRIPT)))
        .route("/pair.js", get(|| asset("text/javascript; charset=utf-8", PAIR_SCRIPT)))
        .route("/icon.svg", get(|| asset("image/svg+xml", ICON)))
        .route("/api/pairing", post(access::begin))
        .route("/api/pairing/finish", post(access::finish))
        .route("/healthz", get(access::healthz))
        .fallback(pair_first)
        .layer(DefaultBodyLimit::max(MOST_UNPAIRED_BYTES))
        .layer(middleware::from_fn(guard::guard))
        .with_state(context)
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([("content-type", kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::test_folder;
    use crate::model::ModelSource;
    use crate::parsing;
    use std::path::Path;

    /// The page of a mirror that lets paired browsers in, with its data in this folder.
    fn paired(folder: &Path) -> Page {
        let text = "[page]\naccess = \"paired\"\nnetwork_listen = \"127.0.0.1:0\"";
        let layers = settings::Layers::defaults().and_then(|layers| layers.file("test", text));
        let settings = layers.and_then(settings::Layers::finish).expect("valid settings");
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let (learning, fleet) = (Arc::new(Learning::new()), Arc::new(Fleet::new(false)));
        let model = ModelSource::new(&settings.settings.vision);
        let (desk, _) = parsing::open(Arc::clone(&shared), Arc::clone(&learning), model);
        let (switch, access) = (SwitchFile::new(folder), Access::closed(folder));
        Page::new(shared, switch, settings, access, learning, fleet, desk)
    }

    async fn ask_for_a_code(page: &Page) -> (StatusCode, String) {
        use tower::ServiceExt;
        let request = axum::http::Request::post("/api/pairing")
            .header("host", "localhost")
            .header(guard::CHANGE_HEADER, "1")
            .body(axum::body::Body::empty())
            .expect("a request");
        let router = device_router(Arc::clone(&page.context));
        let answer = router.oneshot(request).await.expect("infallible");
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("short");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[test]
    fn a_data_folder_that_becomes_usable_opens_the_network_s_door() {
        let folder = test_folder("door");
        // A file is where the folder should be.
        std::fs::write(&folder, "").expect("a temporary folder");
        let page = paired(&folder);
        let shared = &page.context.shared;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let visitor = async {
                while shared.with_health(|health| health.notices.get(Topic::Network).is_none()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let (status, text) = ask_for_a_code(&page).await;
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                assert!(text.contains("data_dir") && !text.contains("page.access"), "{text}");
                assert_eq!(shared.health().network, None);
                std::fs::remove_file(&folder).expect("ours");
                while shared.health().network.is_none() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                assert_eq!(ask_for_a_code(&page).await.0, StatusCode::OK);
            };
            tokio::select! {
                ended = page.serve_network() => panic!("the door: {ended:?}"),
                () = visitor => {}
            }
        });
        let network = shared.health().network.expect("open");
        assert!(network.starts_with("https://127.0.0.1:"), "{network}");
        assert_eq!(shared.health().notices.get(Topic::Network), None);
        std::fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn nobody_is_told_to_set_what_is_set_while_the_port_is_busy() {
        let folder = test_folder("busy");
        let page = paired(&folder);
        page.context.access.open().expect("writable");
        page.no_network("no page for the home network: port 8443 of 0.0.0.0 is in use");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (status, text) = runtime.block_on(ask_for_a_code(&page));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("in use"), "{text}");
        std::fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn a_listener_on_all_addresses_is_named_as_others_reach_it() {
        let names = ["localhost".to_owned(), "kitchen.local".to_owned(), "kitchen".to_owned()];
        let own = Some(IpAddr::from([192, 168, 1, 7]));
        let shown = |listener: &str, own, names: &[String]| {
            reachable(listener.parse().expect("an address"), own, names)
        };
        for (listener, own, expected) in [
            ("192.168.1.20:8443", None, "192.168.1.20:8443"),
            ("0.0.0.0:8443", own, "192.168.1.7:8443"),
            ("[::]:8443", own, "192.168.1.7:8443"),
            ("0.0.0.0:8443", None, "kitchen.local:8443"),
        ] {
            assert_eq!(shown(listener, own, &names).as_deref(), Some(expected), "{listener}");
        }
        assert_eq!(shown("0.0.0.0:8443", None, &names[..1]), None, "no name either");
    }

    #[test]
    fn a_port_that_cannot_be_had_names_its_own_setting() {
        let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = other.local_addr().expect("bound");
        for (whose, key, what) in [
            (Whose::Device, "page.listen or MIRROR_PAGE_LISTEN=127", "no page: port"),
            (
                Whose::Network,
                "page.network_listen or MIRROR_PAGE_NETWORK_LISTEN=127",
                "network: port",
            ),
        ] {
            let text = bind(whose, address).expect_err("in use").to_string();
            assert!(text.contains(key) && text.contains(what), "{text}");
            assert_eq!(text.matches("no page").count(), 1, "{text}");
        }
        assert!(listen("192.0.2.1:80".parse().expect("an address")).is_err());
    }
}
