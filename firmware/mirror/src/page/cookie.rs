//! The cookie that makes a browser a paired one.

use axum::http::HeaderMap;
use axum::http::header::COOKIE;

/// The prefix makes browsers insist on HTTPS, this host, and the whole path.
const NAME: &str = "__Host-mirror";
/// Browsers forget a cookie after 400 days at the latest.
const SECONDS: u64 = 400 * 86_400;

/// Gives a browser this token, for as long as browsers keep one.
pub fn cookie(token: &str) -> String {
    // Lax and not Strict: who follows a link from another page is paired still. Whatever changes something wants a header of ours.
    format!("{NAME}={token}; Path=/; Max-Age={SECONDS}; Secure; HttpOnly; SameSite=Lax")
}

/// The token that a request carries, if it does.
pub fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, token) = pairs.find(|(name, _)| name.trim() == NAME)?;
    Some(token.trim().to_owned())
}
