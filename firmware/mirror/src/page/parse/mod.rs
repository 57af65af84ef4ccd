//! `POST /parse`: one picture in, its parts out; and, if somebody asked for it and agreed to it, a correction to learn
//! from.
//!
//! The picture is in memory until it is answered, and stored nowhere unless `train_on_local` is true, a `target_mask` is
//! there, and consent is current.

pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use home::CorrectionInfo;
use proto::taxonomy::Part;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vision::StageTimings;

use crate::found;
use crate::learning::{Key, Learning, Noted};
use crate::page::correct::{read_mask, store};
use crate::page::parse::worker::{Refused, Room};
use crate::page::stores::{agreed, home};
use crate::page::work::{PATIENCE, beside, in_time, png};
use crate::page::{Served, Trouble};
use crate::parsed::{Parsed, palette};
use crate::pictures;

/// Bytes of a whole form: few photographs of as many pixels as are parsed are larger.
pub const MOST_FORM_BYTES: usize = 6 << 20;
/// A request with this header is the same as an earlier one with the same value.
const KEY: &str = "idempotency-key";
const LONGEST_KEY: usize = 128;

/// What was sent.
#[derive(Default)]
struct Form {
    image: Option<Bytes>,
    train: bool,
    mask: Option<Bytes>,
}

fn bad(text: impl Into<String>) -> Trouble {
    Trouble::new(StatusCode::BAD_REQUEST, text)
}

fn broken(error: &MultipartError) -> Trouble {
    // A body that ends too early is the sender's fault.
    let status = match error.status() {
        StatusCode::INTERNAL_SERVER_ERROR => StatusCode::BAD_REQUEST,
        status => status,
    };
    Trouble::new(status, format!("the form cannot be read: {}", error.body_text()))
}

/// Parses the picture; answers its colour map as PNG, or JSON where the `Accept` header wants that.
pub async fn parse(
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    multipart: Multipart,
) -> Result<Response, Trouble> {
    let room = served.queue.room()?;
    let form = in_time(PATIENCE, read(multipart)).await?;
    let image = form.image.ok_or_else(|| bad("the form has no part `image`"))?;
    let training = match (form.train, form.mask) {
        (false, None) => None,
        (true, Some(mask)) => Some(mask),
        (true, None) => return Err(bad("train_on_local needs a part `target_mask`")),
        (false, Some(_)) => return Err(bad("target_mask is used with train_on_local=true only")),
    };
    let keys = match &training {
        Some(mask) => {
            // Before any work: without consent nothing is looked at.
            agreed(home(&served)?).await?;
            keys(&headers, &image, mask)?
        }
        None => Vec::new(),
    };
    let noted = note(Arc::clone(&served.learning), keys).await?;
    answer(&served, &headers, (image, training), noted, room).await
}

/// Whether a correction is still there is asked of the stores, and not by the page's own thread.
async fn note(learning: Arc<Learning>, keys: Vec<Key>) -> Result<Noted, Trouble> {
    beside(move || {
        let is_stored =
            |number| learning.household().is_some_and(|household| household.has_correction(number));
        learning.answered.note(keys, is_stored).ok_or_else(|| {
            let text = "this request was made before; nothing is stored twice";
            Trouble::new(StatusCode::CONFLICT, text)
        })
    })
    .await
}

async fn answer(
    served: &Served,
    headers: &HeaderMap,
    (image, training): (Bytes, Option<Bytes>),
    noted: Noted,
    room: Room,
) -> Result<Response, Trouble> {
    let (parsed, timings, turn) = served.queue.parse(image, room.clone()).await?;
    let home = training.is_some().then(|| home(served)).transpose()?;
    let wants_json = wants_json(headers);
    // This goes on even if whoever asked has gone away, and so does the note.
    beside(move || {
        // In this order: the turn ends after the picture.
        let (_room, _turn, parsed) = (room, turn, parsed);
        let stored = match (&home, &training) {
            (Some(home), Some(file)) => {
                let labels = read_mask(&parsed, file)?;
                let info = store(home, &parsed, &labels)?;
                noted.stored_as(info.number);
                Some(info)
            }
            _ => None,
        };
        if wants_json {
            return Ok(Json(describe(&parsed, &timings, stored)).into_response());
        }
        png(pictures::coloured_png(parsed.size, &parsed.labels, palette()))
    })
    .await
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Trouble {
        match refused {
            Refused::Picture(text) => {
                Trouble::new(StatusCode::UNPROCESSABLE_ENTITY, format!("image: {text}"))
            }
            Refused::Busy => {
                let text = "other pictures are under way; try again in a moment";
                Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            Refused::Learning => {
                let text = "the mirror is learning, for which it needs its memory; try again in some minutes";
                Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            Refused::Network(text) => Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

async fn read(mut multipart: Multipart) -> Result<Form, Trouble> {
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|error| broken(&error))?;
        let repeated = || bad(format!("the form has `{}` twice", name.escape_debug()));
        match name.as_str() {
            "image" if form.image.is_some() => return Err(repeated()),
            "image" => form.image = Some(bytes),
            "target_mask" if form.mask.is_some() => return Err(repeated()),
            "target_mask" => form.mask = Some(bytes),
            "train_on_local" => {
                form.train = match &bytes[..] {
                    b"true" => true,
                    b"false" | b"" => false,
                    _ => return Err(bad("train_on_local is true or false")),
                }
            }
            _ => return Err(bad(format!("the form has no part `{}`", name.escape_debug()))),
        }
    }
    Ok(form)
}

/// By what a training request is known: its content, and the key that its sender gave it.
fn keys(headers: &HeaderMap, image: &[u8], mask: &[u8]) -> Result<Vec<Key>, Trouble> {
    let mut content = Sha256::new_with_prefix(b"content");
    content.update((image.len() as u64).to_le_bytes());
    content.update(image);
    content.update(mask);
    let mut keys = vec![content.finalize().into()];
    if let Some(key) = headers.get(KEY) {
        // An empty one is no name: each correction after the first would be taken for the same request.
        if key.is_empty() || key.len() > LONGEST_KEY {
            let text = format!("{KEY} has {} bytes; give it 1 to {LONGEST_KEY} bytes", key.len());
            return Err(bad(text));
        }
        let named = Sha256::new_with_prefix(b"key").chain_update(key.as_bytes());
        keys.push(named.finalize().into());
    }
    Ok(keys)
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|kind| kind.trim().starts_with("application/json"))
}

fn describe(parsed: &Parsed, timings: &StageTimings, stored: Option<CorrectionInfo>) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let names = |label| Part::from_index(label).map(Part::name);
    json!({
        "width": parsed.size.0,
        "height": parsed.size.1,
        "persons": parsed.persons,
        "parts": found::tally(parsed.labels.iter().copied(), names),
        "timings": {
            "convert_ms": ms(timings.convert),
            "infer_ms": ms(timings.infer),
            "parse_ms": ms(timings.parse),
        },
        "stored": stored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_request_is_known_by_content_and_by_key() {
        let mut headers = HeaderMap::new();
        let plain = keys(&headers, b"image", b"mask").expect("no key");
        assert_eq!(plain, keys(&headers, b"image", b"mask").expect("no key"));
        assert_ne!(plain, keys(&headers, b"imagem", b"ask").expect("no key"));
        headers.insert(KEY, "a".parse().expect("plain"));
        let first = keys(&headers, b"x", b"mask").expect("a short key");
        let other = keys(&headers, b"y", b"mask").expect("a short key");
        assert!(first[0] != other[0] && first[1] == other[1], "the same key");
    }

    #[test]
    fn a_key_that_names_nothing_or_is_too_long_is_refused_with_its_length() {
        let mut headers = HeaderMap::new();
        let mut asked = |length: usize| {
            headers.insert(KEY, "k".repeat(length).parse().expect("plain"));
            keys(&headers, b"image", b"mask")
        };
        assert!(asked(1).is_ok() && asked(LONGEST_KEY).is_ok());
        for length in [0, LONGEST_KEY + 1] {
            let refused = asked(length).expect_err("no key");
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
            let words = [format!("has {length} bytes"), "1 to 128 bytes".into()];
            assert!(words.iter().all(|word| refused.text.contains(word)), "{}", refused.text);
        }
    }
}
