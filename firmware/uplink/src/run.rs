//! Joins the state machine, a connection and the steady clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::{Device, Snapshot};
use crate::transport::{Event, Transport};

/// How often the machine looks at its timers.
const TICK: Duration = Duration::from_secs(1);

/// The newest [`Snapshot`], for whoever shows it; and the way for whoever is asked to wish something.
#[derive(Clone, Default)]
pub struct Watch {
    newest: Arc<Mutex<Snapshot>>,
    install: Arc<AtomicBool>,
}

impl Watch {
    /// The newest.
    pub fn read(&self) -> Snapshot {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the newest model now, see [`Device::install_newest`]. Heard within a second.
    pub fn wish_newest_model(&self) {
        self.install.store(true, Ordering::SeqCst);
    }

    fn write(&self, snapshot: Snapshot) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// Runs until [`Event::Stop`], then says goodbye.
pub async fn run(device: Device, transport: impl Transport, watch: Watch) {
    run_hasty(device, transport, watch, 1).await;
}

/// [`run`] with a clock that goes `haste` times as fast, for tests and demonstrations in which a day's waits must fit
/// into minutes. The connection's own pauses stay as they are.
pub async fn run_hasty(
    mut device: Device,
    mut transport: impl Transport,
    watch: Watch,
    haste: u32,
) {
    let start = Instant::now();
    loop {
        let event = tokio::time::timeout(TICK / haste, transport.next()).await;
        let now = haste * start.elapsed();
        if watch.install.swap(false, Ordering::SeqCst) {
            device.install_newest(now);
        }
        match event {
            Ok(Event::Stop) => break,
            Ok(event) => device.handle(now, event, &mut transport),
            Err(_) => device.tick(now, &mut transport),
        }
        watch.write(device.snapshot());
    }
    device.goodbye(&mut transport);
    watch.write(device.snapshot());
    transport.close().await;
}
