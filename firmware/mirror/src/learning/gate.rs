//! Whether the mirror can spare its processor: nobody in front, cool, on power, idle.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use home::{Conditions, Gate};

use crate::shared::{CameraState, Health, Shared, lock};

/// Power supplies as the kernel shows them.
const POWER: &str = "/sys/class/power_supply";

/// Temperature, power and load are looked at no more often than this.
const INTERVAL: Duration = Duration::from_secs(1);

/// The device's own conditions.
pub struct DeviceGate {
    shared: Arc<Shared>,
    sensor: Option<PathBuf>,
    idle: Duration,
    measured: Mutex<Option<Measured>>,
}

struct Measured {
    at: Instant,
    jiffies: Jiffies,
    conditions: Conditions,
}

/// Processor time in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Jiffies {
    all: u64,
    idle: u64,
    own: u64,
}

impl DeviceGate {
    /// With a temperature sensor (thousandths of a degree Celsius), and the time that nobody must have been seen moving for.
    pub fn new(shared: Arc<Shared>, sensor: Option<PathBuf>, idle: Duration) -> DeviceGate {
        DeviceGate { shared, sensor, idle, measured: Mutex::default() }
    }

    fn measure(&self) -> Conditions {
        let mut measured = lock(&self.measured);
        if let Some(last) = measured.as_ref().filter(|last| last.at.elapsed() < INTERVAL) {
            return last.conditions;
        }
        let jiffies = read_jiffies().unwrap_or_default();
        let before = measured.as_ref().map_or(jiffies, |last| last.jiffies);
        let conditions = Conditions {
            person_present: false,
            celsius: self.sensor.as_deref().and_then(celsius),
            on_power: on_power(Path::new(POWER)),
            busy: taken_by_others(before, jiffies),
        };
        *measured = Some(Measured { at: Instant::now(), jiffies, conditions });
        conditions
    }
}

impl Gate for DeviceGate {
    fn conditions(&self) -> Conditions {
        // Whoever switches the camera off is not waited for.
        let is_off = |health: &Health| matches!(health.camera, CameraState::Off { .. });
        let person_present =
            self.shared.movement_within(self.idle) && !self.shared.with_health(is_off);
        Conditions { person_present, ..self.measure() }
    }
}

fn celsius(sensor: &Path) -> Option<f32> {
    let thousandths: f32 = fs::read_to_string(sensor).ok()?.trim().parse().ok()?;
    Some(thousandths / 1000.0)
}

/// Mains is there, or nothing says that the device has a battery of its own.
fn on_power(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return true };
    let (mut mains, mut battery) = (false, false);
    for entry in entries.flatten() {
        let word = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        // A battery of another device (a mouse) says nothing about this one.
        match word("type").trim() {
            "Battery" if word("scope").trim() != "Device" => {
                battery |= word("status").trim() == "Discharging";
            }
            "Mains" | "USB" => mains |= word("online").trim() == "1",
            _ => {}
        }
    }
    mains || !battery
}

/// Share of the processor, 0 to 1, that other programs took between two looks.
fn taken_by_others(before: Jiffies, now: Jiffies) -> f32 {
    let passed = |get: fn(&Jiffies) -> u64| get(&now).saturating_sub(get(&before));
    let all = passed(|jiffies| jiffies.all);
    if all == 0 {
        return 0.0;
    }
    let busy = all.saturating_sub(passed(|jiffies| jiffies.idle));
    busy.saturating_sub(passed(|jiffies| jiffies.own)) as f32 / all as f32
}

/// See proc(5): the first line of `/proc/stat`, and fields 14 and 15 of `/proc/self/stat`.
fn read_jiffies() -> Option<Jiffies> {
    let all = fs::read_to_string("/proc/stat").ok()?;
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    parse_jiffies(all.lines().next()?, &own)
}

fn parse_jiffies(all: &str, own: &str) -> Option<Jiffies> {
    let numbers: Vec<u64> =
        all.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    // The program's name, in brackets, may hold spaces.
    let (_, own) = own.rsplit_once(')')?;
    let own: Vec<u64> =
        own.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    let [user, system] = own[..] else { return None };
    let idle = numbers.get(3)? + numbers.get(4)?;
    Some(Jiffies { all: numbers.iter().sum(), idle, own: user + system })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::SwitchedBy;
    use crate::testing::Folder;

    #[test]
    fn own_work_does_not_count_as_others() {
        let before = parse_jiffies(
            "cpu  100 0 50 800 50 0 0 0 0 0",
            "7 (a b) c) R 1 1 1 0 -1 0 0 0 0 0 40 10 0 0 20",
        );
        let before = before.expect("valid lines");
        assert_eq!(before, Jiffies { all: 1000, idle: 850, own: 50 });
        let now = Jiffies { all: 1100, idle: 890, own: 80 };
        assert_eq!(taken_by_others(before, now), 0.3);
        assert_eq!(taken_by_others(now, now), 0.0);
    }

    #[test]
    fn a_discharging_battery_without_mains_is_no_power() {
        let root = Folder::new("power");
        let folder = root.path().join("power_supply");
        let put = |supply: &str, name: &str, text: &str| {
            fs::create_dir_all(folder.join(supply)).expect("writable");
            fs::write(folder.join(supply).join(name), text).expect("writable");
        };
        assert!(on_power(&folder), "no supplies are known");
        put("BAT0", "type", "Battery\n");
        put("BAT0", "status", "Discharging\n");
        assert!(!on_power(&folder));
        put("AC", "type", "Mains\n");
        put("AC", "online", "1\n");
        assert!(on_power(&folder));
        put("AC", "online", "0\n");
        put("BAT0", "scope", "Device\n");
        assert!(on_power(&folder), "the battery of a mouse");
    }

    #[test]
    fn somebody_who_has_just_left_still_counts() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let gate = |idle| DeviceGate::new(Arc::clone(&shared), None, idle);
        assert!(!gate(Duration::from_secs(60)).conditions().person_present);
        shared.note_person();
        assert!(!gate(Duration::from_secs(60)).conditions().person_present, "it never moves");
        shared.note_movement();
        assert!(gate(Duration::from_secs(60)).conditions().person_present);
        let camera = |state| shared.update_health(|health| health.camera = state);
        camera(CameraState::Off { by: SwitchedBy::Page });
        assert!(!gate(Duration::from_secs(60)).conditions().person_present);
        camera(CameraState::On);
        assert!(gate(Duration::from_secs(60)).conditions().person_present);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!gate(Duration::ZERO).conditions().person_present);
    }
}
