//! The server as a whole, without a broker: what ends it.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use aggregator::commands::stop_signal;
use aggregator::config::BrokerConfig;
use aggregator::control::{Reply, Request, ask, listen};
use aggregator::gate::{Gate, GateError};
use aggregator::office::Office;
use aggregator::records::{Device, Phase, Standing};
use aggregator::rollout_rules::Stage;
use aggregator::serve::{ServeError, Server};
use common::{Fleet, PATIENCE, SMALL, TestClock};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

/// A broker that is not there; nothing has to be carried.
fn nowhere() -> BrokerConfig {
    let (host, client) = ("127.0.0.1".to_owned(), "aggregator".to_owned());
    BrokerConfig { host, port: 1, client, workers: 1, tls: None }
}

/// What the server ends with, or nothing in all that time.
fn outcome(server: &Server, patience: Duration) -> Result<(), ServeError> {
    let stop: Arc<AtomicBool> = Arc::default();
    let later = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        later.store(true, Ordering::SeqCst);
    });
    server.wait(&stop)
}

/// A fleet whose round waits for this gate.
fn judged_by(name: &str, gate: Box<dyn Gate>) -> (Server, Arc<TestClock>, common::Scratch) {
    let fleet = Fleet::with_gate(name, common::rules(), gate, SMALL);
    fleet.enrol(5);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.clock.add(100);
    // Without a broker its window would not end.
    fleet.engine.advance(true).unwrap();
    let (engine, clock, folder) = fleet.into_parts();
    (Server::start(engine, &nowhere()).unwrap(), clock, folder)
}

struct Panics;

impl Gate for Panics {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        panic!("a picture that no decoder expects")
    }
}

#[test]
fn a_thread_that_panics_ends_the_server_so_that_its_supervisor_hears_of_it() {
    let (server, _clock, _folder) = judged_by("panic", Box::new(Panics));
    let ended = outcome(&server, PATIENCE).unwrap_err();
    assert!(matches!(&ended, ServeError::Ended(name) if name == "judgements"), "{ended}");
    server.stop();
}

/// Waits until what is said of failing decisions is as wanted; the server must not end meanwhile.
fn until(server: &Server, wanted: impl Fn(Option<String>) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !wanted(server.office.status().unwrap().decisions_failing) {
        outcome(server, Duration::from_millis(100)).unwrap();
        assert!(Instant::now() < end, "{:?}", server.office.status().unwrap().decisions_failing);
    }
}

struct Fails;

impl Gate for Fails {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Err(GateError::NoHoldout)
    }
}

#[test]
fn a_decision_that_fails_is_shown_and_ends_nothing() {
    let (server, _clock, _folder) = judged_by("failing", Box::new(Fails));
    let told = |why: String| {
        why.starts_with("the gate cannot judge the candidate: ") && why.contains("holdout")
    };
    until(&server, |failing| failing.is_some_and(told));
    server.office.engine.abort_round(1, "a test").unwrap();
    until(&server, |failing| failing.is_none());
    server.stop();
}

#[test]
fn of_two_failures_neither_hides_the_other() {
    let (engine, _clock, _folder) = Fleet::new("failures", common::rules()).into_parts();
    let office = Office::open(engine, 1).unwrap();
    *office.decisions_failing.lock().unwrap() = Some("no room".into());
    *office.judgement_failing.lock().unwrap() = Some("no holdout".into());
    let told = office.status().unwrap().decisions_failing;
    let wanted = "no room; the gate cannot judge the candidate: no holdout";
    assert_eq!(told.as_deref(), Some(wanted));
}

#[test]
fn decisions_go_on_while_the_gate_judges() {
    let (gate, begins, go_on) = common::slow_gate();
    let (server, clock, _folder) = judged_by("slow-gate", gate);
    begins.recv_timeout(PATIENCE).unwrap();
    let engine = &server.office.engine;
    engine.abort_round(1, "a test").unwrap();
    engine.start_round(&common::request(true)).unwrap();
    clock.add(10);
    let opened = Instant::now() + PATIENCE;
    while engine.live_round().unwrap().unwrap().phase != Phase::Collecting {
        assert!(Instant::now() < opened, "decisions wait for the gate");
        std::thread::sleep(Duration::from_millis(10));
    }
    go_on.send(()).unwrap();
    server.stop();
}

/// Cannot even say whether it could judge.
struct Confused;

impl Gate for Confused {
    fn ready(&self) -> Result<(), GateError> {
        panic!("a folder that nobody expects")
    }

    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Err(GateError::NoHoldout)
    }
}

#[test]
fn a_command_that_panics_is_answered_and_so_is_the_next() {
    let fleet = Fleet::with_gate("control-panic", common::rules(), Box::new(Confused), SMALL);
    let (engine, _clock, folder) = fleet.into_parts();
    let mut server = Server::start(engine, &nowhere()).unwrap();
    let socket = folder.0.join("control.sock");
    server.watch(listen(&socket, Arc::clone(&server.office)).unwrap());
    let start = ask(&socket, &Request::RoundStart(common::request(false))).unwrap().unwrap();
    assert!(matches!(&start, Reply::Failed(reason) if reason.contains("panicked")), "{start:?}");
    let Some(Reply::Status(status)) = ask(&socket, &Request::Status).unwrap() else {
        panic!("no status")
    };
    assert_eq!((status.workers, status.workers_connected, status.online), (1, 0, None));
    outcome(&server, Duration::from_secs(1)).unwrap();
    server.stop();
}

#[test]
fn a_running_server_has_no_backup_open_to_restore() {
    let (engine, _clock, folder) = Fleet::new("served", common::rules()).into_parts();
    let mut server = Server::start(engine, &nowhere()).unwrap();
    let socket = folder.0.join("control.sock");
    server.watch(listen(&socket, Arc::clone(&server.office)).unwrap());
    let reply = ask(&socket, &Request::Restore { rounds_above: 7, versions_above: 9 }).unwrap();
    let Some(Reply::Failed(told)) = reply else { panic!("{reply:?}") };
    assert!(told.contains("stop the server first"), "{told}");
    assert_eq!(server.office.engine.store().models().unwrap().len(), 1);
    server.stop();
}

#[test]
fn any_thread_that_is_watched_ends_the_server_with_it() {
    let (engine, _clock, _folder) = Fleet::new("watched", common::rules()).into_parts();
    let mut server = Server::start(engine, &nowhere()).unwrap();
    server.watch(std::thread::Builder::new().name("page".into()).spawn(|| {}).unwrap());
    let ended = outcome(&server, PATIENCE).unwrap_err();
    assert!(matches!(&ended, ServeError::Ended(name) if name == "page"), "{ended}");
    server.stop();
}

/// A broker that welcomes a connection, acknowledges nothing, and hears nothing after the first job; gives the connection.
fn hear_a_job(listener: &TcpListener, heard: &Sender<()>) -> std::io::Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    loop {
        match packet(&mut stream)? {
            (1, _) => stream.write_all(&[0x20, 3, 0, 0, 0])?,
            (3, body) if body.escape_ascii().to_string().contains("/jobs/notify") => break,
            _ => {}
        }
    }
    let _ = heard.send(());
    Ok(stream)
}

#[test]
fn a_large_group_to_be_told_by_a_broker_that_takes_nothing_holds_nothing_up() {
    let mut rules = common::rules();
    rules.rollout.stages = vec![Stage::Group("pilot".into()), Stage::Permille(1000)];
    let fleet = Fleet::new("large-group", rules);
    let engine = &fleet.engine;
    // More than can wait for acknowledgements and in the connection's queues together.
    let members = (0..3_000).map(|number| Device {
        name: format!("mirror-{number}"),
        fingerprint: format!("{number:064x}"),
        standing: Standing::Enrolled,
        enrolled_at: 0,
        group: Some("pilot".into()),
    });
    let enrol_all = engine.store().decide(0, engine.key(), |decision| {
        for device in members {
            decision.put_device(&device)?;
        }
        Ok(())
    });
    enrol_all.unwrap();
    common::add_version(engine, 0.5);
    engine.publish(2).unwrap();
    let round = engine.start_round(&common::request(true)).unwrap().id;
    let (engine, clock, _folder) = fleet.into_parts();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = BrokerConfig { port: listener.local_addr().unwrap().port(), ..nowhere() };
    let (heard, hears) = std::sync::mpsc::channel();
    let connection = std::thread::spawn(move || hear_a_job(&listener, &heard));
    let server = Server::start(engine, &broker).unwrap();
    hears.recv_timeout(PATIENCE).unwrap();
    // The group is being told, and the round is given up with a later step.
    let phase = || server.office.engine.store().round(round).unwrap().unwrap().phase;
    let began = Instant::now();
    while !phase().is_final() {
        assert!(began.elapsed() < PATIENCE, "decisions wait for the broker");
        std::thread::sleep(Duration::from_millis(10));
        // Little by little: a leap would be a time in which nobody heard.
        clock.add(1);
    }
    let (done, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        server.stop();
        done.send(())
    });
    stopped.recv_timeout(PATIENCE).unwrap();
    drop(connection.join().unwrap());
}

/// Says which of the two tests below is the child.
const STUCK: &str = "AGGREGATOR_STUCK";

/// Not a test of its own: a server that a judgement holds up when it is asked to stop. Does nothing unless the parent asks.
#[test]
fn stuck_child() {
    if std::env::var_os(STUCK).is_none() {
        return;
    }
    let stop = stop_signal().unwrap();
    raise(SIGTERM).unwrap();
    assert!(stop.load(Ordering::SeqCst));
    println!("asked once");
    raise(SIGTERM).unwrap();
    println!("asked twice");
}

#[test]
fn a_second_signal_does_not_wait() {
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stuck_child", "--nocapture", "--test-threads=1"])
        .env(STUCK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains("asked once") && !said.contains("asked twice"), "{said}");
    assert_eq!(ended.status.code(), Some(130));
}

#[test]
fn settings_that_are_wrong_end_the_program_with_2_and_those_that_are_not_there_yet_with_1() {
    let ended = |settings: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aggregator"));
        let ended = command.arg("--config").arg(settings).arg("status").output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, told) = ended(&std::env::temp_dir().join("no-such-aggregator.toml"));
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(told.matches("os error 2").count(), 1, "{told}");
    // No settings file of this program.
    let (code, told) = ended(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    assert_eq!(code, Some(2), "{told}");
}

#[test]
fn a_standard_error_that_takes_nothing_ends_nothing() {
    let folder = std::env::temp_dir().join(format!("aggregator-full-{}", std::process::id()));
    let folder = common::Scratch(folder);
    std::fs::create_dir_all(&folder.0).unwrap();
    let (settings, data) = (folder.0.join("aggregator.toml"), folder.0.join("data"));
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/student");
    let text = format!(
        "channel = \"a\"\ndata = {data:?}\nmodel = {model:?}\n[broker]\nhost = \"localhost\"\nport = 1\n"
    );
    std::fs::write(&settings, text).unwrap();
    let ended = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aggregator"));
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        command.arg("--config").arg(&settings).args(arguments).stdout(Stdio::null()).stderr(full);
        command.status().unwrap().code()
    };
    assert_eq!(ended(&["init"]), Some(0));
    assert_eq!(ended(&["round", "start", "--force"]), Some(0), "no server runs, which is logged");
    assert_eq!(ended(&["round", "start", "--force"]), Some(1), "one is under way");
}

/// One packet: its kind and what follows the length, which is that of a short one.
fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    // The length of a longer packet goes on in a second byte.
    let length = match head[1] {
        short @ 0..128 => usize::from(short),
        low => {
            let mut high = [0];
            stream.read_exact(&mut high)?;
            usize::from(low & 127) + 128 * usize::from(high[0])
        }
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head[0] >> 4, body))
}

/// A broker whose access list lets nobody subscribe.
fn refuse_all(listener: &TcpListener) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    loop {
        match packet(&mut stream)? {
            (1, _) => stream.write_all(&[0x20, 3, 0, 0, 0])?,
            (8, body) => stream.write_all(&[0x90, 4, body[0], body[1], 0, 0x87])?,
            (3, _) => {}
            (kind, _) => panic!("a packet of kind {kind}"),
        }
    }
}

#[test]
fn a_worker_whose_subscriptions_are_refused_is_not_connected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = BrokerConfig { port: listener.local_addr().unwrap().port(), ..nowhere() };
    std::thread::spawn(move || refuse_all(&listener));
    let (engine, _clock, _folder) = Fleet::new("refused", common::rules()).into_parts();
    let server = Server::start(engine, &broker).unwrap();
    let (began, status) = (Instant::now(), || server.office.status().unwrap());
    while status().broker_refused < 7 && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = status();
    assert_eq!((status.workers_connected, status.online), (0, None));
    assert_eq!(status.broker_refused, 7, "what is announced, who is there, three shares, a lane");
    assert_eq!(status.broker_refused_now, 7, "all of them on the connection at hand");
    server.stop();
}
