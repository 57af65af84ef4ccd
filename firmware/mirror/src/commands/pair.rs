//! `mirror pair`: asks the running mirror for a pairing code, and prints it here.
//!
//! For mirrors whose screen cannot be read. Whoever can run this sits at the mirror's own console.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cli::PairArgs;
use crate::config;
use crate::report;

/// The mirror is on this machine and answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers are short; anything longer is not the mirror's.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Deserialize)]
struct Shown {
    code: String,
    address: Option<String>,
    fingerprint: String,
    seconds_left: u64,
}

/// Prints the code, the address and the certificate's fingerprint.
///
/// # Errors
/// No mirror that runs with these settings, or one that lets nobody in.
pub fn pair(args: &PairArgs) -> Result<()> {
    let effective = config::load(&args.settings, &[])?;
    let address = effective.settings.page.listen;
    let (status, body) = post(address, "/api/pairing").with_context(|| {
        format!("no mirror answers at {address}; start it, or name its settings with --config")
    })?;
    if status != 200 {
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        bail!("{}", told["error"].as_str().unwrap_or("the mirror refuses to pair"));
    }
    if args.json {
        return Ok(report::print(&(String::from_utf8_lossy(&body).into_owned() + "\n"))?);
    }
    let Shown { code, address, fingerprint, seconds_left } = serde_json::from_slice(&body)?;
    let address = address.as_deref().unwrap_or("the mirror's address");
    let (first, second) = code.split_at(code.len() / 2);
    let text = format!(
        "code         {first} {second}\nopen         {address}\ncertificate  {fingerprint}\n\
         The code is good for {seconds_left} seconds.\n"
    );
    Ok(report::print(&text)?)
}

/// One POST without a body; the status and the answer's body.
fn post(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nx-mirror-change: 1\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("half an answer")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("an answer that is not HTTP")?, answer[end + 4..].to_vec()))
}
