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
mod stream;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use prometheus_client::registry::Registry;
use settings::Effective;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::access::{Access, certificate};
use crate::fleet::Fleet;
use crate::learning::Learning;
use crate::page::door::NetworkDoor;
use crate::page::guard::Door;
use crate::parsing::Desk;
use crate::report;
use crate::run::switch::SwitchFile;
use crate::shared::{Shared, Topic, lock};

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
        "no page: port {} of {} is in use, perhaps by another mirror; stop that program, or choose \
         another port with page.listen or MIRROR_PAGE_LISTEN={}:{}",
        address.port(), address.ip(), address.ip(), address.port().wrapping_add(1)
    )]
    Busy { address: SocketAddr },
    #[error(
        "no page: port {} of {} needs administrator rights; choose one above 1023 for page.listen",
        address.port(), address.ip()
    )]
    Forbidden { address: SocketAddr },
    #[error("no page: cannot listen at {address}: {source}; change page.listen")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// Opens the page's port; port 0 takes any free one.
///
/// # Errors
/// An address that is not loopback, or a port that cannot be had.
pub fn listen(address: SocketAddr) -> Result<TcpListener, PageError> {
    if !address.ip().is_loopback() {
        return Err(PageError::NotLoopback { address });
    }
    bind(address)
}

fn bind(address: SocketAddr) -> Result<TcpListener, PageError> {
    let opened = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    opened.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => PageError::Busy { address },
        ErrorKind::PermissionDenied => PageError::Forbidden { address },
        _ => PageError::Listen { address, source },
    })
}

/// The page's part of the mirror.
pub struct Page {
    address: SocketAddr,
    first: Mutex<Option<TcpListener>>,
    context: Arc<Served>,
}

/// What every request may look at.
pub(crate) struct Served {
    pub shared: Arc<Shared>,
    pub switch: SwitchFile,
    pub settings: Effective,
    pub registry: Registry,
    pub access: Arc<Access>,
    /// Where the network's door is, while it is open.
    pub network: Mutex<Option<SocketAddr>>,
    pub learning: Arc<Learning>,
    pub fleet: Arc<Fleet>,
    pub desk: Desk,
    /// The picture that somebody corrects now.
    pub frozen: learning::Frozen,
    pub seen: parse::Seen,
}

impl Served {
    /// Where the home network finds the page, while it does.
    pub fn network_address(&self) -> Option<String> {
        let address = *lock(&self.network);
        address.map(|address| format!("https://{}/", reachable(address)))
    }
}

/// An address that others can use: a listener on all addresses is reached by the one that leads out.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it asks the kernel which address it would use (192.0.2.1: RFC 5737).
    let own = UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    own.map_or(address, |own| SocketAddr::new(own.ip(), address.port()))
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
            switch,
            settings,
            registry,
            access,
            network,
            learning,
            fleet,
            desk,
            frozen: learning::Frozen::default(),
            seen: parse::Seen::default(),
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
        let network = self.open_network();
        let router = device_router(Arc::clone(&self.context));
        // When the mirror stops, the runtime is dropped and with it every open preview.
        let result = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let network = async {
                match network {
                    Some((door, listener)) => door.serve(listener).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                served = axum::serve(listener, router) => served.context("the page"),
                served = network => served,
                () = self.context.shared.page_stop.notified() => Ok(()),
            }
        });
        *lock(&self.context.network) = None;
        result
    }

    /// The network's door, if it is wanted and can be had; the device's own works without it.
    fn open_network(&self) -> Option<(NetworkDoor, TcpListener)> {
        let context = &self.context;
        let wanted = context.settings.settings.page.network?;
        let certificate = context.access.certificate.as_ref()?;
        let open = || -> Result<(NetworkDoor, TcpListener, SocketAddr)> {
            let tls = TlsAcceptor::from(certificate.tls()?);
            let listener = bind(wanted)?;
            let address = listener.local_addr()?;
            let door = NetworkDoor {
                tls,
                names: certificate::names().into(),
                paired: paired_router(Arc::clone(context)),
                unpaired: unpaired_router(Arc::clone(context)),
                access: Arc::clone(&context.access),
            };
            Ok((door, listener, address))
        };
        match open() {
            Ok((door, listener, address)) => {
                *lock(&context.network) = Some(address);
                context.shared.set_notice(Topic::Network, None);
                let shown = context.network_address().unwrap_or_default();
                info!("page for paired browsers: {shown}");
                Some((door, listener))
            }
            Err(error) => {
                let text = format!("no page for the home network: {}", report::describe(&error));
                warn!("{text}");
                context.shared.set_notice(Topic::Network, Some(text));
                None
            }
        }
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
        .route("/api/frozen/{id}/parts.png", get(learning::frozen_parts))
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
