//! The local page: live preview, states, timings, settings, the camera switch, and learning at home.
//!
//! It has two doors. The device's own listens on a loopback address, over HTTP, and asks nothing. The network's, when it
//! is wanted, speaks HTTPS and lets paired browsers in; everybody else sees the pairing page and nothing more.
//!
//! Invariants: a request that names another host, or that another site's page sends, is refused; nothing it serves is
//! stored by the browser; the unpaired router has no route to a picture.

pub(crate) mod access;
mod address;
mod api;
mod cookie;
mod correct;
pub(crate) mod door;
mod guard;
mod learning;
mod metrics;
pub(crate) mod parse;
mod port;
pub mod preview;
#[cfg(test)]
mod rig;
mod routes;
mod seats;
mod silence;
mod stores;
mod stream;
mod work;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Json;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;
use settings::Effective;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::access::Access;
use crate::access::certificate;
use crate::backoff::Backoff;
use crate::fleet::Fleet;
use crate::learning::{Learning, tell_withdrawals};
use crate::page::address::{Own, Reached, is_in_network, leads_out, reached};
use crate::page::door::NetworkDoor;
use crate::page::parse::worker::Queue;
use crate::page::port::{Whose, bind};
use crate::page::routes::{device_router, paired_router, unpaired_router};
use crate::page::seats::{Seat, Seats};
use crate::report;
use crate::run::switch::SwitchFile;
use crate::shared::{Health, Shared, Topic, lock};

pub use address::url;
pub use port::{PageError, listen};

/// How often to look whether a frozen picture is too old.
const TIDY: Duration = Duration::from_secs(10);

/// The page's part of the mirror.
pub struct Page {
    address: SocketAddr,
    first: Mutex<Option<TcpListener>>,
    context: Arc<Served>,
}

/// What the page is made of.
pub struct Parts {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// The camera's switch on the disk.
    pub switch: SwitchFile,
    /// What is in effect, and where it comes from.
    pub settings: Effective,
    /// Who may use it from the home network.
    pub access: Access,
    /// The stores of learning at home.
    pub learning: Arc<Learning>,
    /// Membership in a fleet.
    pub fleet: Arc<Fleet>,
    /// Where programs have pictures parsed.
    pub queue: Queue,
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
    pub queue: Queue,
}

impl Served {
    /// Where the home network finds the page, while it does.
    fn reached(&self) -> Option<Reached> {
        let listener = (*lock(&self.network))?;
        let (is_in_network, names) = (is_in_network(listener), certificate::names());
        reached(listener, &Own { leads_out: leads_out(), is_in_network, names: &names })
    }

    /// Whether the network's door is open, and there is no network.
    fn is_alone(&self) -> bool {
        let listener = *lock(&self.network);
        listener.is_some_and(|listener| leads_out().is_none() && !is_in_network(listener))
    }

    /// Tells the glass and the page what happened about pairing, for as long as it is news.
    pub fn tell_pairing(&self) {
        let sessions = &self.access.sessions;
        let news = self.access.pairing.news(self.shared.uptime(), |id| sessions.is_paired(id));
        self.shared.set_notice(Topic::Pairing, news.as_deref());
    }

    /// Tells the screen where that is, if it has changed: a network may come after the start, and give another address.
    fn tell_network(&self) {
        let told = (self.reached().map(|reached| reached.on_the_glass()), self.is_alone());
        let is_told = |health: &Health| (&health.network, health.alone) == (&told.0, told.1);
        if !self.shared.with_health(is_told) {
            self.shared.update_health(|health| (health.network, health.alone) = told);
        }
    }
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

    /// Of what only the mirror's maker understands: that goes to the journal, and people are told what to do.
    pub fn inside(error: impl std::fmt::Display) -> Trouble {
        warn!("page: {error:#}");
        let text = "something went wrong inside the mirror; try again, and if that does not help start it anew: its journal says what it was";
        Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.text }))).into_response()
    }
}

impl Page {
    /// A page at the settings' address.
    pub fn new(parts: Parts) -> Page {
        let Parts { shared, switch, settings, access, learning, fleet, queue } = parts;
        let registry = metrics::registry(&shared);
        let address = settings.settings.page.listen;
        let context = Arc::new(Served {
            shared,
            switch: Mutex::new(switch),
            settings,
            registry,
            access: Arc::new(access),
            network: Mutex::new(None),
            learning,
            fleet,
            queue,
        });
        Page { address, first: Mutex::new(None), context }
    }

    /// This page on a port that is open already, if it could be opened.
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
                shared.set_notice(Topic::Page, Some(&error.to_string()));
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
        // When the mirror stops, the runtime is dropped and with it every open preview.
        let result = runtime.block_on(async {
            tokio::select! {
                served = self.serve_device(listener) => served,
                served = self.serve_network() => served,
                () = self.tidy() => Ok(()),
                () = self.tidy_stores() => Ok(()),
                () = self.context.shared.page_stop.notified() => Ok(()),
            }
        });
        *lock(&self.context.network) = None;
        self.context.tell_network();
        result
    }

    /// Serves this machine's own door. Whoever asks for something keeps its place; who only connects loses it where all are taken.
    async fn serve_device(&self, listener: TcpListener) -> Result<()> {
        let router = device_router(Arc::clone(&self.context));
        let visit = |stream: TcpStream, _: SocketAddr, seat: Arc<Seat>| {
            let router = router.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                seat.keep();
                router.clone().oneshot(request.map(Body::new))
            });
            async move { Ok(seats::http().serve_connection(TokioIo::new(stream), service).await?) }
        };
        // All of them come from this machine.
        Seats::new("page", usize::MAX).serve(listener, visit).await
    }

    /// Lets no frozen picture grow old, whether somebody asks for it or not, no address and no news.
    async fn tidy(&self) {
        loop {
            tokio::time::sleep(TIDY).await;
            self.tidy_at(Instant::now());
        }
    }

    fn tidy_at(&self, now: Instant) {
        self.context.shared.frozen.forget_old(now);
        self.context.tell_network();
        self.context.tell_pairing();
    }

    /// Beside the rest: a disk that hangs is waited for here alone.
    async fn tidy_stores(&self) {
        loop {
            tokio::time::sleep(TIDY).await;
            self.mend_storage().await;
            self.tell_withdrawals().await;
        }
    }

    /// The trainer tries again to store them; the glass follows. Beside, because the disk may hold the stores' locks.
    async fn tell_withdrawals(&self) {
        let context = Arc::clone(&self.context);
        let tell = move || {
            if let Some(household) = context.learning.household() {
                tell_withdrawals(household, &context.shared);
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(tell).await {
            warn!("page: {error}");
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
        let shown = context.reached().map(|reached| reached.address);
        info!("page for paired browsers: {}", shown.unwrap_or_else(|| address.to_string()));
        Ok((door, listener))
    }

    /// Notes why the network's door is not open; told once, not at every attempt.
    fn no_network(&self, text: &str) {
        match self.context.shared.set_notice(Topic::Network, Some(text)) {
            true => warn!("{text}; the mirror keeps trying"),
            false => debug!("{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::pairing::{Asker, Refusal};
    use crate::model::ModelSource;
    use crate::page::parse::worker;
    use crate::parsed::Parsed;
    use crate::testing::Folder;
    use std::future::poll_fn;
    use std::net::IpAddr;
    use std::path::Path;
    use std::task::Poll;

    /// The page of a mirror that lets paired browsers in, with its data in this folder.
    fn paired(folder: &Path) -> Page {
        let text = "[page]\naccess = \"paired\"\nnetwork_listen = \"127.0.0.1:0\"";
        let layers = settings::Layers::defaults().and_then(|layers| layers.file("test", text));
        let settings = layers.and_then(settings::Layers::finish).expect("valid settings");
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let (learning, fleet) = (Arc::new(Learning::new()), Arc::new(Fleet::new(false)));
        let model = ModelSource::new(&settings.settings.vision);
        let (queue, _) = worker::open(Arc::clone(&shared), Arc::clone(&learning), model);
        let (switch, access) = (SwitchFile::new(folder), Access::closed(folder));
        Page::new(Parts { shared, switch, settings, access, learning, fleet, queue })
    }

    async fn ask_for_a_code(page: &Page) -> (StatusCode, String) {
        post(page, "/api/pairing").await
    }

    /// As this machine's own browser.
    async fn post(page: &Page, path: &str) -> (StatusCode, String) {
        let request = Request::post(path)
            .header("host", "localhost")
            .header(guard::CHANGE_HEADER, "1")
            .body(Body::empty())
            .expect("a request");
        let router = device_router(Arc::clone(&page.context));
        let answer = router.oneshot(request).await.expect("infallible");
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("short");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[test]
    fn a_data_folder_that_becomes_usable_opens_the_network_s_door() {
        let root = Folder::new("door");
        let folder = root.path().join("data");
        // A file is where the folder should be.
        std::fs::write(&folder, "").expect("writable");
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
    }

    #[test]
    fn a_browser_that_leaves_while_it_is_paired_is_told_of() {
        let folder = Folder::new("left");
        let page = paired(folder.path());
        let served = &page.context;
        served.access.open().expect("writable");
        let shown = served.access.pairing.begin(Asker::Device, served.shared.uptime());
        let code = shown.expect("the first code").code;
        let body = serde_json::json!({ "code": code, "name": "Ada's phone" });
        let [local, peer] = [[127, 0, 0, 1], [192, 168, 1, 20]].map(IpAddr::from);
        let request = Request::post("/api/pairing/finish")
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header(guard::CHANGE_HEADER, "1")
            .extension(guard::Door::Network { local, peer, names: [].into() })
            .body(Body::from(body.to_string()))
            .expect("a request");
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        let pairing = unpaired_router(Arc::clone(served)).oneshot(request);
        runtime.expect("a runtime").block_on(async {
            // The one thread that may wait for the disk waits until the browser has left.
            let (has_left, waiting) = std::sync::mpsc::channel::<()>();
            let disk = tokio::task::spawn_blocking(move || waiting.recv());
            let mut pairing = Box::pin(pairing);
            let polled = poll_fn(|context| Poll::Ready(pairing.as_mut().poll(context))).await;
            assert!(polled.is_pending(), "the disk is waited for");
            drop(pairing);
            drop(has_left);
            assert!(disk.await.expect("no panic").is_err(), "nothing is sent");
            // What was begun comes before this.
            tokio::task::spawn_blocking(|| {}).await.expect("no panic");
        });
        assert_eq!(served.access.sessions.list().len(), 1);
        let notices = served.shared.health().notices;
        assert_eq!(notices.get(Topic::Pairing), Some("A browser was paired: “Ada's phone”."));
    }

    #[test]
    fn a_code_that_is_shown_ends_when_all_browsers_are_removed() {
        let folder = Folder::new("ends");
        let page = paired(folder.path());
        let served = &page.context;
        served.access.open().expect("writable");
        *lock(&served.network) = Some(SocketAddr::from(([127, 0, 0, 1], 8443)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (status, text) = runtime.block_on(ask_for_a_code(&page));
        assert_eq!(status, StatusCode::OK, "{text}");
        assert!(served.shared.health().pairing.is_some(), "on the glass");
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let (status, text) = runtime.block_on(post(&page, "/api/browsers/remove-all"));
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
        assert!(served.shared.health().pairing.is_none(), "off the glass");
        let (code, phone) = (answer["code"].as_str().expect("a code"), [192, 168, 1, 20].into());
        let used = served.access.pairing.finish(code, phone, served.shared.uptime());
        assert!(matches!(used, Err(Refusal::NoCode)), "{used:?}");
    }

    #[test]
    fn a_picture_that_nobody_corrects_goes_by_itself() {
        let folder = Folder::new("old");
        let page = paired(folder.path());
        let frozen = &page.context.shared.frozen;
        let picture = frozen.put(Parsed::blank((6, 8))).expect("the first").keep();
        let in_minutes = |minutes: u64| Instant::now() + Duration::from_secs(60 * minutes);
        page.tidy_at(in_minutes(19));
        assert_eq!(frozen.kept(), Some(picture));
        page.tidy_at(in_minutes(21));
        assert_eq!(frozen.kept(), None);
    }

    #[test]
    fn nobody_is_told_to_set_what_is_set_while_the_port_is_busy() {
        let folder = Folder::new("busy");
        let page = paired(folder.path());
        page.context.access.open().expect("writable");
        page.no_network("no page for the home network: port 8443 of 0.0.0.0 is in use");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (status, text) = runtime.block_on(ask_for_a_code(&page));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("in use"), "{text}");
    }
}
