//! Joins the state machine, a connection and the steady clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::device::{Device, Snapshot};
use crate::transport::{Event, Transport};

/// How often the machine looks at its timers.
const TICK: Duration = Duration::from_secs(1);

/// The newest [`Snapshot`], for whoever shows it.
#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Snapshot>>);

impl Watch {
    /// The newest.
    pub fn read(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// Runs until [`Event::Stop`], then says goodbye.
pub async fn run(mut device: Device, mut transport: impl Transport, watch: Watch) {
    let start = Instant::now();
    loop {
        let event = tokio::time::timeout(TICK, transport.next()).await;
        let now = start.elapsed();
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
