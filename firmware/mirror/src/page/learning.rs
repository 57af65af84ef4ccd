//! Learning at home over HTTP: consent, corrections, training, the privacy budget, deletion.
//!
//! Whatever touches the disk runs beside the page's own thread. Pictures are answered to this machine's browser and to
//! paired ones; the unpaired router does not know these addresses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use home::{ConsentState, CorrectionInfo, Home, HomeError, Household, Withdrawal};
use learn::consent::{ConsentError, ImproveMyMirror, PurposeKind};
use proto::taxonomy::PART_COUNT;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, info};

use crate::fleet::Fleet;
use crate::frozen::Work;
use crate::learning::tell_withdrawals;
use crate::page::parse::{MOST_BYTES, PATIENCE, whole};
use crate::page::{Served, Trouble};
use crate::parsed::{NOT_SAID, Parsed};
use crate::parsing::MOST_PIXELS;
use crate::pictures;
use crate::shared::{ModelState, Shared};

/// A picture comes at least this often while the camera delivers.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// Its parts come back as one byte a pixel, in one request.
const MOST_CORRECTED_PIXELS: u64 = MOST_BYTES as u64;

impl From<HomeError> for Trouble {
    fn from(error: HomeError) -> Trouble {
        let status = match &error {
            HomeError::Consent(ConsentError::Unstored(_) | ConsentError::Edge(_))
            | HomeError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
            HomeError::Consent(_) => StatusCode::FORBIDDEN,
            HomeError::NoCorrection(_) | HomeError::NoHead => StatusCode::NOT_FOUND,
            HomeError::PictureSize { .. } | HomeError::MaskSize { .. } | HomeError::Mask(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            HomeError::TooMany { .. }
            | HomeError::TooLarge { .. }
            | HomeError::OtherHead
            | HomeError::NoFleet => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Trouble::new(status, error.to_string())
    }
}

/// What learns, or why there is nothing that does.
pub(super) fn home(served: &Served) -> Result<Arc<Home>, Trouble> {
    served.learning.home().cloned().ok_or_else(|| not_open(served))
}

/// The open stores, with or without a network, or why there are none.
fn household(served: &Served) -> Result<Arc<Household>, Trouble> {
    served.learning.household().cloned().ok_or_else(|| not_open(served))
}

fn not_open(served: &Served) -> Trouble {
    let reason = served.learning.trouble();
    let text = reason.unwrap_or_else(|| "learning at home is not ready yet".to_owned());
    Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Runs what may wait for the disk, or computes for a while, beside the page's thread.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(Trouble::inside)?
}

/// What the page says while it asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Working {
    /// The frozen picture that somebody painted on since the page last asked.
    painted: Option<u64>,
}

/// Everything that the page shows about learning.
pub async fn state(
    State(served): State<Arc<Served>>,
    Query(working): Query<Working>,
) -> Result<Json<Value>, Trouble> {
    if let Some(id) = working.painted {
        served.shared.frozen.touch(id, Work::Painting, Instant::now());
    }
    let household = match household(&served) {
        Ok(household) => household,
        Err(trouble) => {
            let state = if served.learning.trouble().is_some() { "broken" } else { "opening" };
            return Ok(Json(json!({ "state": state, "reason": trouble.text })));
        }
    };
    beside(move || Ok(Json(describe(&household, &served)))).await
}

/// All of it but training is there without a network as well.
fn describe(household: &Household, served: &Served) -> Value {
    let home = served.learning.home();
    // Taken first: what forbids a picture between the two is then told next time, and no picture is called gone that is not.
    let frozen = served.shared.frozen.kept();
    let consent = |purpose| {
        let state = household.consent(purpose);
        let agreed = matches!(state, ConsentState::Given(_));
        json!({ "purpose": purpose, "agreed": agreed, "consent": state })
    };
    let mut privacy = match household.privacy() {
        Ok(overview) => json!(overview),
        Err(error) => json!({ "error": error.to_string() }),
    };
    if let Some(home) = home {
        privacy["dimension"] = home.update_values().into();
    }
    json!({
        "state": "ready",
        "learns": home.is_some(),
        "frozen": frozen,
        "no_freezing": no_camera(&served.shared),
        "explanation": household.explanation(),
        "consents": [consent(PurposeKind::ImproveMyMirror), consent(PurposeKind::ContributeToFleet)],
        "usage": household.usage(),
        "corrections": household.corrections(),
        "training": household.training(),
        "heads": household.heads(),
        "privacy": privacy,
        "fleet": membership(home.map_or(0, |home| home.fleet_version()), &served.fleet),
        "problems": served.learning.problems(),
    })
}

/// How the mirror stands with its fleet.
fn membership(model: u64, fleet: &Fleet) -> Value {
    if !fleet.is_member() {
        return json!({ "asks": fleet.asks(), "member": false });
    }
    let snapshot = fleet.snapshot();
    json!({
        "asks": fleet.asks(),
        "member": true,
        "connected": snapshot.connected,
        "round": snapshot.round,
        "note": snapshot.note,
        "contributions": snapshot.contributions,
        "model": model,
        "model_under_way": snapshot.model_under_way,
        "model_on_offer": snapshot.model_on_offer,
        "refused": snapshot.refused,
    })
}

/// Body of a POST to `/api/learning/consent`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentChange {
    purpose: PurposeKind,
    /// Version of the explanation that was on the page.
    version: u32,
    agree: bool,
}

/// Gives consent, or takes it back at once: that holds also where the answer says that the storage did not note it.
pub async fn consent(
    State(served): State<Arc<Served>>,
    Json(change): Json<ConsentChange>,
) -> Result<Json<Value>, Trouble> {
    let household = household(&served)?;
    beside(move || {
        let ConsentChange { purpose, version, agree } = change;
        let answer = match agree {
            true => household.grant(purpose, version).map(|record| json!({ "record": record })),
            false => withdraw(&household, &served.shared, purpose).map(|done| json!(done)),
        };
        tell_withdrawals(&household, &served.shared);
        let is_answered = !agree || answer.is_ok();
        if is_answered && purpose == PurposeKind::ContributeToFleet {
            served.fleet.answered(&served.shared);
        }
        let answer = answer?;
        info!("consent to {purpose:?}: {}", if agree { "given" } else { "withdrawn" });
        Ok(Json(answer))
    })
    .await
}

/// A picture that waits to be corrected goes with the consent to learn from it.
fn withdraw(
    household: &Household,
    shared: &Shared,
    purpose: PurposeKind,
) -> Result<Withdrawal, HomeError> {
    let withdrawn = household.withdraw(purpose);
    if purpose == PurposeKind::ImproveMyMirror {
        shared.frozen.forget_picture();
    }
    withdrawn
}

/// Asks for a run; it begins when the mirror can spare its processor.
pub async fn train(State(served): State<Arc<Served>>) -> Result<StatusCode, Trouble> {
    let home = home(&served)?;
    beside(move || {
        home.token::<ImproveMyMirror>().map_err(HomeError::from)?;
        if home.usage().corrections == 0 {
            let text = "there is nothing to train on; correct a picture first";
            return Err(Trouble::new(StatusCode::CONFLICT, text));
        }
        home.request_training();
        Ok(StatusCode::ACCEPTED)
    })
    .await
}

/// Body of a POST to `/api/learning/undo`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undoing {
    /// The head in use, as the page showed it.
    number: u64,
}

/// Goes back to the head before.
pub async fn undo(
    State(served): State<Arc<Served>>,
    Json(undoing): Json<Undoing>,
) -> Result<Json<Value>, Trouble> {
    let home = home(&served)?;
    beside(move || Ok(Json(json!({ "head": home.undo_head(undoing.number)? })))).await
}

/// Deletes everything, and answers with the proof.
pub async fn delete(State(served): State<Arc<Served>>) -> Result<Json<Value>, Trouble> {
    let household = household(&served)?;
    beside(move || {
        let proof = served.learning.delete_everything(&household, &served.shared);
        let proof = proof.map_err(|error| {
            let Trouble { status, text } = error.into();
            Trouble::new(status, format!("not everything was deleted: {text}"))
        })?;
        Ok(Json(json!({ "complete": proof.is_complete(), "proof": proof })))
    })
    .await
}

/// Body of a POST to `/api/corrections/remove`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    number: u64,
}

/// Deletes one correction.
pub async fn remove(
    State(served): State<Arc<Served>>,
    Json(removal): Json<Removal>,
) -> Result<StatusCode, Trouble> {
    let household = household(&served)?;
    beside(move || {
        household.remove_correction(removal.number)?;
        served.learning.seen.forget_correction(removal.number);
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

pub async fn correction_picture(
    State(served): State<Arc<Served>>,
    Path(number): Path<u64>,
) -> Result<Response, Trouble> {
    let household = household(&served)?;
    beside(move || {
        let picture = household.picture(number)?;
        let size = (picture.width as u32, picture.height as u32);
        png(pictures::rgb_png(size, &picture.interleaved()))
    })
    .await
}

pub async fn correction_mask(
    State(served): State<Arc<Served>>,
    Path(number): Path<u64>,
) -> Result<Response, Trouble> {
    let household = household(&served)?;
    beside(move || {
        let mask = household.mask(number)?;
        png(pictures::grey_png((mask.width as u32, mask.height as u32), &mask.labels))
    })
    .await
}

/// Keeps the next picture and its parsing in memory, to be corrected.
pub async fn freeze(State(served): State<Arc<Served>>) -> Result<Json<Value>, Trouble> {
    may_freeze(&served).await?;
    if let Some(wait) = served.shared.frozen.in_hands(Instant::now()) {
        let minutes = wait.as_secs().div_ceil(60).max(1);
        let text = format!(
            "somebody is correcting a picture on another page; save or discard it there, or wait {minutes} min"
        );
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    }
    let waiting = served.shared.ask_to_freeze();
    let Ok(Ok(parsed)) = tokio::time::timeout(FREEZE_PATIENCE, waiting).await else {
        let text = "no picture came in time; try again";
        return Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let (width, height) = parsed.size;
    if u64::from(width) * u64::from(height) > MOST_CORRECTED_PIXELS {
        let text = format!(
            "a picture of {width} x {height} is too large to be corrected; lower camera.width and camera.height"
        );
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    }
    let put = served.shared.frozen.put(parsed);
    // Asked again now: what forbids it meanwhile (camera off, a withdrawal) has forgotten only what was there.
    may_freeze(&served).await?;
    Ok(Json(json!({ "id": put.keep(), "width": width, "height": height })))
}

/// Whether somebody agreed to corrections. A consent that is being written is waited for, and not by the page's own thread.
pub(super) async fn agreed(home: Arc<Home>) -> Result<(), Trouble> {
    beside(move || Ok(home.token::<ImproveMyMirror>().map(drop).map_err(HomeError::from)?)).await
}

/// Instead of a picture of the demo scene. Whoever asks for that scene may try everything with it.
const NO_CAMERA: &str = "no camera is connected; the people of the demo scene are not this household's, and a correction of them would \
     spoil what the mirror learns. Connect a camera, or start the mirror with --source demo to try corrections out";

/// Why there is nothing to correct for as long as the mirror finds no camera.
fn no_camera(shared: &Shared) -> Option<&'static str> {
    shared.with_health(|health| health.stands_in).then_some(NO_CAMERA)
}

/// Whether somebody agreed to corrections, a camera is on, and its pictures are parsed.
async fn may_freeze(served: &Served) -> Result<(), Trouble> {
    agreed(home(served)?).await?;
    if !served.shared.may_show() {
        let text = "the camera delivers nothing; switch it on first";
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    }
    if let Some(text) = no_camera(&served.shared) {
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    }
    let unparsed = served.shared.with_health(|health| match (&health.model, health.too_hot) {
        (ModelState::Failed { reason }, _) => Some(format!("no picture is parsed now: {reason}")),
        (_, Some(_)) => {
            Some("the mirror cools down; it parses pictures again by itself".to_owned())
        }
        _ => None,
    });
    match unparsed {
        Some(text) => Err(Trouble::new(StatusCode::CONFLICT, text)),
        None => Ok(()),
    }
}

/// The picture for a page, in whose hands it is from now on.
fn look_at(served: &Served, id: u64) -> Result<Arc<Parsed>, Trouble> {
    served.shared.frozen.touch(id, Work::Looking, Instant::now());
    frozen(served, id)
}

fn frozen(served: &Served, id: u64) -> Result<Arc<Parsed>, Trouble> {
    let gone = || Trouble::new(StatusCode::GONE, "this picture is gone; freeze another one");
    served.shared.frozen.get(id).ok_or_else(gone)
}

pub async fn frozen_picture(
    State(served): State<Arc<Served>>,
    Path(id): Path<u64>,
) -> Result<Response, Trouble> {
    let parsed = look_at(&served, id)?;
    beside(move || png(pictures::rgb_png(parsed.size, &parsed.rgb))).await
}

/// One byte a pixel, rows from the top, as [`save`] takes them. Not a picture: browsers that guard against fingerprints change
/// what a page reads from one.
pub async fn frozen_parts(
    State(served): State<Arc<Served>>,
    Path(id): Path<u64>,
) -> Result<Response, Trouble> {
    let parsed = look_at(&served, id)?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], parsed.labels.clone()).into_response())
}

/// Forgets the frozen picture without storing it.
pub async fn discard(State(served): State<Arc<Served>>, Path(id): Path<u64>) -> StatusCode {
    served.shared.frozen.forget(id);
    StatusCode::NO_CONTENT
}

/// Stores the frozen picture with the parts that were painted: one byte a pixel, rows from the top.
pub async fn save(
    State(served): State<Arc<Served>>,
    Path(id): Path<u64>,
    request: Request,
) -> Result<Json<Value>, Trouble> {
    let room = served.desk.room()?;
    let labels = whole(request, PATIENCE).await?;
    let home = home(&served)?;
    beside(move || {
        let _room = room;
        // It may be sent again because the answer was lost.
        let info = served.shared.frozen.save(id, || {
            let parsed = frozen(&served, id)?;
            store(&home, &parsed, &labels)
        })?;
        Ok(Json(json!({ "correction": info })))
    })
    .await
}

/// Checks a mask against its picture, and stores both if somebody agreed to that.
pub(super) fn store(
    home: &Home,
    parsed: &Parsed,
    labels: &[u8],
) -> Result<CorrectionInfo, Trouble> {
    let token = home.token::<ImproveMyMirror>().map_err(HomeError::from)?;
    check_mask(parsed, labels)?;
    let base = home.shipped();
    let (pixels, mask) = parsed
        .to_input(labels, base.grid, base.padding)
        .map_err(|error| Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let info = home.add_correction(&token, &pixels, &mask)?;
    // Not in the journal: how often a household corrects does not belong there.
    debug!("a correction was stored");
    Ok(info)
}

fn check_mask(parsed: &Parsed, labels: &[u8]) -> Result<(), Trouble> {
    let (width, height) = parsed.size;
    if labels.len() as u64 != u64::from(width) * u64::from(height) {
        let text = format!("the mask has {} values, not {width} x {height}", labels.len());
        return Err(Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let known = |label: u8| usize::from(label) < PART_COUNT || label == NOT_SAID;
    if let Some(unknown) = labels.iter().find(|label| !known(**label)) {
        let text = format!("the mask has the class {unknown}; parts are 0 to 15, 255 is not said");
        return Err(Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    Ok(())
}

/// A mask file of the picture's size.
pub(super) fn read_mask(parsed: &Parsed, file: &[u8]) -> Result<Vec<u8>, Trouble> {
    let refuse = |text: String| Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, text);
    let map = pictures::decode_labels(file, MOST_PIXELS)
        .map_err(|error| refuse(format!("target_mask: {error:#}")))?;
    if (map.width, map.height) != parsed.size {
        let (width, height) = parsed.size;
        return Err(refuse(format!(
            "target_mask is {} x {}, the picture is {width} x {height}",
            map.width, map.height
        )));
    }
    check_mask(parsed, &map.labels)?;
    Ok(map.labels)
}

pub(super) fn png(file: anyhow::Result<Vec<u8>>) -> Result<Response, Trouble> {
    Ok(([("content-type", "image/png")], file.map_err(Trouble::inside)?).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::learning::Learning;
    use crate::model::ModelSource;
    use crate::page::guard::CHANGE_HEADER;
    use crate::page::routes::device_router;
    use crate::page::{Page, Parts};
    use crate::parsing;
    use crate::run::switch::SwitchFile;
    use crate::shared::{CameraState, SwitchedBy, Topic};
    use axum::Router;
    use axum::body::{Body, Bytes, to_bytes};
    use axum::http::Request;
    use axum::http::header::{CONTENT_TYPE, HOST};
    use home::HomeOptions;
    use settings::Layers;
    use std::future::poll_fn;
    use std::path::PathBuf;
    use std::task::Poll;
    use std::time::Instant;
    use tokio::runtime::Runtime;
    use tower::ServiceExt;

    /// The page of a mirror whose camera delivers, with stores in a folder of its own.
    struct Rig {
        served: Arc<Served>,
        router: Router,
        runtime: Runtime,
        folder: PathBuf,
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    impl Rig {
        fn new(name: &str) -> Rig {
            Rig::with(name, |folder| Learning::in_folder(folder, HomeOptions::default()))
        }

        fn with(name: &str, learning: impl Fn(&std::path::Path) -> Learning) -> Rig {
            let folder = format!("mirror-page-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            let settings = Layers::defaults().and_then(Layers::finish).expect("the defaults");
            let shared = Arc::new(Shared::new(Instant::now(), None));
            let learning = Arc::new(learning(&folder));
            let model = ModelSource::new(&settings.settings.vision);
            let (desk, _) = parsing::open(Arc::clone(&shared), Arc::clone(&learning), model);
            let (switch, access) = (SwitchFile::new(&folder), Access::closed(&folder));
            let fleet = Arc::new(Fleet::new(true));
            let parts = Parts { shared, switch, settings, access, learning, fleet, desk };
            let served = Page::new(parts).context;
            let router = device_router(Arc::clone(&served));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let rig = Rig { served, router, runtime: runtime.expect("a runtime"), folder };
            rig.switch_on();
            rig
        }

        fn switch_on(&self) {
            self.served.shared.switch_camera(true, SwitchedBy::Page);
            self.served.shared.update_health(|health| health.camera = CameraState::On);
        }

        async fn answer(&self, method: &str, path: &str, body: String) -> (StatusCode, Bytes) {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, "localhost")
                .header(CHANGE_HEADER, "1")
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .expect("a request");
            let answer = self.router.clone().oneshot(request).await.expect("infallible");
            let status = answer.status();
            (status, to_bytes(answer.into_body(), 1 << 20).await.expect("a short answer"))
        }

        fn status(&self, method: &str, path: &str, body: &str) -> StatusCode {
            self.runtime.block_on(self.answer(method, path, body.to_owned())).0
        }

        fn consent(&self, purpose: &str, version: u32, agree: bool) -> StatusCode {
            let body = json!({ "purpose": purpose, "version": version, "agree": agree });
            self.status("POST", "/api/learning/consent", &body.to_string())
        }

        fn version(&self) -> u32 {
            self.served.learning.household().expect("open").explanation().version
        }

        fn agree(&self) {
            assert_eq!(self.consent("improve_my_mirror", self.version(), true), StatusCode::OK);
        }

        /// Freezes the next picture; `meanwhile` happens just before it comes.
        fn freeze(&self, meanwhile: impl FnOnce()) -> (StatusCode, u64) {
            self.freeze_one(Parsed::blank((6, 8)), meanwhile)
        }

        fn freeze_one(&self, parsed: Parsed, meanwhile: impl FnOnce()) -> (StatusCode, u64) {
            let camera = async {
                let waiting = loop {
                    match self.served.shared.take_freeze() {
                        Some(waiting) => break waiting,
                        None => tokio::task::yield_now().await,
                    }
                };
                meanwhile();
                assert!(waiting.send(parsed).is_ok(), "nobody waits");
            };
            let freeze = self.answer("POST", "/api/freeze", String::new());
            let ((status, body), ()) =
                self.runtime.block_on(async { tokio::join!(freeze, camera) });
            let answer: Value = serde_json::from_slice(&body).expect("JSON");
            (status, answer["id"].as_u64().unwrap_or(0))
        }

        fn is_kept(&self, id: u64) -> bool {
            let kept = self.served.shared.frozen.get(id).is_some();
            let told = if kept { StatusCode::OK } else { StatusCode::GONE };
            assert_eq!(self.status("GET", &format!("/api/frozen/{id}/picture.png"), ""), told);
            kept
        }
    }

    #[test]
    fn without_a_fleet_nobody_can_agree_to_contribute_to_one() {
        let options = HomeOptions { member: false, ..HomeOptions::default() };
        let rig = Rig::with("alone", |folder| Learning::in_folder(folder, options));
        let contribute = |agree| rig.consent("contribute_to_fleet", rig.version(), agree);
        assert_eq!(contribute(true), StatusCode::CONFLICT);
        assert_eq!(
            contribute(false),
            StatusCode::OK,
            "what was agreed to before can be taken back"
        );
        rig.agree();
    }

    #[test]
    fn a_withdrawal_that_the_disk_refuses_is_told_and_can_be_taken_back_again() {
        let rig = Rig::new("unstored");
        rig.agree();
        // Stands for a disk that takes no change: neither a rename over it nor a removal works.
        let record = rig.folder.join("consent/consent.json");
        std::fs::remove_file(&record).expect("stored");
        std::fs::create_dir(&record).expect("writable");
        let ask = |method, path: &str, body: &Value| {
            let (status, body) = rig.runtime.block_on(rig.answer(method, path, body.to_string()));
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        let shown = || -> Value {
            serde_json::from_str(&ask("GET", "/api/learning", &json!({})).1).expect("JSON")
        };
        let notice = || {
            let shared = &rig.served.shared;
            shared.with_health(|health| health.notices.get(Topic::Withdrawal).map(str::to_owned))
        };
        let off =
            json!({ "purpose": "improve_my_mirror", "version": rig.version(), "agree": false });
        for (path, body) in [("/api/learning/consent", &off), ("/api/learning/delete", &off)] {
            let (status, told) = ask("POST", path, body);
            assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{path}");
            assert!(told.contains("until the mirror's next start only"), "{told}");
            let shown = shown();
            assert_eq!(shown["consents"][0]["agreed"], false);
            assert_eq!(shown["consents"][0]["consent"]["state"], "unstored");
            let problem = shown["problems"][0].as_str().map(str::to_owned);
            assert!(problem.is_some() && problem == notice(), "{problem:?}");
        }
        std::fs::remove_dir(&record).expect("ours");
        assert_eq!(ask("POST", "/api/learning/consent", &off).0, StatusCode::OK);
        let shown = shown();
        assert_eq!(shown["consents"][0]["consent"]["state"], "absent");
        assert_eq!((&shown["problems"], notice()), (&json!([]), None));
    }

    #[test]
    fn without_a_network_everything_can_be_withdrawn_and_deleted() {
        let rig = Rig::with("rights", |folder| {
            let learning = Learning::in_folder(folder, HomeOptions::default());
            let home = learning.home().expect("open");
            home.grant(PurposeKind::ImproveMyMirror, home.explanation().version).expect("writable");
            let area = home.shipped().grid.area();
            let token = home.token().expect("given");
            for _ in 0..2 {
                home.add_correction(&token, &vec![90; 3 * area], &vec![0; area]).expect("stored");
            }
            drop(learning);
            let learning = Learning::without_network(folder, HomeOptions::default());
            learning.refuse("the network is broken".to_owned());
            learning
        });
        let (status, body) =
            rig.runtime.block_on(rig.answer("GET", "/api/learning", String::new()));
        let shown: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((status, &shown["state"]), (StatusCode::OK, &json!("ready")));
        assert_eq!(shown["learns"], false);
        assert_eq!(shown["problems"], json!(["the network is broken"]));
        assert_eq!(shown["usage"]["corrections"], 2);
        assert_eq!(rig.status("GET", "/api/corrections/0/picture.png", ""), StatusCode::OK);
        assert_eq!(
            rig.status("POST", "/api/learning/train", "{}"),
            StatusCode::SERVICE_UNAVAILABLE
        );
        let removed = rig.status("POST", "/api/corrections/remove", "{\"number\":0}");
        assert_eq!(removed, StatusCode::NO_CONTENT);
        assert_eq!(rig.consent("improve_my_mirror", rig.version(), false), StatusCode::OK);
        assert_eq!(rig.status("POST", "/api/learning/delete", ""), StatusCode::OK);
        let household = rig.served.learning.household().expect("open");
        assert!(household.corrections().is_empty());
    }

    #[test]
    fn a_frozen_picture_goes_with_whatever_forbids_it() {
        let rig = Rig::new("frozen");
        assert_eq!(rig.status("POST", "/api/freeze", ""), StatusCode::FORBIDDEN, "nobody agreed");
        let discard = |id| rig.status("POST", &format!("/api/frozen/{id}/discard"), "");
        let off = |_| rig.status("POST", "/api/camera", "{\"on\":false}");
        let withdraw = |_| rig.consent("improve_my_mirror", rig.version(), false);
        let delete = |_| rig.status("POST", "/api/learning/delete", "");
        let ways: [(&str, &dyn Fn(u64) -> StatusCode); 4] =
            [("discard", &discard), ("off", &off), ("withdraw", &withdraw), ("delete", &delete)];
        for (name, way) in ways {
            rig.agree();
            rig.switch_on();
            let (status, id) = rig.freeze(|| {});
            assert_eq!(status, StatusCode::OK, "{name}");
            assert!(rig.is_kept(id), "{name}");
            assert!(way(id).is_success(), "{name}");
            assert!(!rig.is_kept(id), "{name}");
        }
    }

    #[test]
    fn a_picture_that_comes_after_a_refusal_is_not_kept() {
        let rig = Rig::new("late");
        let home = Arc::clone(rig.served.learning.home().expect("open"));
        rig.agree();
        let withdraw = || drop(home.withdraw(PurposeKind::ImproveMyMirror).expect("writable"));
        assert_eq!(rig.freeze(withdraw).0, StatusCode::FORBIDDEN);
        assert!(rig.served.shared.frozen.kept().is_none());
        rig.agree();
        let off = || rig.served.shared.switch_camera(false, SwitchedBy::Page);
        assert_eq!(rig.freeze(off).0, StatusCode::CONFLICT);
        assert!(rig.served.shared.frozen.kept().is_none());
    }

    #[test]
    fn the_demo_is_corrected_only_where_somebody_asked_for_it() {
        let rig = Rig::new("demo");
        rig.agree();
        let demo = |stands_in| {
            rig.served.shared.update_health(|health| {
                (health.demo, health.stands_in) = (true, stands_in);
            });
        };
        demo(true);
        let (status, body) = rig.runtime.block_on(rig.answer("POST", "/api/freeze", String::new()));
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(text.contains("no camera is connected"), "{text}");
        let told = || -> Value {
            let shown = rig.runtime.block_on(rig.answer("GET", "/api/learning", String::new())).1;
            serde_json::from_slice::<Value>(&shown).expect("JSON")["no_freezing"].take()
        };
        assert_eq!(told(), NO_CAMERA, "before anybody presses");
        demo(false);
        assert_eq!(told(), Value::Null);
        assert_eq!(rig.freeze(|| {}).0, StatusCode::OK, "--source demo");
        rig.served.shared.frozen.forget_any();
        assert_eq!(rig.freeze(|| demo(true)).0, StatusCode::CONFLICT, "asked again when it came");
        assert!(rig.served.shared.frozen.kept().is_none());
    }

    #[test]
    fn nobody_takes_a_picture_away_from_whoever_works_on_it() {
        let rig = Rig::new("hands");
        rig.agree();
        let (_, id) = rig.freeze(|| {});
        let parts = || rig.status("GET", &format!("/api/frozen/{id}/parts"), "");
        assert_eq!(parts(), StatusCode::OK, "the page has it");
        let (status, body) = rig.runtime.block_on(rig.answer("POST", "/api/freeze", String::new()));
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(text.contains("another page"), "{text}");
        assert!(rig.is_kept(id));
        assert_eq!(rig.status("GET", &format!("/api/learning?painted={id}"), ""), StatusCode::OK);
        assert_eq!(
            rig.status("POST", &format!("/api/frozen/{id}/discard"), ""),
            StatusCode::NO_CONTENT
        );
        assert_eq!(rig.freeze(|| {}).0, StatusCode::OK);
    }

    #[test]
    fn a_picture_whose_number_never_arrived_keeps_nobody_from_freezing() {
        let rig = Rig::new("lost");
        rig.agree();
        let (_, lost) = rig.freeze(|| {});
        let (status, id) = rig.freeze(|| {});
        assert_eq!(status, StatusCode::OK);
        assert!(rig.is_kept(id) && !rig.is_kept(lost));
    }

    #[test]
    fn a_picture_that_could_never_be_saved_is_not_frozen() {
        let rig = Rig::new("large");
        rig.agree();
        let mut parsed = Parsed::blank((6, 8));
        parsed.size = (8192, 8192);
        assert_eq!(rig.freeze_one(parsed, || {}).0, StatusCode::CONFLICT);
        assert!(rig.served.shared.frozen.kept().is_none());
    }

    #[test]
    fn what_breaks_inside_the_mirror_is_told_as_what_to_do() {
        let rig = Rig::new("inside");
        let broken: Result<(), Trouble> = rig.runtime.block_on(beside(|| panic!("on purpose")));
        let text = broken.expect_err("it broke").text;
        assert!(text.contains("try again") && !text.contains("panic"), "{text}");
    }

    #[test]
    fn whoever_refuses_says_why_in_json() {
        let rig = Rig::new("refusals");
        let large = " ".repeat(3 << 20);
        for (method, path, body, status) in [
            ("POST", "/api/camera", "{\"on\"", 400),
            ("POST", "/api/camera", "{\"on\":1}", 422),
            ("POST", "/api/camera", large.as_str(), 413),
            ("GET", "/api/camera", "", 405),
            ("GET", "/api/corrections/x/mask.png", "", 400),
            ("GET", "/api/learning?painted=x", "", 400),
            ("GET", "/api/nowhere", "", 404),
        ] {
            let (was, body) = rig.runtime.block_on(rig.answer(method, path, body.to_owned()));
            let text = String::from_utf8_lossy(&body).into_owned();
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            assert_eq!(was.as_u16(), status, "{method} {path}: {text}");
            assert!(answer["error"].as_str().is_some_and(|why| !why.is_empty()), "{path}: {text}");
        }
    }

    #[test]
    fn a_picture_that_is_saved_twice_is_stored_once() {
        let rig = Rig::new("twice");
        rig.agree();
        let (_, id) = rig.freeze(|| {});
        let parts = rig.runtime.block_on(rig.answer(
            "GET",
            &format!("/api/frozen/{id}/parts"),
            String::new(),
        ));
        assert_eq!((parts.0, parts.1.len()), (StatusCode::OK, 6 * 8));
        let save = || {
            let body = String::from_utf8(parts.1.to_vec()).expect("all background");
            rig.runtime.block_on(rig.answer("POST", &format!("/api/frozen/{id}/save"), body))
        };
        let (first, second) = (save(), save());
        assert_eq!(first.0, StatusCode::OK, "{first:?}");
        assert_eq!(first, second);
        let home = rig.served.learning.home().expect("open");
        assert_eq!(home.usage().corrections, 1);
        assert!(!rig.is_kept(id));
        rig.served.shared.switch_camera(false, SwitchedBy::Page);
        assert_eq!(first, save(), "it is stored all the same");
        assert_eq!(rig.status("POST", "/api/learning/delete", ""), StatusCode::OK);
        assert_eq!(save().0, StatusCode::GONE);
    }

    #[test]
    fn a_picture_that_is_saved_again_while_it_is_written_is_stored_once() {
        let rig = Rig::new("meanwhile");
        rig.agree();
        let (_, id) = rig.freeze(|| {});
        let path = format!("/api/frozen/{id}/save");
        let save = || rig.answer("POST", &path, "\0".repeat(6 * 8));
        let (first, second) = rig.runtime.block_on(async { tokio::join!(save(), save()) });
        assert_eq!(first.0, StatusCode::OK, "{first:?}");
        assert_eq!(first, second);
        assert_eq!(rig.served.learning.home().expect("open").usage().corrections, 1);
    }

    #[test]
    fn large_requests_beyond_the_room_are_refused_unread() {
        let rig = Rig::new("room");
        rig.agree();
        let (_, id) = rig.freeze(|| {});
        let save = format!("/api/frozen/{id}/save");
        let form = "multipart/form-data; boundary=edge";
        let never = || futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let ask = |path: &str, body: Body| {
            let request = Request::post(path)
                .header(HOST, "localhost")
                .header(CHANGE_HEADER, "1")
                .header(CONTENT_TYPE, form)
                .body(body)
                .expect("a request");
            rig.router.clone().oneshot(request)
        };
        rig.runtime.block_on(async {
            let mut slow: Vec<_> = ["/parse", &save]
                .map(|path| Box::pin(ask(path, Body::from_stream(never()))))
                .into();
            for request in &mut slow {
                let polled = poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await;
                assert!(polled.is_pending(), "its body is awaited");
            }
            for path in ["/parse", &save] {
                let answer = ask(path, Body::from_stream(never())).await.expect("infallible");
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
            }
            // Whoever leaves makes room.
            drop(slow);
            let answer = ask(&save, Body::from(vec![0; 6 * 8])).await.expect("infallible");
            assert_eq!(answer.status(), StatusCode::OK);
        });
    }

    #[test]
    fn a_picture_that_nobody_parses_is_not_waited_for() {
        let rig = Rig::new("hot");
        rig.agree();
        let why = || {
            let answer = rig.runtime.block_on(rig.answer("POST", "/api/freeze", String::new()));
            assert_eq!(answer.0, StatusCode::CONFLICT);
            String::from_utf8_lossy(&answer.1).into_owned()
        };
        rig.served.shared.update_health(|health| health.too_hot = Some(90.0));
        assert!(why().contains("cools down"), "{}", why());
        let failed = ModelState::Failed { reason: "wrong hash".into() };
        rig.served.shared.update_health(|health| health.model = failed);
        assert!(why().contains("wrong hash"), "{}", why());
    }

    #[test]
    fn only_a_consent_that_counts_answers_the_home_s_question() {
        let rig = Rig::new("question");
        let fleet = Arc::clone(&rig.served.fleet);
        fleet.ask(&rig.served.shared);
        let outdated = rig.consent("contribute_to_fleet", rig.version() + 1, true);
        assert_eq!((outdated, fleet.asks()), (StatusCode::FORBIDDEN, true));
        let agreed = rig.consent("contribute_to_fleet", rig.version(), true);
        assert_eq!((agreed, fleet.asks()), (StatusCode::OK, false));
    }
}
