//! The operators' page: where the fleet stands, for this machine only; and `/metrics`.
//!
//! It shows and changes nothing. Commands go through the command line, which leaves traces in the audit log and needs
//! the data folder's permissions.

mod metrics;
mod seats;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use axum::extract::{Request, State};
use axum::http::header::HOST;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use crate::office::Office;
use seats::Seats;

/// Connections at a time; a browser makes six, and whoever collects metrics one.
const MOST_CONNECTIONS: usize = 64;

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Opens the port and serves until the process ends; gives the address, and the thread that serves.
///
/// # Errors
/// A port that cannot be had.
pub fn start(listen: SocketAddr, office: Arc<Office>) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind(listen)
        .with_context(|| format!("no page at {listen}; choose another port with page.listen"))?;
    listener.set_nonblocking(true)?;
    let address = format!("http://{}/", listener.local_addr()?);
    let thread = std::thread::Builder::new().name("page".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(Seats::new(listener, MOST_CONNECTIONS), router(office)).await
            })
        });
        if let Err(error) = served {
            tracing::error!("the page ended: {error}");
        }
    })?;
    Ok((address, thread))
}

fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", HTML)))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/api/status", get(status))
        .route("/metrics", get(metrics::metrics))
        .layer(middleware::from_fn(guard))
        .with_state(office)
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([("content-type", kind)], text).into_response()
}

async fn status(State(office): State<Arc<Office>>) -> Response {
    match office.status() {
        Ok(status) => Json(status).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Answers loopback names only, so that no other page can point its own name here.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if !["localhost", "127.0.0.1", "[::1]"].contains(&name) {
        return (StatusCode::FORBIDDEN, "this page answers to loopback names only\n")
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
