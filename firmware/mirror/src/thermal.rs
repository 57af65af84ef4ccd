//! Rests the network when the board is too hot.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{info, warn};

/// Degrees below the limit at which work goes on; without them it would flutter.
const HYSTERESIS: f64 = 5.0;

/// The sensor is read no more often than this.
const INTERVAL: Duration = Duration::from_secs(2);

/// A reading holds for so long where the next ones fail: one that fails says nothing about the board.
const HOLDS: Duration = Duration::from_secs(30);

/// A temperature sensor (a file with thousandths of a degree Celsius) and the limit above which the network rests.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The sensor's file; `None`: nothing is ever too hot.
    pub sensor: Option<PathBuf>,
    /// Degrees Celsius.
    pub celsius: f64,
    /// Whether somebody set one of them: then a person is told of a sensor that cannot be read. Without, it is one that
    /// many machines have and not all.
    pub wanted: bool,
}

/// Watches a limit.
#[derive(Debug)]
pub struct Thermometer {
    limit: Limit,
    file: Option<File>,
    hot: Option<f64>,
    /// When it was last asked.
    asked_at: Option<Instant>,
    /// When it last answered.
    read_at: Option<Instant>,
    trouble: Option<ErrorKind>,
    /// What a person should know of it.
    notice: Option<String>,
    told: bool,
}

impl Thermometer {
    /// Nothing is opened before it is asked.
    pub fn new(limit: Limit) -> Thermometer {
        let (file, hot, asked_at, read_at) = (None, None, None, None);
        let (trouble, notice, told) = (None, None, false);
        Thermometer { limit, file, hot, asked_at, read_at, trouble, notice, told }
    }

    /// The temperature in degrees Celsius while the board is too hot to work.
    pub fn too_hot(&mut self) -> Option<f64> {
        let now = Instant::now();
        if self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL) {
            self.asked_at = Some(now);
            self.look(now);
        }
        self.hot
    }

    /// What a person should know of the sensor.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    fn look(&mut self, now: Instant) {
        let read = self.read();
        if read.is_ok() {
            self.read_at = Some(now);
        } else if self.read_at.is_some_and(|at| now.saturating_duration_since(at) < HOLDS) {
            return;
        }
        let trouble = read.as_ref().err().map(io::Error::kind);
        if trouble != self.trouble {
            self.trouble = trouble;
            self.notice = trouble.filter(|_| self.limit.wanted).and_then(|kind| self.text(kind));
            self.tell();
        }
        let celsius = read.ok().flatten();
        self.hot = celsius.and_then(|celsius| judge(celsius, self.limit.celsius, self.hot));
    }

    /// Once: a sensor that comes and goes must not fill the log.
    fn tell(&mut self) {
        let text = self.trouble.filter(|_| !self.told).and_then(|kind| self.text(kind));
        if let Some(text) = text {
            // Many machines have no such sensor, and nobody asked for it there.
            if self.limit.wanted {
                warn!("{text}")
            } else {
                info!("{text}")
            }
            self.told = true;
        }
    }

    fn text(&self, kind: ErrorKind) -> Option<String> {
        let sensor = self.limit.sensor.as_ref()?.display();
        Some(format!(
            "cannot read the temperature from {sensor} ({kind}): heat stops neither the network \
             nor training; set thermal.sensor to a file under /sys/class/thermal, or to \"\" for none"
        ))
    }

    /// Degrees Celsius; `None` without a sensor. After an error it is opened anew.
    fn read(&mut self) -> io::Result<Option<f64>> {
        let Some(path) = &self.limit.sensor else { return Ok(None) };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::open(path)?,
        };
        let celsius = read_celsius(&mut file)?;
        self.file = Some(file);
        Ok(Some(celsius))
    }
}

fn read_celsius(file: &mut File) -> io::Result<f64> {
    let mut text = [0; 16];
    file.seek(SeekFrom::Start(0))?;
    let length = file.read(&mut text)?;
    let number =
        std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
    let millidegrees: f64 = number.ok_or(ErrorKind::InvalidData)?;
    Ok(millidegrees / 1000.0)
}

fn judge(celsius: f64, limit: f64, was_hot: Option<f64>) -> Option<f64> {
    let limit = if was_hot.is_some() { limit - HYSTERESIS } else { limit };
    (celsius > limit).then_some(celsius)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn thermometer(sensor: Option<PathBuf>, wanted: bool) -> Thermometer {
        Thermometer::new(Limit { sensor, celsius: 85.0, wanted })
    }

    #[test]
    fn it_rests_above_the_limit_until_clearly_cooler() {
        assert_eq!(judge(84.0, 85.0, None), None);
        assert_eq!(judge(86.0, 85.0, None), Some(86.0));
        assert_eq!(judge(81.0, 85.0, Some(86.0)), Some(81.0));
        assert_eq!(judge(80.0, 85.0, Some(81.0)), None);
    }

    #[test]
    fn a_sensor_that_cannot_be_read_is_told_where_somebody_counts_on_it() {
        let check = |sensor: Option<&str>, wanted: bool| {
            let mut thermometer = thermometer(sensor.map(PathBuf::from), wanted);
            assert_eq!(thermometer.too_hot(), None);
            thermometer.notice().map(str::to_owned)
        };
        assert_eq!(check(None, true), None, "none is wanted");
        assert_eq!(check(Some("/nowhere"), false), None, "many machines have none");
        let notice = check(Some("/nowhere"), true).expect("a notice");
        assert!(notice.contains("/nowhere") && notice.contains("thermal.sensor"), "{notice}");
        assert!(check(Some("/proc/version"), true).is_some(), "no number in it");
    }

    #[test]
    fn a_sensor_that_comes_later_is_used() {
        let folder = Folder::new("sensor");
        let path = folder.path().join("temp");
        let mut thermometer = thermometer(Some(path.clone()), true);
        let start = Instant::now();
        let mut look = |seconds: u64, content: Option<&str>| {
            match content {
                Some(text) => std::fs::write(&path, text).expect("writable"),
                None => drop(std::fs::remove_file(&path)),
            }
            thermometer.look(start + Duration::from_secs(seconds));
            (thermometer.hot, thermometer.notice().is_some())
        };
        assert_eq!(look(0, None), (None, true));
        assert_eq!(look(2, Some("91000\n")), (Some(91.0), false));
        assert_eq!(look(4, Some("?")), (Some(91.0), false), "one reading says nothing");
        assert_eq!(look(6, Some("82000\n")), (Some(82.0), false), "not clearly cooler");
        assert_eq!(look(35, Some("?")), (Some(82.0), false));
        assert_eq!(look(36, Some("?")), (None, true), "half a minute says that it is gone");
        assert_eq!(look(38, Some("60000\n")), (None, false));
    }
}
