//! Commands to a running server, over a socket in its data folder; the same commands without a server.
//!
//! The database belongs to one process at a time. A command asks the server when one listens, and opens the database
//! itself when none does. Should a server start in between, the file's lock refuses the command, which says so. A server does one
//! after the other, an audit beside them, and none for somebody who has left.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use crate::engine::{Engine, EngineError, Failure, ModelStatus, RoundRequest, RoundStatus, Status};
use crate::hex;
use crate::office::Office;
use crate::records::{Device, Model, Round};
use crate::verify::Verified;

/// Bytes of a command at most.
const REQUEST_BYTES: u64 = 64 * 1024;

/// Seconds that a command may take to arrive, or its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause where no connection can be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// What an operator asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[allow(missing_docs)] // the commands of `cli` say it
pub enum Request {
    Status,
    RoundStart(RoundRequest),
    RoundAbort { round: u64, reason: String },
    ModelFailures { version: u64 },
    ModelPublish { version: u64 },
    ModelRollback { version: u64 },
    DeviceList,
    DeviceEnrol { name: String, fingerprint: String, group: Option<String> },
    DeviceRevoke { name: String, reason: String },
    AuditVerify,
    Restore { rounds_above: u32, versions_above: u32 },
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", content = "with", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Reply {
    Status(Box<Status>),
    Round(Box<RoundStatus>),
    Model(ModelStatus),
    Failures(Vec<Failure>),
    Devices(Vec<Listed>),
    Enrolled { device: Device, secret: String, public_key: String },
    Device(Device),
    Verified(Verified),
    Failed(String),
}

/// A device, and whether it is connected; `None` where no server knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The record.
    #[serde(flatten)]
    pub device: Device,
    /// Whether it is connected.
    pub online: Option<bool>,
    /// The firmware's version that it said last, while it is connected.
    pub firmware: Option<String>,
}

/// Does what is asked. `office` is a running server's.
pub fn execute(engine: &Engine, office: Option<&Office>, request: Request) -> Reply {
    answer(engine, office, request).unwrap_or_else(|error| Reply::Failed(error.to_string()))
}

fn answer(
    engine: &Engine,
    office: Option<&Office>,
    request: Request,
) -> Result<Reply, EngineError> {
    let presence = office.and_then(Office::known_presence);
    let with_tally =
        |round: Round| Ok::<_, EngineError>(Reply::Round(Box::new(engine.round_status(round)?)));
    let with_standing =
        |model: Model| Ok::<_, EngineError>(Reply::Model(engine.model_status(model)?));
    Ok(match request {
        Request::Status => {
            let status = office.map_or_else(|| engine.status(), Office::status)?;
            Reply::Status(Box::new(status))
        }
        Request::RoundStart(request) => with_tally(engine.start_round(&request)?)?,
        Request::RoundAbort { round, reason } => with_tally(engine.abort_round(round, &reason)?)?,
        Request::ModelFailures { version } => Reply::Failures(engine.failures(version)?),
        Request::ModelPublish { version } => with_standing(engine.publish(version)?)?,
        Request::ModelRollback { version } => with_standing(engine.rollback(version)?)?,
        Request::DeviceList => {
            let mut devices = Vec::new();
            engine.store().each_device(|device| {
                let firmware = presence.and_then(|presence| presence.firmware(&device.name));
                let online = presence.map(|_| firmware.is_some());
                devices.push(Listed { device, online, firmware });
            })?;
            Reply::Devices(devices)
        }
        Request::DeviceEnrol { name, fingerprint, group } => {
            let device = engine.enrol_in(&name, &fingerprint, group.as_deref())?;
            let secret = hex::encode(engine.secret(&name.parse()?).expose());
            Reply::Enrolled { device, secret, public_key: engine.public_key() }
        }
        Request::DeviceRevoke { name, reason } => Reply::Device(engine.revoke(&name, &reason)?),
        // A running server's file is not the one that was put into its place.
        Request::Restore { .. } if office.is_some() => {
            let text = "stop the server first, as section 8 of the operators' guide says: it has the database open that was there \
                        before the copy";
            Reply::Failed(text.to_owned())
        }
        Request::Restore { rounds_above, versions_above } => {
            with_standing(engine.restore(rounds_above, versions_above)?)?
        }
        Request::AuditVerify => Reply::Verified(engine.verify(&engine.key().verifying_key())?),
    })
}

/// Asks a running server; `None` when there is none.
///
/// # Errors
/// A socket that may not be used, or a server that does not answer.
pub fn ask(socket: &Path, request: &Request) -> std::io::Result<Option<Reply>> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    stream.set_read_timeout(patience(request))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(unanswered)?;
    hear(&stream).map(Some)
}

/// How long an answer is waited for. An audit waits for the one before it, and of many rounds takes as long as it takes; a server that ends
/// closes the socket.
fn patience(request: &Request) -> Option<Duration> {
    (!matches!(request, Request::AuditVerify)).then_some(60 * PATIENCE)
}

fn hear(stream: &UnixStream) -> std::io::Result<Reply> {
    let mut text = String::new();
    BufReader::new(stream).read_line(&mut text).map_err(unanswered)?;
    // An answer ends with its line.
    if !text.ends_with('\n') {
        return Err(ended());
    }
    Ok(serde_json::from_str(&text)?)
}

/// What somebody is told whose command a server was given that ended with no answer.
fn ended() -> std::io::Error {
    let text = "the server ended before it answered; `aggregator status` says whether it was done";
    std::io::Error::new(ErrorKind::UnexpectedEof, text)
}

/// A server that ends with a command unread, or before it is written, is an error of the socket's, and so is one that is not done in time.
fn unanswered(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ended(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            let text = "the server is still at it, and may still do it; `aggregator status` says whether it was done. If not, ask again, \
                        or stop the server and run the command alone";
            std::io::Error::new(ErrorKind::TimedOut, text)
        }
        _ => error,
    }
}

/// Whether an error means that nobody listens, and not that one who does cannot be reached.
fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn refused(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            let text = format!("{error}; run this as the user that owns the data folder");
            std::io::Error::new(error.kind(), text)
        }
        _ => error,
    }
}

/// Answers commands until the process ends, on the thread that it gives. The socket's permissions are its only guard.
///
/// # Errors
/// A socket that cannot be made.
pub fn listen(socket: &Path, office: Arc<Office>) -> std::io::Result<JoinHandle<()>> {
    // The database's lock says that no other server lives, so a socket that is there is a dead one's.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let clerk = Clerk::new(move |request| guarded(&office, request));
    std::thread::Builder::new().name("control".into()).spawn(move || {
        let pause = || std::thread::sleep(PAUSE);
        answer_all(listener.incoming(), pause, |stream| clerk.serve(stream));
    })
}

/// Answers one connection after the other. Where none can be taken, as without a free file handle, it waits, and says so once until
/// one is taken again.
fn answer_all<S>(
    streams: impl Iterator<Item = std::io::Result<S>>,
    pause: impl Fn(),
    serve: impl Fn(S) -> std::io::Result<()>,
) {
    let mut is_told = false;
    for stream in streams {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                if !is_told {
                    warn!("commands cannot reach this server: {error}; trying again every second");
                }
                is_told = true;
                pause();
                continue;
            }
        };
        is_told = false;
        if let Err(error) = serve(stream) {
            warn!("a command was not answered: {error}");
        }
    }
}

/// What a command that panics comes to: its transaction is gone with it, and the next one finds the server as it was.
fn guarded(office: &Office, request: Request) -> Reply {
    let work = AssertUnwindSafe(|| execute(&office.engine, Some(office), request));
    catch_unwind(work).unwrap_or_else(|_| {
        error!("a command panicked; the lines before say where");
        Reply::Failed("the command panicked; the server's log says where".to_owned())
    })
}

/// Answers connections.
#[derive(Clone)]
struct Clerk {
    execute: Arc<dyn Fn(Request) -> Reply + Send + Sync>,
    /// Held by the audit under way.
    audit: Arc<Mutex<()>>,
}

impl Clerk {
    fn new(execute: impl Fn(Request) -> Reply + Send + Sync + 'static) -> Clerk {
        Clerk { execute: Arc::new(execute), audit: Arc::default() }
    }

    fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?.take(REQUEST_BYTES)).read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(Request::AuditVerify) => self.audit(stream),
            Ok(request) => self.answer(&stream, request),
            Err(error) => say(&stream, &Reply::Failed(format!("not a command: {error}"))),
        }
    }

    /// Minutes of many rounds, which changes nothing and keeps no other command waiting.
    fn audit(&self, stream: UnixStream) -> std::io::Result<()> {
        let clerk = self.clone();
        let work = move || {
            let _turn = clerk.audit.lock().unwrap_or_else(PoisonError::into_inner);
            let answered = clerk.answer(&stream, Request::AuditVerify);
            answered.unwrap_or_else(|error| warn!("an audit was not answered: {error}"));
        };
        std::thread::Builder::new().name("audit".into()).spawn(work).map(drop)
    }

    /// Does nothing for somebody who has left: whoever pressed Ctrl+C believes that nothing was done.
    fn answer(&self, stream: &UnixStream, request: Request) -> std::io::Result<()> {
        if has_left(stream)? {
            info!("a command was given up before its turn came, and is not done");
            return Ok(());
        }
        say(stream, &(self.execute)(request))
    }
}

/// Whether the other end is closed.
fn has_left(mut stream: &UnixStream) -> std::io::Result<bool> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false)?;
    Ok(match read {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    })
}

fn say(mut stream: &UnixStream, reply: &Reply) -> std::io::Result<()> {
    let mut text = serde_json::to_string(reply)?;
    text.push('\n');
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreError};
    use std::cell::{Cell, RefCell};
    use std::sync::mpsc;

    fn scratch(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("aggregator-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_server_that_is_not_there_is_none_and_any_other_trouble_is_told() {
        let folder = scratch("absent");
        let socket = folder.join("control.sock");
        assert!(ask(&socket, &Request::Status).unwrap().is_none());
        drop(UnixListener::bind(&socket).unwrap());
        assert!(ask(&socket, &Request::Status).unwrap().is_none(), "a dead one's socket");
        let endless = folder.join("s".repeat(200));
        assert!(ask(&endless, &Request::Status).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_of_somebody_else_is_not_taken_for_an_empty_one() {
        let folder = scratch("denied");
        let (socket, database) = (folder.join("control.sock"), folder.join("fleet.redb"));
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o000)).unwrap();
        let is_root = std::fs::read_dir(&folder).is_ok();
        let asked = ask(&socket, &Request::Status);
        let opened = Store::open(&database).err();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        if is_root {
            eprintln!("not tried: to root no folder is closed");
            return;
        }
        let told = [asked.unwrap_err().to_string(), opened.as_ref().unwrap().to_string()];
        assert!(told.iter().all(|told| told.contains("as the user that owns")), "{told:?}");
        assert!(matches!(opened, Some(StoreError::Unreachable { .. })));
    }

    #[test]
    fn a_connection_that_cannot_be_taken_is_waited_for_and_the_next_is_answered() {
        let (pauses, answered) = (Cell::new(0), RefCell::new(Vec::new()));
        let no_handle = || Err(std::io::Error::from_raw_os_error(24));
        let streams = [no_handle(), no_handle(), Ok(1), no_handle(), Ok(2)];
        let serve = |stream: i32| {
            answered.borrow_mut().push((stream, pauses.get()));
            Err(ErrorKind::BrokenPipe.into())
        };
        answer_all(streams.into_iter(), || pauses.set(pauses.get() + 1), serve);
        assert_eq!(*answered.borrow(), [(1, 2), (2, 3)]);
    }

    /// A command that waits to be served, and the connection of whoever gave it.
    fn given(request: &Request) -> (UnixStream, UnixStream) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let line = serde_json::to_string(request).unwrap() + "\n";
        client.write_all(line.as_bytes()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, server)
    }

    fn answered(client: UnixStream) -> String {
        let mut text = String::new();
        BufReader::new(client).read_line(&mut text).unwrap();
        text
    }

    #[test]
    fn a_command_whose_giver_has_left_is_not_done() {
        let (sender, done) = mpsc::channel();
        let clerk = Clerk::new(move |request| {
            sender.send(format!("{request:?}")).unwrap();
            Reply::Devices(Vec::new())
        });
        let (client, server) = given(&Request::ModelRollback { version: 1 });
        drop(client);
        clerk.serve(server).unwrap();
        let (client, server) = given(&Request::DeviceList);
        clerk.serve(server).unwrap();
        assert!(answered(client).contains("devices"));
        assert_eq!(done.try_iter().collect::<Vec<_>>(), ["DeviceList"]);
    }

    #[test]
    fn no_command_waits_for_an_audit() {
        let (end, ended) = mpsc::channel();
        let ended = Mutex::new(ended);
        let clerk = Clerk::new(move |request| {
            if matches!(request, Request::AuditVerify) {
                ended.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            Reply::Failed(format!("{request:?}"))
        });
        let (auditor, server) = given(&Request::AuditVerify);
        clerk.serve(server).unwrap();
        let (client, server) = given(&Request::Status);
        clerk.serve(server).unwrap();
        assert!(answered(client).contains("Status"));
        end.send(()).unwrap();
        assert!(answered(auditor).contains("AuditVerify"));
    }

    #[test]
    fn a_server_that_ends_during_a_command_is_told_of_with_the_next_step() {
        let folder = scratch("ended");
        let socket = folder.join("control.sock");
        fn heard(stream: &UnixStream) {
            BufReader::new(stream).read_line(&mut String::new()).unwrap();
        }
        // Heard and not answered, answered in part, with the rest of the command unread, and not listened to at all.
        let half = |mut stream: UnixStream| {
            heard(&stream);
            stream.write_all(b"{\"answer\":").unwrap();
        };
        let unread = |mut stream: UnixStream| stream.read_exact(&mut [0]).unwrap();
        let ends: [fn(UnixStream); 4] = [|stream| heard(&stream), half, unread, drop];
        for end in ends {
            let _ = std::fs::remove_file(&socket);
            let listener = UnixListener::bind(&socket).unwrap();
            let server = std::thread::spawn(move || end(listener.accept().unwrap().0));
            let told = ask(&socket, &Request::Status).unwrap_err().to_string();
            assert!(told.contains("ended before it answered; `aggregator status`"), "{told}");
            server.join().unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_server_that_is_still_at_it_is_told_of_and_an_audit_waited_for() {
        let (client, _server) = UnixStream::pair().unwrap();
        client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let told = hear(&client).unwrap_err().to_string();
        assert!(told.contains("still do it; `aggregator status` says whether"), "{told}");
        assert!(told.contains("If not, ask again, or stop the server"), "{told}");
        assert_eq!(patience(&Request::AuditVerify), None);
        assert!(patience(&Request::Status).is_some());
    }

    #[test]
    fn a_denial_says_who_may() {
        let denied = refused(ErrorKind::PermissionDenied.into());
        assert!(!is_absence(&denied) && denied.to_string().contains("as the user that owns"));
        assert!(!is_absence(&ErrorKind::WouldBlock.into()));
    }
}
