//! The local page: live preview, states, timings, settings, and the camera switch.
//!
//! Invariants: it listens on a loopback address only; a request that names another host, or that
//! another site's page sends, is refused; nothing it serves is stored by the browser.

mod api;
mod guard;
mod metrics;
pub mod preview;
mod stream;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::Router;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use settings::Effective;
use tracing::info;

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
}

impl Page {
    /// A page at this address; `first` is its port, if it could be opened already.
    pub fn new(
        shared: Arc<Shared>,
        switch: SwitchFile,
        settings: Effective,
        first: Option<TcpListener>,
    ) -> Page {
        let registry = metrics::registry(&shared);
        let address = settings.settings.page.listen;
        let context = Arc::new(Served { shared, switch, settings, registry });
        Page { address, first: Mutex::new(first), context }
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
        let router = router(Arc::clone(&self.context));
        // When the mirror stops, the runtime is dropped and with it every open preview.
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::select! {
                served = axum::serve(listener, router) => served.context("the page"),
                () = self.context.shared.page_stop.notified() => Ok(()),
            }
        })
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
const ICON: &str = include_str!("icon.svg");

fn router(context: Arc<Served>) -> Router {
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", HTML)))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/icon.svg", get(|| asset("image/svg+xml", ICON)))
        .route("/preview.mjpg", get(stream::preview))
        .route("/api/state", get(api::state))
        .route("/api/settings", get(api::settings))
        .route("/api/camera", post(api::camera))
        .route("/healthz", get(api::healthz))
        .route("/metrics", get(metrics::metrics))
        .layer(middleware::from_fn(guard::guard))
        .with_state(context)
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([("content-type", kind)], text).into_response()
}
