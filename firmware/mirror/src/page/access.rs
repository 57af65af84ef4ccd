//! Pairing over HTTP: asking for a code, using it, and the list of paired browsers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use settings::DisplayKind;
use tracing::{debug, info, warn};

use crate::access::AccessError;
use crate::access::certificate::Certificate;
use crate::access::pairing::{Asker, Refusal, Shown};
use crate::access::sessions::Paired;
use crate::page::address::Reached;
use crate::page::cookie::cookie;
use crate::page::guard::Door;
use crate::page::work::beside;
use crate::page::{Served, Trouble, Visitor};
use crate::shared::{DisplayState, PairingCode, Topic, lock};

/// A code that wrong guesses have ended stays on the screen for this long: whoever is there is to see that it was asked for.
const SPOILED: Duration = Duration::from_secs(10);

/// Seconds since 1970 by the mirror's clock, right or wrong; only ever shown.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Refusal::TooMany { .. }
            | Refusal::Spent { .. }
            | Refusal::TooManyWrong { .. }
            | Refusal::Locked => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Wrong { .. } => StatusCode::FORBIDDEN,
            // The code is no longer good: the page offers a new one.
            Refusal::LastWrong => StatusCode::GONE,
            Refusal::NoCode => StatusCode::CONFLICT,
            Refusal::Access(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Trouble::new(status, self.to_string()).into_response()
    }
}

/// Answer of `/api/access`.
#[derive(Serialize)]
pub struct AccessAnswer {
    /// `device` for this machine's own browser, `network` for a paired one.
    door: &'static str,
    /// Where the home network finds the page; `None` while it is not let in.
    network: Option<String>,
    /// Where the home network finds the page by this machine's name, beside a number that may change.
    name: Option<String>,
    fingerprint: Option<String>,
    browsers: Vec<Browser>,
}

#[derive(Serialize)]
struct Browser {
    #[serde(flatten)]
    paired: Paired,
    /// Whether it is the one that asks.
    this: bool,
}

pub async fn access(
    State(served): State<Arc<Served>>,
    Extension(visitor): Extension<Visitor>,
) -> Json<AccessAnswer> {
    let browsers = served.access.sessions.list().into_iter();
    let browser = |paired: Paired| Browser { this: visitor.is(&paired.id), paired };
    let (network, name) = served.reached().map(|reached| (reached.address, reached.name)).unzip();
    Json(AccessAnswer {
        door: match visitor {
            Visitor::Device => "device",
            Visitor::Browser { .. } => "network",
        },
        network,
        name: name.flatten(),
        fingerprint: served.access.certificate().map(|certificate| certificate.fingerprint()),
        browsers: browsers.map(browser).collect(),
    })
}

/// Answer of a POST to `/api/pairing`.
#[derive(Serialize)]
pub struct PairingAnswer {
    /// Told to this machine's own browser only; everybody else reads it from the screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    seconds_left: u64,
    attempts_left: u32,
    /// Whether the mirror has a screen on which the code can be read.
    on_screen: bool,
}

/// What a paired browser needs besides the code; without an open door a code would be of no use.
fn door_is_open(served: &Served) -> Result<&Certificate, Trouble> {
    if served.settings.settings.page.network.is_none() {
        let text = "the home network is not let in; set page.access = \"paired\"";
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    }
    if served.is_alone() {
        let text = "this mirror is in no network; connect it to that of the browser first";
        return Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    match served.access.certificate() {
        Some(certificate) if lock(&served.network).is_some() => Ok(certificate),
        _ => {
            let notice = |health: &crate::shared::Health| {
                health
                    .notices
                    .get(Topic::Network)
                    .map(|text| format!("{text}; the mirror keeps trying"))
            };
            let text = served.shared.with_health(notice);
            let soon = || "the page for the home network is being opened; try again".to_owned();
            Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text.unwrap_or_else(soon)))
        }
    }
}

/// Puts a code on the screen.
pub async fn begin(
    State(served): State<Arc<Served>>,
    Extension(door): Extension<Door>,
) -> Result<Json<PairingAnswer>, Response> {
    let certificate = door_is_open(&served).map_err(IntoResponse::into_response)?;
    let asker = match door {
        Door::Device => Asker::Device,
        Door::Network { peer, .. } => Asker::Network(peer),
    };
    let shown = served.access.pairing.begin(asker, served.shared.uptime());
    let shown = shown.map_err(IntoResponse::into_response)?;
    let (reached, fingerprint) = (served.reached(), certificate.fingerprint());
    show(&served, &shown, reached.as_ref().map(Reached::on_the_glass), &fingerprint);
    if shown.fresh {
        let place = if asker == Asker::Device { "this machine" } else { "the home network" };
        info!("a pairing code is shown; it was asked for from {place}");
    }
    let open = |health: &crate::shared::Health| matches!(health.display, DisplayState::Open { .. });
    // A headless display is always open; nobody can look at it unless it writes files.
    let is_screen = served.settings.settings.display.kind != DisplayKind::Headless(None);
    let on_device = asker == Asker::Device;
    Ok(Json(PairingAnswer {
        code: on_device.then_some(shown.code),
        address: reached.filter(|_| on_device).map(|reached| reached.address),
        fingerprint: on_device.then_some(fingerprint),
        seconds_left: shown.left.as_secs(),
        attempts_left: shown.attempts,
        on_screen: is_screen && served.shared.with_health(open),
    }))
}

fn show(served: &Served, shown: &Shown, address: Option<String>, fingerprint: &str) {
    let pairing = PairingCode {
        code: format!("{} {}", &shown.code[..3], &shown.code[3..]),
        address,
        fingerprint: fingerprint.to_owned(),
        words: format!(
            "If you asked for it, type this code into your browser. Certificate {fingerprint}"
        ),
        at_device: shown.at_device,
        until: Instant::now() + shown.left,
        spoiled: false,
    };
    served.shared.update_health(|health| health.pairing = Some(pairing));
}

/// Shows for a moment more that the code is no longer good.
fn spoil(served: &Served) {
    served.shared.update_health(|health| {
        if let Some(pairing) = &mut health.pairing {
            (pairing.spoiled, pairing.until) = (true, Instant::now() + SPOILED);
        }
    });
}

/// Body of a POST to `/api/pairing/finish`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    code: String,
    name: String,
}

/// Pairs the browser that knows the code.
pub async fn finish(
    State(served): State<Arc<Served>>,
    Extension(door): Extension<Door>,
    Json(given): Json<Finish>,
) -> Result<Response, Response> {
    let Door::Network { peer, .. } = door else {
        let text = "this machine's own browser needs no pairing";
        return Err(Trouble::new(StatusCode::CONFLICT, text).into_response());
    };
    let now_up = served.shared.uptime();
    let result = served.access.pairing.finish(&given.code, peer, now_up);
    if let Err(refusal) = result {
        debug!("pairing: {peer}: {refusal}");
        if matches!(refusal, Refusal::LastWrong) {
            spoil(&served);
        }
        served.tell_pairing();
        return Err(refusal.into_response());
    }
    served.shared.update_health(|health| health.pairing = None);
    // This goes on even if the browser has gone away: the code is used up, and what is stored is told.
    let added = beside(move || {
        let added = served.access.sessions.add(&given.name, now());
        Ok(added.inspect(|(paired, _)| tell_paired(&served, paired)).inspect_err(|error| {
            warn!("pairing: {error}");
        }))
    });
    let added = added.await.map_err(IntoResponse::into_response)?;
    let (Paired { id, .. }, token) =
        added.map_err(|error| Refusal::Access(error).into_response())?;
    let cookie = [(SET_COOKIE, cookie(&token))];
    Ok((cookie, Json(serde_json::json!({ "id": id }))).into_response())
}

/// Tells the journal, the glass and the page of a browser that was paired.
fn tell_paired(served: &Served, paired: &Paired) {
    let Paired { id, name, .. } = paired;
    // Not with its name, which somebody chose: the journal stays as long as the system likes.
    info!("a browser was paired ({id})");
    served.access.pairing.note_paired(id.clone(), name.clone(), served.shared.uptime());
    served.tell_pairing();
}

/// Body of a POST to `/api/browsers/remove`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    id: String,
}

/// Ends a pairing at once; open previews of that browser end too.
pub async fn remove(
    State(served): State<Arc<Served>>,
    Json(given): Json<Remove>,
) -> Result<StatusCode, Trouble> {
    beside(move || {
        let removed = served.access.sessions.revoke(&given.id);
        // What was told of it is over.
        served.tell_pairing();
        match removed {
            Ok(true) => {
                info!("the pairing of a browser was ended ({})", given.id);
                Ok(StatusCode::NO_CONTENT)
            }
            Ok(false) => Err(Trouble::new(StatusCode::NOT_FOUND, "this browser is not paired")),
            Err(error) => Err(only_shut_out("this browser is", &error)),
        }
    })
    .await
}

/// Ends every pairing at once, the asking browser's own among them, and the code that is shown: whoever has read it is not to come back.
pub async fn remove_all(State(served): State<Arc<Served>>) -> Result<StatusCode, Trouble> {
    beside(move || {
        served.access.pairing.end();
        served.shared.update_health(|health| health.pairing = None);
        let removed = served.access.sessions.revoke_all();
        // What was told of them is over.
        served.tell_pairing();
        removed.map_err(|error| only_shut_out("the browsers are", &error))?;
        info!("the pairings of all browsers were ended");
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

fn only_shut_out(who: &str, error: &AccessError) -> Trouble {
    let text = format!(
        "{who} shut out only until the mirror's next start: {error}; then remove once more"
    );
    warn!("{text}");
    Trouble::new(StatusCode::INSUFFICIENT_STORAGE, text)
}

/// For whoever is not paired: alive or not, and nothing else.
pub async fn healthz() -> &'static str {
    "ok\n"
}
