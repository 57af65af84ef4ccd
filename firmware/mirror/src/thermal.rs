//! Rests the network when the board is too hot.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Degrees below the limit at which work goes on; without them it would flutter.
const HYSTERESIS: f64 = 5.0;

/// The sensor is read no more often than this.
const INTERVAL: Duration = Duration::from_secs(2);

/// A temperature sensor with a limit.
#[derive(Clone, Debug)]
pub struct Thermometer {
    sensor: Option<Arc<File>>,
    limit: f64,
    hot: Option<f64>,
    read_at: Option<Instant>,
}

impl Thermometer {
    /// Opens the sensor file (thousandths of a degree Celsius); without one nothing is ever too hot.
    pub fn new(sensor: Option<PathBuf>, limit: f64) -> Thermometer {
        let sensor = sensor.and_then(|path| File::open(path).ok()).map(Arc::new);
        Thermometer { sensor, limit, hot: None, read_at: None }
    }

    /// The temperature in degrees Celsius while the board is too hot to work.
    pub fn too_hot(&mut self) -> Option<f64> {
        if self.read_at.is_none_or(|at| at.elapsed() >= INTERVAL) {
            self.read_at = Some(Instant::now());
            self.hot = self.read().and_then(|celsius| judge(celsius, self.limit, self.hot));
        }
        self.hot
    }

    fn read(&self) -> Option<f64> {
        let mut file = self.sensor.as_deref()?;
        let mut text = [0; 16];
        file.seek(SeekFrom::Start(0)).ok()?;
        let length = file.read(&mut text).ok()?;
        let millidegrees: f64 = std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()?;
        Some(millidegrees / 1000.0)
    }
}

fn judge(celsius: f64, limit: f64, was_hot: Option<f64>) -> Option<f64> {
    let limit = if was_hot.is_some() { limit - HYSTERESIS } else { limit };
    (celsius > limit).then_some(celsius)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_above_the_limit_until_clearly_cooler() {
        assert_eq!(judge(84.0, 85.0, None), None);
        assert_eq!(judge(86.0, 85.0, None), Some(86.0));
        assert_eq!(judge(81.0, 85.0, Some(86.0)), Some(81.0));
        assert_eq!(judge(80.0, 85.0, Some(81.0)), None);
    }

    #[test]
    fn a_missing_sensor_is_no_obstacle() {
        assert_eq!(Thermometer::new(None, 85.0).too_hot(), None);
        assert_eq!(Thermometer::new(Some("/nowhere".into()), 85.0).too_hot(), None);
    }
}
