//! Learning at home over HTTP: consent, corrections, training, the privacy budget, deletion.
//!
//! Whatever touches the disk runs beside the page's own thread. Pictures are answered to this machine's browser and to
//! paired ones; the unpaired router does not know these addresses.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use home::{ConsentState, Home, HomeError};
use learn::consent::{ImproveMyMirror, PurposeKind};
use proto::taxonomy::PART_COUNT;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{info, warn};
use vision::GridSize;

use crate::fleet::Fleet;
use crate::page::{Served, Trouble};
use crate::parsed::{NOT_SAID, Parsed};
use crate::parsing::MOST_PIXELS;
use crate::pictures;
use crate::shared::lock;

/// A picture comes at least this often while the camera delivers.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// A picture that nobody saved is forgotten after this long.
const FROZEN_FOR: Duration = Duration::from_secs(20 * 60);

/// The one picture that is being corrected, in memory.
#[derive(Default)]
pub struct Frozen(Mutex<Slot>);

/// Number of the newest frozen picture, and the picture with its moment while it is kept.
#[derive(Default)]
struct Slot {
    number: u64,
    picture: Option<(Instant, Arc<Parsed>)>,
}

impl Frozen {
    fn put(&self, parsed: Parsed) -> u64 {
        let mut slot = lock(&self.0);
        slot.number += 1;
        slot.picture = Some((Instant::now(), Arc::new(parsed)));
        slot.number
    }

    fn get(&self, id: u64) -> Result<Arc<Parsed>, Trouble> {
        let mut slot = lock(&self.0);
        if slot.picture.as_ref().is_some_and(|(at, _)| at.elapsed() > FROZEN_FOR) {
            slot.picture = None;
        }
        match &slot.picture {
            Some((_, parsed)) if slot.number == id => Ok(Arc::clone(parsed)),
            _ => Err(Trouble::new(StatusCode::GONE, "this picture is gone; freeze another one")),
        }
    }

    /// Forgets the picture.
    pub fn forget(&self) {
        lock(&self.0).picture = None;
    }
}

impl From<HomeError> for Trouble {
    fn from(error: HomeError) -> Trouble {
        let status = match &error {
            HomeError::Consent(_) => StatusCode::FORBIDDEN,
            HomeError::NoCorrection(_) | HomeError::NoHead => StatusCode::NOT_FOUND,
            HomeError::PictureSize { .. } | HomeError::MaskSize { .. } | HomeError::Mask(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            HomeError::TooMany { .. } | HomeError::TooLarge { .. } => StatusCode::CONFLICT,
            HomeError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Trouble::new(status, error.to_string())
    }
}

/// The open stores, or why there are none.
pub(super) fn home(served: &Served) -> Result<Arc<Home>, Trouble> {
    match served.learning.home() {
        Some(home) => Ok(Arc::clone(home)),
        None => {
            let reason = served.learning.trouble();
            let text = reason.unwrap_or_else(|| "learning at home is not ready yet".to_owned());
            Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}

/// Runs what may wait for the disk, or computes for a while, beside the page's thread.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// Everything that the page shows about learning.
pub async fn state(State(served): State<Arc<Served>>) -> Result<Json<Value>, Trouble> {
    let home = match home(&served) {
        Ok(home) => home,
        Err(trouble) => {
            let state = if served.learning.trouble().is_some() { "broken" } else { "opening" };
            return Ok(Json(json!({ "state": state, "reason": trouble.text })));
        }
    };
    beside(move || Ok(Json(describe(&home, &served.fleet)))).await
}

fn describe(home: &Home, fleet: &Fleet) -> Value {
    let consent = |purpose| {
        let state = home.consent(purpose);
        let agreed = matches!(state, ConsentState::Given(_));
        json!({ "purpose": purpose, "agreed": agreed, "consent": state })
    };
    let privacy = match home.privacy() {
        Ok(overview) => json!(overview),
        Err(error) => json!({ "error": error.to_string() }),
    };
    json!({
        "state": "ready",
        "explanation": home.explanation(),
        "consents": [consent(PurposeKind::ImproveMyMirror), consent(PurposeKind::ContributeToFleet)],
        "usage": home.usage(),
        "corrections": home.corrections(),
        "training": home.training(),
        "heads": home.heads(),
        "privacy": privacy,
        "fleet": membership(home, fleet),
        "problems": home.problems(),
    })
}

/// How the mirror stands with its fleet.
fn membership(home: &Home, fleet: &Fleet) -> Value {
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
        "model": home.fleet_version(),
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

/// Gives consent, or takes it back at once.
pub async fn consent(
    State(served): State<Arc<Served>>,
    Json(change): Json<ConsentChange>,
) -> Result<Json<Value>, Trouble> {
    let home = home(&served)?;
    if change.purpose == PurposeKind::ContributeToFleet {
        served.fleet.answered(&served.shared);
    }
    beside(move || {
        let ConsentChange { purpose, version, agree } = change;
        info!("consent to {purpose:?}: {}", if agree { "given" } else { "withdrawn" });
        match agree {
            true => Ok(Json(json!({ "record": home.grant(purpose, version)? }))),
            false => Ok(Json(json!(home.withdraw(purpose)?))),
        }
    })
    .await
}

/// Asks for a run; it begins when the mirror can spare its processor.
pub async fn train(State(served): State<Arc<Served>>) -> Result<StatusCode, Trouble> {
    let home = home(&served)?;
    home.token::<ImproveMyMirror>().map_err(HomeError::from)?;
    if home.usage().corrections == 0 {
        let text = "there is nothing to train on; correct a picture first";
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    }
    home.request_training();
    Ok(StatusCode::ACCEPTED)
}

/// Goes back to the head before.
pub async fn undo(State(served): State<Arc<Served>>) -> Result<Json<Value>, Trouble> {
    let home = home(&served)?;
    beside(move || Ok(Json(json!({ "head": home.undo_head()? })))).await
}

/// Deletes everything, and answers with the proof.
pub async fn delete(State(served): State<Arc<Served>>) -> Result<Json<Value>, Trouble> {
    served.frozen.forget();
    served.seen.forget();
    let home = home(&served)?;
    beside(move || {
        let proof = home.delete_everything()?;
        info!("everything that was learnt was deleted; complete: {}", proof.is_complete());
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
    let home = home(&served)?;
    beside(move || {
        home.remove_correction(removal.number)?;
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}

pub async fn correction_picture(
    State(served): State<Arc<Served>>,
    Path(number): Path<u64>,
) -> Result<Response, Trouble> {
    let home = home(&served)?;
    beside(move || {
        let picture = home.picture(number)?;
        let size = (picture.width as u32, picture.height as u32);
        png(pictures::rgb_png(size, &picture.interleaved()))
    })
    .await
}

pub async fn correction_mask(
    State(served): State<Arc<Served>>,
    Path(number): Path<u64>,
) -> Result<Response, Trouble> {
    let home = home(&served)?;
    beside(move || {
        let mask = home.mask(number)?;
        png(pictures::grey_png((mask.width as u32, mask.height as u32), &mask.labels))
    })
    .await
}

/// Keeps the next picture and its parsing in memory, to be corrected.
pub async fn freeze(State(served): State<Arc<Served>>) -> Result<Json<Value>, Trouble> {
    if !served.shared.may_show() {
        let text = "the camera delivers nothing; switch it on first";
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    }
    let waiting = served.shared.ask_to_freeze();
    match tokio::time::timeout(FREEZE_PATIENCE, waiting).await {
        Ok(Ok(parsed)) => {
            let (width, height) = parsed.size;
            let id = served.frozen.put(parsed);
            Ok(Json(json!({ "id": id, "width": width, "height": height })))
        }
        _ => {
            let text = "no picture came in time; try again";
            Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}

pub async fn frozen_picture(
    State(served): State<Arc<Served>>,
    Path(id): Path<u64>,
) -> Result<Response, Trouble> {
    let parsed = served.frozen.get(id)?;
    beside(move || png(pictures::rgb_png(parsed.size, &parsed.rgb))).await
}

pub async fn frozen_parts(
    State(served): State<Arc<Served>>,
    Path(id): Path<u64>,
) -> Result<Response, Trouble> {
    let parsed = served.frozen.get(id)?;
    beside(move || png(pictures::grey_png(parsed.size, &parsed.labels))).await
}

/// Stores the frozen picture with the parts that were painted: one byte a pixel, rows from the top.
pub async fn save(
    State(served): State<Arc<Served>>,
    Path(id): Path<u64>,
    labels: Bytes,
) -> Result<Json<Value>, Trouble> {
    let parsed = served.frozen.get(id)?;
    let home = home(&served)?;
    let info = beside(move || store(&home, &parsed, &labels)).await?;
    served.frozen.forget();
    Ok(info)
}

/// Checks a mask against its picture, and stores both if somebody agreed to that.
pub(super) fn store(home: &Home, parsed: &Parsed, labels: &[u8]) -> Result<Json<Value>, Trouble> {
    let token = home.token::<ImproveMyMirror>().map_err(HomeError::from)?;
    check_mask(parsed, labels)?;
    let base = home.shipped();
    let grid = GridSize { height: base.height, width: base.width };
    let (pixels, mask) = parsed
        .to_input(labels, grid, base.padding)
        .map_err(|error| Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let info = home.add_correction(&token, &pixels, &mask)?;
    info!("correction {} stored, {} bytes", info.number, info.bytes);
    Ok(Json(json!({ "correction": info })))
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

fn png(file: anyhow::Result<Vec<u8>>) -> Result<Response, Trouble> {
    match file {
        Ok(file) => Ok(([("content-type", "image/png")], file).into_response()),
        Err(error) => {
            warn!("a picture for the page: {error:#}");
            Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
    }
}
