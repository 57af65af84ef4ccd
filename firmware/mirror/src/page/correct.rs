//! Corrections over HTTP: a picture is frozen, painted, and stored with its parts, or forgotten; and what is stored is shown and removed.
//! Pictures are answered to this machine's browser and to paired ones; the unpaired router does not know these addresses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use home::{CorrectionInfo, Home, HomeError};
use learn::consent::ImproveMyMirror;
use proto::taxonomy::PART_COUNT;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::debug;

use crate::frozen::Work;
use crate::page::parse::worker::MOST_PIXELS;
use crate::page::stores::{agreed, home, household};
use crate::page::work::{PATIENCE, beside, png, whole};
use crate::page::{Served, Trouble};
use crate::parsed::{NOT_SAID, Parsed};
use crate::pictures;
use crate::shared::{ModelState, Shared};

/// A picture comes at least this often while the camera delivers.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// Larger pictures are made smaller, as no larger ones are handed in: there is memory for it, here and in a telephone's browser. Their parts
/// come back as one byte a pixel, in one request.
pub const MOST_CORRECTED_PIXELS: u64 = MOST_PIXELS;

/// Keeps the next picture and its parsing in memory, to be corrected.
pub async fn freeze(State(served): State<Arc<Served>>) -> Result<Json<Value>, Trouble> {
    may_freeze(&served).await?;
    if let Some(left) = served.shared.frozen.in_hands(Instant::now()) {
        return Err(in_hands(left));
    }
    let Some(waiting) = served.shared.ask_to_freeze() else {
        let text = "somebody else freezes a picture at this moment; try again";
        return Err(Trouble::new(StatusCode::CONFLICT, text));
    };
    let Ok(Ok(mut parsed)) = tokio::time::timeout(FREEZE_PATIENCE, waiting).await else {
        let text = "no picture came in time; try again";
        return Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text));
    };
    let parsed = beside(move || {
        parsed.shrink(MOST_CORRECTED_PIXELS);
        Ok(parsed)
    })
    .await?;
    let (width, height) = parsed.size;
    let put = served.shared.frozen.put(parsed).map_err(in_hands)?;
    served.shared.note_shown_elsewhere();
    // Asked again now: what forbids it meanwhile (camera off, a withdrawal) has forgotten only what was there.
    may_freeze(&served).await?;
    Ok(Json(json!({ "id": put.keep(), "width": width, "height": height })))
}

/// Somebody works on a picture, and may for so long.
fn in_hands(left: Duration) -> Trouble {
    let minutes = left.as_secs().div_ceil(60).max(1);
    let text = format!(
        "somebody is correcting a picture on another page; save or discard it there, or wait {minutes} min"
    );
    Trouble::new(StatusCode::CONFLICT, text)
}

/// Instead of a picture of the demo scene. Whoever asks for that scene may try everything with it.
const NO_CAMERA: &str = "no camera is connected; the people of the demo scene are not this household's, and a correction of them would \
     spoil what the mirror learns. Connect a camera, or start the mirror with --source demo to try corrections out";

/// Why there is nothing to correct for as long as the mirror finds no camera.
pub(super) fn no_camera(shared: &Shared) -> Option<&'static str> {
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
        (ModelState::Failed { reason, .. }, _) => {
            Some(format!("no picture is parsed now: {reason}"))
        }
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
    let room = served.queue.room()?;
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
        served.learning.answered.forget_correction(removal.number);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::guard::CHANGE_HEADER;
    use crate::page::rig::Rig;
    use crate::shared::SwitchedBy;
    use axum::body::{Body, Bytes};
    use axum::http::header::HOST;
    use learn::consent::PurposeKind;
    use std::future::poll_fn;
    use std::task::Poll;
    use tower::ServiceExt;

    #[test]
    fn a_frozen_picture_goes_with_whatever_forbids_it() {
        let rig = Rig::new("frozen");
        assert_eq!(rig.status("POST", "/api/freeze", ""), StatusCode::FORBIDDEN, "nobody agreed");
        let discard = |id| rig.status("POST", &format!("/api/frozen/{id}/discard"), "");
        let off = |_| rig.status("POST", "/api/camera", "{\"on\":false}");
        let withdraw = |_| rig.consent("improve_my_mirror", rig.versions()[0], false);
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
    fn a_picture_that_is_discarded_at_once_is_told_of_on_the_glass() {
        let rig = Rig::new("eye");
        rig.agree();
        let shared = &rig.served.shared;
        assert!(!shared.was_shown_elsewhere());
        let (status, id) = rig.freeze(|| {});
        assert_eq!(status, StatusCode::OK);
        let discarded = rig.status("POST", &format!("/api/frozen/{id}/discard"), "");
        assert_eq!((discarded, shared.frozen.kept()), (StatusCode::NO_CONTENT, None));
        assert!(shared.was_shown_elsewhere());
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
    fn a_picture_that_somebody_opens_while_another_is_awaited_stays() {
        let rig = Rig::new("opened");
        rig.agree();
        let frozen = &rig.served.shared.frozen;
        let opened = std::cell::Cell::new(0);
        let (status, _) = rig.freeze(|| {
            let id = frozen.put(Parsed::blank((6, 8))).expect("the first").keep();
            frozen.touch(id, Work::Painting, Instant::now());
            opened.set(id);
        });
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(rig.is_kept(opened.get()));
    }

    #[test]
    fn of_two_who_freeze_at_the_same_moment_the_second_is_told_so() {
        let rig = Rig::new("moment");
        rig.agree();
        let first = rig.served.shared.ask_to_freeze().expect("nobody waits");
        let (status, body) = rig.runtime.block_on(rig.answer("POST", "/api/freeze", String::new()));
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(text.contains("at this moment"), "{text}");
        drop(first);
        assert_eq!(rig.freeze(|| {}).0, StatusCode::OK, "the first has gone away");
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
    fn a_picture_of_many_pixels_is_corrected_at_a_size_that_there_is_memory_for() {
        let rig = Rig::new("large");
        rig.agree();
        let (status, id) = rig.freeze_one(Parsed::blank((2400, 1600)), || {});
        assert_eq!(status, StatusCode::OK);
        let size = rig.served.shared.frozen.get(id).expect("frozen").size;
        assert_eq!(size, (2172, 1448));
        let labels = "\0".repeat(2172 * 1448);
        let path = format!("/api/frozen/{id}/save");
        let (status, told) = rig.runtime.block_on(rig.answer("POST", &path, labels));
        assert_eq!(status, StatusCode::OK, "{told:?}");
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
    fn a_number_that_no_correction_can_have_is_told_as_missing() {
        let rig = Rig::new("number");
        let body = format!("{{\"number\":{}}}", u64::MAX);
        let remove = rig.answer("POST", "/api/corrections/remove", body);
        let (status, told) = rig.runtime.block_on(remove);
        let text = String::from_utf8_lossy(&told);
        assert_eq!(status, StatusCode::NOT_FOUND, "{text}");
        assert!(text.contains("there is no correction 18446744073709551615"), "{text}");
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
        let failed = ModelState::Failed { reason: "wrong hash".into(), built_in: true };
        rig.served.shared.update_health(|health| health.model = failed);
        assert!(why().contains("wrong hash"), "{}", why());
    }
}
