//! One example of every status.
#![allow(dead_code)] // each user takes what it needs

use std::time::Duration;

use overlay::{Fault, Status};

/// Every status screen with its file name.
pub fn statuses() -> Vec<(&'static str, Status<'static>)> {
    let fault = |fault, reason| Status::Fault { fault, reason };
    let lost = Status::CameraLost {
        device: "/dev/video0",
        reason: "no such device",
        retry_in: Duration::from_millis(3400),
    };
    vec![
        ("starting", Status::Starting { step: "opening the camera" }),
        ("camera-off", Status::CameraOff { by: "on the mirror's page" }),
        ("camera-lost", lost),
        ("no-model", Status::NoModel { reason: "models/student/trunk.onnx: hash differs" }),
        ("thermal", Status::Thermal { celsius: 86.4 }),
        ("storage", fault(Fault::Storage, "/var/lib/mirror: no space left on device")),
        ("clock", fault(Fault::Clock, "the clock says 1970")),
        ("program", fault(Fault::Program, "the vision part failed 5 times in a minute")),
    ]
}
