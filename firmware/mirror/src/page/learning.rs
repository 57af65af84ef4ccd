//! Learning at home over HTTP: consent, training, the privacy budget, deletion.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use home::{ConsentState, HomeError, Household, Withdrawal};
use learn::consent::{ImproveMyMirror, PurposeKind};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use crate::fleet::Fleet;
use crate::frozen::Work;
use crate::learning::tell_withdrawals;
use crate::page::correct::no_camera;
use crate::page::stores::{home, household};
use crate::page::work::beside;
use crate::page::{Served, Trouble};
use crate::shared::Shared;

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

/// Goes back to the earlier head.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::Learning;
    use crate::page::rig::Rig;
    use crate::shared::Topic;
    use home::HomeOptions;

    #[test]
    fn without_a_fleet_nobody_can_agree_to_contribute_to_one() {
        let options = HomeOptions { member: false, ..HomeOptions::default() };
        let rig = Rig::with("alone", |folder| Learning::in_folder(folder, options));
        let contribute = |agree| rig.consent("contribute_to_fleet", rig.versions()[1], agree);
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
        let record = rig.folder.path().join("consent/consent.json");
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
            json!({ "purpose": "improve_my_mirror", "version": rig.versions()[0], "agree": false });
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
            home.grant(PurposeKind::ImproveMyMirror, home.explanation().versions[0])
                .expect("writable");
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
        assert_eq!(rig.consent("improve_my_mirror", rig.versions()[0], false), StatusCode::OK);
        assert_eq!(rig.status("POST", "/api/learning/delete", ""), StatusCode::OK);
        let household = rig.served.learning.household().expect("open");
        assert!(household.corrections().is_empty());
    }

    #[test]
    fn a_deletion_that_leaves_something_says_what() {
        let rig = Rig::new("stray");
        // What is not known there is not removed.
        std::fs::write(rig.folder.path().join("privacy/stray"), "").expect("writable");
        let delete = rig.answer("POST", "/api/learning/delete", String::new());
        let (status, body) = rig.runtime.block_on(delete);
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((status, &answer["complete"]), (StatusCode::OK, &json!(false)));
        assert_eq!(answer["proof"]["remaining"], json!(["privacy/stray"]));
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
    fn only_a_consent_that_counts_answers_the_home_s_question() {
        let rig = Rig::new("question");
        let fleet = Arc::clone(&rig.served.fleet);
        fleet.ask(&rig.served.shared);
        let outdated = rig.consent("contribute_to_fleet", rig.versions()[1] + 1, true);
        assert_eq!((outdated, fleet.asks()), (StatusCode::FORBIDDEN, true));
        let agreed = rig.consent("contribute_to_fleet", rig.versions()[1], true);
        assert_eq!((agreed, fleet.asks()), (StatusCode::OK, false));
    }
}
