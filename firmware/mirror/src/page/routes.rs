//! What is where: the addresses of the device's own door, of paired browsers, and of everybody else.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};

use crate::page::guard::{self, Door};
use crate::page::{
    Served, Trouble, Visitor, access, api, correct, learning, metrics, parse, stream,
};

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

/// Bytes of a request that brings no picture: what a switch, a code or a name needs.
const MOST_BYTES: usize = 4096;

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
        .route("/api/browsers/remove-all", post(access::remove_all))
        .route("/learn.css", get(|| asset("text/css; charset=utf-8", LEARN_STYLE)))
        .route("/learn.js", get(|| asset("text/javascript; charset=utf-8", LEARN_SCRIPT)))
        .route("/correct.js", get(|| asset("text/javascript; charset=utf-8", CORRECT_SCRIPT)))
        .route("/api/learning", get(learning::state))
        .route("/api/learning/consent", post(learning::consent))
        .route("/api/learning/train", post(learning::train))
        .route("/api/learning/undo", post(learning::undo))
        .route("/api/learning/delete", post(learning::delete))
        .route("/api/corrections/remove", post(correct::remove))
        .route("/api/corrections/{number}/picture.png", get(correct::correction_picture))
        .route("/api/corrections/{number}/mask.png", get(correct::correction_mask))
        .route("/api/freeze", post(correct::freeze))
        .route("/api/frozen/{id}/picture.png", get(correct::frozen_picture))
        .route("/api/frozen/{id}/parts", get(correct::frozen_parts))
        .route("/api/frozen/{id}/discard", post(correct::discard))
        .route(
            "/api/frozen/{id}/save",
            post(correct::save)
                .layer(DefaultBodyLimit::max(correct::MOST_CORRECTED_PIXELS as usize)),
        )
        .route("/parse", post(parse::parse).layer(DefaultBodyLimit::max(parse::MOST_FORM_BYTES)))
        .route("/healthz", get(api::healthz))
        .route("/metrics", get(metrics::metrics))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
}

/// This machine's own browser's.
pub(super) fn device_router(context: Arc<Served>) -> Router {
    routes()
        .route("/api/pairing", post(access::begin))
        .layer(middleware::from_fn(guard::guard))
        .layer(Extension(Door::Device))
        .layer(Extension(Visitor::Device))
        .with_state(context)
}

/// Paired browsers'.
pub(super) fn paired_router(context: Arc<Served>) -> Router {
    routes().layer(middleware::from_fn(guard::guard)).with_state(context)
}

/// The pairing page. What is not in this list does not exist for whoever is not paired.
pub(super) fn unpaired_router(context: Arc<Served>) -> Router {
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
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn(guard::guard))
        .with_state(context)
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([("content-type", kind)], text).into_response()
}
