//! Who is there: the devices that are connected, by what they said last.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use proto::DeviceId;
use proto::status::Status;

/// The known devices that are connected, by what they said last. A revoked one among them is one that the broker still lets
/// in.
#[derive(Default)]
pub struct Presence(Mutex<BTreeMap<DeviceId, Birth>>);

/// What a device said when it connected.
struct Birth {
    firmware: String,
    /// The newest model version whose trial ended there; 0 for none.
    model_tried: u64,
    /// When it ends to hold unless it is said again. `None`, of a mirror from before 2026-11-30: with a last will alone.
    until: Option<Instant>,
    /// Whether [`Presence::births`] has given it.
    is_seen: bool,
}

impl Birth {
    /// A will dies with its broker, so that nobody may take back what was said.
    fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Presence {
    fn connected(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Birth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a device says of itself, or the broker of it, and until when that holds.
    pub(crate) fn set(&self, device: &DeviceId, status: &Status, until: Option<Instant>) {
        match status {
            Status::Online { firmware, model_tried } => {
                // It is printed on an operator's terminal.
                let firmware = firmware.chars().filter(char::is_ascii_graphic).collect();
                let birth = Birth { firmware, model_tried: *model_tried, until, is_seen: false };
                self.connected().insert(device.clone(), birth);
            }
            Status::Offline { .. } => {
                self.connected().remove(device);
            }
        }
    }

    /// Forgets everybody: at a new connection the broker says again who is there.
    pub fn clear(&self) {
        self.connected().clear();
    }

    /// The connected devices that have said so since the last call, at their connection or once more, each with the newest model
    /// version whose trial ended there; 0 for none.
    pub fn births(&self) -> Vec<(DeviceId, u64)> {
        let (mut connected, now) = (self.connected(), Instant::now());
        let new = connected.iter_mut().filter(|(_, birth)| birth.holds(now) && !birth.is_seen);
        let seen = new.map(|(device, birth)| {
            birth.is_seen = true;
            (device.clone(), birth.model_tried)
        });
        seen.collect()
    }

    /// How many devices are connected.
    pub fn count(&self) -> u64 {
        let (connected, now) = (self.connected(), Instant::now());
        connected.values().filter(|birth| birth.holds(now)).count() as u64
    }

    /// Whether a device is connected.
    pub fn is_online(&self, device: &str) -> bool {
        self.born(device, Instant::now(), |_| ()).is_some()
    }

    /// The version of the firmware of a device, where it is connected.
    pub fn firmware(&self, device: &str) -> Option<String> {
        self.born(device, Instant::now(), |birth| birth.firmware.clone())
    }

    /// What is read of a device's birth, where it is connected at this time.
    fn born<T>(&self, device: &str, now: Instant, read: impl FnOnce(&Birth) -> T) -> Option<T> {
        let device: DeviceId = device.parse().ok()?;
        self.connected().get(&device).filter(|birth| birth.holds(now)).map(read)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_mirror_is_connected_for_as_long_as_it_said_unless_it_says_so_again() {
        let (presence, now) = (Presence::default(), Instant::now());
        let online = Status::Online { firmware: "0.1.0".into(), model_tried: 0 };
        let say = |device: &str, hours: Option<u64>| {
            let until = hours.map(|hours| now + Duration::from_secs(3600 * hours));
            presence.set(&device.parse().unwrap(), &online, until);
        };
        let there = |hours: u64| {
            let at = now + Duration::from_secs(3600 * hours);
            let is_there = |device: &&str| presence.born(device, at, |_| ()).is_some();
            ["gone", "here", "older"].into_iter().filter(is_there).collect::<Vec<_>>()
        };
        say("gone", Some(2));
        say("here", Some(2));
        say("older", None);
        assert_eq!(there(1), ["gone", "here", "older"]);
        say("here", Some(3));
        assert_eq!(there(2), ["here", "older"]);
        assert_eq!(there(1000), ["older"], "from before there was an end");
    }
}
